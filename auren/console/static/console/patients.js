// The list by keys: arrows move from patient to patient, a slash goes to the search.

const links = [...document.querySelectorAll(".list tbody th a")];
const search = document.getElementById("q");

function move(step) {
  const at = links.indexOf(document.activeElement);
  const next = links[at < 0 ? (step > 0 ? 0 : links.length - 1) : at + step];
  next?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  const act = { ArrowDown: () => move(1), ArrowUp: () => move(-1), "/": () => search?.focus() }[event.key];
  if (!act || !links.length) return;
  event.preventDefault();
  act();
});
