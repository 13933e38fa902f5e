// What unfold and Django's widgets leave out: names for those who hear the page, and a promise to its policy.

htmx.config.includeIndicatorStyles = false; // styles within the page are forbidden, on the sign-in page too
htmx.config.allowEval = false;

// Select2 names its box by the value chosen, and has none before one is: it goes by its label then.
function nameBoxes() {
  for (const select of document.querySelectorAll("select.select2-hidden-accessible")) {
    const name = select.labels[0]?.textContent.trim() ?? select.name;
    const box = select.nextElementSibling;
    box?.querySelectorAll(".select2-selection, .select2-search__field").forEach((part) => part.setAttribute("aria-label", name));
    box?.querySelector(".select2-selection__rendered[role=textbox]")?.setAttribute("aria-label", name);
  }
}

// A list of two columns explains itself in signs that have a text but no part to play.
function nameSigns() {
  document.querySelectorAll(".help-tooltip[aria-label]").forEach((sign) => sign.setAttribute("role", "img"));
}

// The widgets come when they like, some as late as a row is added.
document.addEventListener("DOMContentLoaded", () => {
  const nameAll = () => { nameBoxes(); nameSigns(); };
  new MutationObserver(nameAll).observe(document.body, { childList: true, subtree: true });
  nameAll();
});
