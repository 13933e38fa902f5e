// The list under the charts: who said what, which device was drawn, and why.

const SHOWN = 10;
const QUARTER = 900;

// A duration reads as hours and minutes, everything else as its number.
function amount(value, unit) {
  if (unit !== "s") return String(Math.round(value * 10) / 10);
  const minutes = Math.round(value / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function amounts(low, high, unit) {
  const [from, to] = [amount(low, unit), amount(high, unit)];
  return `${from === to ? from : `${from} – ${to}`}${unit && unit !== "s" ? ` ${unit}` : ""}`;
}

function sentence(conflict, clock) {
  const values = conflict.values.map(({ source, low, high }) => `${source} ${amounts(low, high, conflict.unit)}`).join(", ");
  const often = conflict.count > 1 ? `, ${conflict.count} times` : "";
  const open = conflict.state === "open" ? " Open: waits for a person." : "";
  const when = conflict.end - conflict.start <= QUARTER ? clock.short(conflict.start) : clock.span(conflict.start, conflict.end);
  const what = `${conflict.label}${conflict.daily ? ", whole day" : ""}${often}: ${values}`;
  const apart = `${amounts(conflict.apart, conflict.apart, conflict.unit)} apart${conflict.count > 1 ? " at most" : ""}`;
  const agreed = `up to ${amounts(conflict.tolerance, conflict.tolerance, conflict.unit)} agrees`;
  return [when, `${what}: ${apart}, ${agreed}. ${conflict.winner} drawn: ${conflict.why}.${open}`];
}

// Side by side, and where it is decided.
function details(conflict, when) {
  const link = document.createElement("a");
  link.className = "button quiet";
  link.href = `${document.getElementById("timeline").dataset.conflicts}${conflict.id}/`;
  link.textContent = "Details";
  link.setAttribute("aria-label", `Details of ${conflict.label}, ${when}, and deciding it`);
  return link;
}

function acts(...buttons) {
  const group = document.createElement("span");
  group.className = "acts";
  group.append(...buttons);
  return group;
}

function entry(conflict, clock, onShow) {
  const item = document.createElement("li");
  const time = document.createElement("strong");
  const text = document.createElement("span");
  const button = document.createElement("button");
  [time.textContent, text.textContent] = sentence(conflict, clock);
  button.className = "quiet";
  button.textContent = "Show";
  button.setAttribute("aria-label", `Show ${time.textContent} in the charts`);
  button.addEventListener("click", () => onShow(conflict));
  item.append(time, text, acts(button, details(conflict, time.textContent)));
  return item;
}

function plain(text) {
  const item = document.createElement("li");
  item.className = "plain";
  item.textContent = text;
  return item;
}

export function list(place, conflicts, more, clock, onShow, all = false) {
  const newest = [...conflicts].reverse();
  const shown = all ? newest : newest.slice(0, SHOWN);
  place.replaceChildren(...shown.map((conflict) => entry(conflict, clock, onShow)));
  if (!conflicts.length) place.append(plain("Nowhere in this range."));
  if (shown.length < newest.length) {
    const rest = plain("");
    const button = document.createElement("button");
    button.className = "quiet";
    button.textContent = `Show all ${newest.length}`;
    button.addEventListener("click", () => list(place, conflicts, more, clock, onShow, true));
    rest.append(button);
    place.append(rest);
  } else if (more) place.append(plain("There are more than are listed here: zoom in to see them."));
}
