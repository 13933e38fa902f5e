// The page: one view (from, to) that all lanes share, and the data that belongs to it.

import { list } from "./conflicts.js";
import { LaneChart, introduce } from "./lane.js";
import { listen } from "./live.js";
import { fill } from "./table.js";
import { Clock } from "./times.js";

const HOUR = 3_600;
const DAY = 24 * HOUR;
const SHORTEST = 10 * 60;
const NOW = 90; // seconds from now within which a view that ends there goes with the time
const PATIENCE = 150; // milliseconds a hand may rest between two zoom steps before data is asked for

const root = document.getElementById("timeline");
const part = (id) => document.getElementById(id);
const start = JSON.parse(part("view").textContent);
const clock = new Clock(start.zone);
introduce(start.devices);
const every = part("every-source");
const own = part("own-range");
const fixed = root.dataset.lanes !== ""; // one night: its own lanes, and an address that already says which
const LONGEST = Number(root.dataset.mostDays) * DAY;

let view = { from: start.from, to: start.to };
let follows = endsNow();
let lanes = [];
let answer = null;
let asking = null;
let [asked, etag] = ["", ""]; // what `answer` answers, and under which mark: the server says 304 where nothing changed
let timer = 0;
const [near, late] = [new Set(), new Set()]; // sections in sight, or almost, and those whose chart shows an older view

const page = {
  clock,
  range: () => [view.from, view.to],
  onSelect: (from, to) => show(from, to),
  onReset: () => (fixed ? show(start.from, start.to) : last(start.days)),
  onCursor: (at) => { part("cursor").textContent = at === null ? "" : clock.full(at); },
};

function show(from, to, how) {
  const span = Math.min(Math.max(to - from, SHORTEST), LONGEST);
  const center = (from + to) / 2;
  const end = Math.min(center + span / 2, Date.now() / 1000 + DAY);
  view = { from: end - span, to: end };
  follows = endsNow();
  lanes.forEach(rescale);
  describe();
  clearTimeout(timer);
  timer = setTimeout(() => settle(how), PATIENCE);
}

// A lane out of sight follows when it comes into sight.
function rescale(lane) {
  if (near.has(lane.section)) lane.rescale();
  else late.add(lane.section);
}

function catchUp(entries) {
  entries.forEach(({ target, isIntersecting }) => {
    near[isIntersecting ? "add" : "delete"](target);
    if (isIntersecting && late.delete(target)) lanes.find(({ section }) => section === target)?.rescale();
  });
}

function settle(how) {
  remember();
  load(how);
}

function endsNow() {
  return Math.abs(view.to - now()) < NOW;
}

function now() {
  return Date.now() / 1000;
}

const last = (days, how) => show(now() - days * DAY, now(), how);
const days = () => Math.round(((view.to - view.from) / DAY) * 100) / 100;
const iso = (at) => new Date(Math.floor(at) * 1000).toISOString().replace(".000", "");

// The address holds the view, so that it can be sent and kept. One that ends now is kept as its length.
function remember() {
  if (fixed) return;
  const query = new URLSearchParams(follows ? { days: days() } : { from: iso(view.from), to: iso(view.to) });
  if (every.checked) query.set("sources", "all");
  const plain = follows && days() === start.days && !every.checked;
  window.history.replaceState(null, "", plain ? window.location.pathname : `?${query}`);
}

const shift = (share) => show(view.from + (view.to - view.from) * share, view.to + (view.to - view.from) * share);

function zoom(factor) {
  const half = ((view.to - view.from) / 2) * factor;
  const center = (view.from + view.to) / 2;
  show(center - half, center + half);
}

function describe() {
  part("range").textContent = `${clock.full(view.from)} – ${clock.full(view.to)}.`;
  root.querySelectorAll("[data-days]").forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset.days) === days())));
  own.elements.first.value = clock.iso(view.from);
  own.elements.last.value = clock.iso(view.to - 1);
}

function address() {
  const query = new URLSearchParams({
    from: new Date(view.from * 1000).toISOString(),
    to: new Date(view.to * 1000).toISOString(),
    points: String(Math.min(Math.max(root.clientWidth, 300), 2_000)),
  });
  if (every.checked) query.set("sources", "all");
  if (fixed) query.set("lanes", root.dataset.lanes);
  return `${root.dataset.url}?${query}`;
}

