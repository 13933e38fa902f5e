// The page: one view (from, to) that all lanes share, and the data that belongs to it.

import { list } from "./conflicts.js";
import { LaneChart } from "./lane.js";
import { fill } from "./table.js";
import { Clock } from "./times.js";

const HOUR = 3_600;
const DAY = 24 * HOUR;
const SHORTEST = 10 * 60;
const LONGEST = 92 * DAY; // as the server allows
const PATIENCE = 150; // milliseconds a hand may rest between two zoom steps before data is asked for

const root = document.getElementById("timeline");
const part = (id) => document.getElementById(id);
const start = JSON.parse(part("view").textContent);
const clock = new Clock(start.zone);
const every = part("every-source");

let view = { from: start.from, to: start.to };
let lanes = [];
let answer = null;
let asking = null;
let timer = 0;

const page = {
  clock,
  range: () => [view.from, view.to],
  onSelect: (from, to) => show(from, to),
  onReset: () => show(start.from, start.to),
  onCursor: (at) => { part("cursor").textContent = at === null ? "" : clock.full(at); },
};

function show(from, to) {
  const span = Math.min(Math.max(to - from, SHORTEST), LONGEST);
  const center = (from + to) / 2;
  const end = Math.min(center + span / 2, Date.now() / 1000 + DAY);
  view = { from: end - span, to: end };
  lanes.forEach((lane) => lane.rescale());
  describe();
  clearTimeout(timer);
  timer = setTimeout(load, PATIENCE);
}

const shift = (share) => show(view.from + (view.to - view.from) * share, view.to + (view.to - view.from) * share);

function zoom(factor) {
  const half = ((view.to - view.from) / 2) * factor;
  const center = (view.from + view.to) / 2;
  show(center - half, center + half);
}

function describe() {
  part("range").textContent = `${clock.full(view.from)} – ${clock.full(view.to)}.`;
  const days = Math.round(((view.to - view.from) / DAY) * 100) / 100;
  root.querySelectorAll("[data-days]").forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset.days) === days)));
}

function address() {
  const query = new URLSearchParams({
    from: new Date(view.from * 1000).toISOString(),
    to: new Date(view.to * 1000).toISOString(),
    points: String(Math.min(Math.max(root.clientWidth, 300), 2_000)),
  });
  if (every.checked) query.set("sources", "all");
  return `${root.dataset.url}?${query}`;
}

async function load() {
  asking?.abort();
  asking = new AbortController();
  try {
    const response = await fetch(address(), { signal: asking.signal, headers: { Accept: "application/json" } });
    if (response.status === 401 || response.status === 404) return window.location.reload(); // the page says why
    const body = await response.json();
    if (!response.ok) throw new Error(body.detail);
    answer = body;
    part("failure").hidden = true;
    part("updated").textContent = `Loaded ${clock.full(Date.now() / 1000)}`;
    return redraw();
  } catch (error) {
    return error.name === "AbortError" ? undefined : fail(error);
  }
}

function fail(error) {
  const retry = document.createElement("button");
  retry.className = "quiet";
  retry.textContent = "Try again";
  retry.addEventListener("click", load);
  part("failure").replaceChildren(`The data could not be loaded (${error.message}). What is drawn may be old. `, retry);
  part("failure").hidden = false;
}

function redraw() {
  if (!answer) return;
  lanes.forEach((lane) => lane.remove());
  lanes = answer.lanes.map((lane) => new LaneChart(lane, answer.conflicts.filter((one) => one.lane === lane.key), page));
  lanes.forEach((lane) => tabulate(lane.section.querySelector("details"), lane));
  list(part("conflicts"), answer.conflicts, answer.more_conflicts, clock, closer);
  admitNothing(lanes.every((lane) => !lane.lines.length));
}

// An open table follows the view; a closed one is emptied and filled when it is opened.
function tabulate(details, lane) {
  const place = details.querySelector(".scroll");
  const write = () => details.open && fill(place, details.querySelector("summary").textContent, lane.lines, clock);
  details.hidden = !lane.lines.length;
  place.replaceChildren();
  details.ontoggle = write;
  write();
}

function admitNothing(nothing) {
  const days = Math.round((view.to - view.from) / DAY);
  const last = answer.last_at === null ? "There has never been any." : `Last data: ${clock.year(answer.last_at)} (${clock.zone}).`;
  part("nothing").hidden = !nothing;
  part("nothing").textContent = `No data in ${days > 1 ? `these ${days} days` : "this range"}. ${last}`;
  part("lanes").hidden = nothing;
}

function closer(conflict) {
  const around = Math.max(2 * HOUR, conflict.end - conflict.start);
  show(conflict.start - around, conflict.end + around);
  const lane = part(`lane-${conflict.lane}`);
  lane.scrollIntoView({ block: "center" });
  lane.focus({ preventScroll: true });
}

const ACTIONS = {
  earlier: () => shift(-0.25),
  later: () => shift(0.25),
  closer: () => zoom(0.5),
  wider: () => zoom(2),
  reset: () => page.onReset(),
};
const KEYS = { ArrowLeft: "earlier", ArrowRight: "later", "+": "closer", "=": "closer", "-": "wider", 0: "reset" };

root.addEventListener("click", ({ target }) => {
  if (target.dataset.do) ACTIONS[target.dataset.do]();
  if (target.dataset.days) show(view.to - target.dataset.days * DAY, view.to);
});
part("lanes").addEventListener("keydown", (event) => {
  if (!event.target.matches(".lane") || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  ACTIONS[KEYS[event.key]]();
});
part("lanes").addEventListener("wheel", (event) => {
  if (Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return;
  event.preventDefault();
  shift(event.deltaX / root.clientWidth);
}, { passive: false });
every.addEventListener("change", load);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
new ResizeObserver(() => lanes.forEach((lane) => lane.resize())).observe(part("lanes"));

describe();
load();