// `quiet` says that the page asks by itself: a session does not go on for that.
async function load({ quiet = false } = {}) {
  asking?.abort();
  asking = new AbortController();
  try {
    const place = address();
    const known = place === asked ? { "If-None-Match": etag } : {};
    const response = await fetch(place, { signal: asking.signal, headers: { Accept: "application/json", ...(quiet && { "X-Auren-Quiet": "1" }), ...known } });
    if (response.status === 304) return undefined;
    if (response.status === 401 || response.status === 404) return window.location.reload(); // the page says why
    const body = await response.json();
    if (!response.ok) throw new Error(body.detail);
    [answer, asked, etag] = [body, place, response.headers.get("ETag")];
    part("failure").hidden = true;
    part("updated").textContent = `Loaded ${clock.full(Date.now() / 1000)}`;
    return redraw();
  } catch (error) {
    return error.name === "AbortError" ? undefined : fail(error);
  }
}

// New data is drawn where one looks: a view that ends now goes with the time, another one stays.
function refresh() {
  if (!answer) return;
  if (follows) last(days(), { quiet: true });
  else load({ quiet: true });
}

function fail(error) {
  const retry = document.createElement("button");
  retry.className = "quiet";
  retry.textContent = "Try again";
  retry.addEventListener("click", () => load());
  part("failure").replaceChildren(`The data could not be loaded (${error.message}). What is drawn may be old. `, retry);
  part("failure").hidden = false;
}

function redraw() {
  if (!answer) return;
  lanes.forEach((lane) => lane.remove());
  late.clear();
  lanes = answer.lanes.map((lane) => new LaneChart(lane, answer.conflicts.filter((one) => one.lane === lane.key), page));
  tellAbsent();
  lanes.forEach((lane) => tabulate(lane.section.querySelector("details"), lane));
  list(part("conflicts"), answer.conflicts, answer.more_conflicts, clock, closer);
  admitNothing(lanes.every((lane) => !lane.lines.length));
  requestAnimationFrame(() => performance.mark("lanes-drawn")); // for bench.pages, and whoever looks at a profile
}

// An open table follows the view; a closed one is emptied and filled when it is opened.
function tabulate(details, lane) {
  const place = details.querySelector(".scroll");
  const write = () => details.open && fill(place, details.querySelector("summary").textContent, lane.lines, lane.silentRows, clock);
  details.hidden = !lane.lines.length;
  place.replaceChildren();
  details.ontoggle = write;
  write();
}

// Lanes without a line would be eleven times "no data": one sentence names them.
function tellAbsent() {
  const absent = lanes.filter((lane) => !lane.lines.length);
  lanes.forEach((lane) => { lane.section.hidden = !lane.lines.length && !lane.conflicts.length; });
  const why = [...new Set(answer.lanes.flatMap(({ series }) => series.every(({ lines }) => !lines.length) ? series.flatMap(({ gaps }) => (gaps ?? []).map(({ text }) => text)) : []))];
  part("absent").textContent = absent.length ? [`No data in this range: ${absent.map(({ title }) => title.toLowerCase()).join(", ")}.`, ...why].join(" ") : "";
}

function admitNothing(nothing) {
  const whole = Math.round((view.to - view.from) / DAY);
  const last = answer.last_at === null ? "There has never been any." : `Last data: ${clock.year(Math.min(answer.last_at, now()))} (${clock.zone}).`;
  part("nothing").hidden = !nothing;
  const why = new Set(answer.lanes.flatMap(({ series }) => series.flatMap(({ gaps }) => (gaps ?? []).map(({ text }) => text))));
  part("nothing").textContent = [`No data in ${whole > 1 ? `these ${whole} days` : "this range"}. ${last}`, ...why].join(" ");
  part("lanes").hidden = part("absent").hidden = nothing;
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
own.addEventListener("submit", (event) => {
  event.preventDefault();
  const [first, final] = [own.elements.first.value, own.elements.last.value].sort();
  if (first) show(clock.midnight(first), clock.midnight(clock.iso(clock.midnight(final) + 30 * HOUR)));
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
every.addEventListener("change", settle);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
const watching = new IntersectionObserver(catchUp, { rootMargin: "300px 0px" });
root.querySelectorAll(".lane").forEach((section) => watching.observe(section));
new ResizeObserver(() => lanes.forEach((lane) => lane.resize())).observe(part("lanes"));

every.checked = start.every_source;
describe();
load();
listen(root.dataset.live, refresh);
