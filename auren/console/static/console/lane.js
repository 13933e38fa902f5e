// One strip of the page: a uPlot chart, its legend, and the numbers under the cursor.

import * as draw from "./draw.js";

const HEIGHTS = { line: 190, dots: 150, bars: 130, stages: 150 };
const AXIS_WIDTH = 86; // the same for all lanes, so that one moment stands in one column
const LONGEST_NAME = 12;
const NARROWEST = 240;
const COLOURS = 6;
const seen = new Map(); // each device has a colour of its own on all pages of a patient

export const middle = (line, row) => (line.start[row] + line.end[row]) / 2;

export const introduce = (devices) => devices.forEach((device) => seen.set(String(device), seen.size % COLOURS));

// A device's own colour, unless another line of this lane has it already.
function pick(sources, taken) {
  const key = sources.join("+");
  if (!seen.has(key)) seen.set(key, seen.size % COLOURS);
  let number = seen.get(key);
  for (let tries = 0; taken.has(number) && tries < COLOURS; tries += 1) number = (number + 1) % COLOURS;
  taken.add(number);
  return draw.colour(`series-${number + 1}`);
}

const alike = (one, other) => one.label === other.label && String(one.value) === String(other.value);

// The lane's lines with what drawing needs: the settled ones, and the devices' own as thin dashes on request.
function dressed(lane) {
  const taken = new Set();
  const colours = new Map();
  const dress = (series, line, own) => {
    const key = `${series.metric} ${line.sources}`;
    if (!colours.has(key)) colours.set(key, pick(line.sources, taken));
    return { line, own, shape: series.shape, usual: own ? null : series.usual, stroke: colours.get(key), label: own ? `${line.label}, every reading` : line.label };
  };
  return lane.series.flatMap((series) => {
    const settled = series.lines.map((line) => dress(series, line, false));
    const own = (series.every_source ?? []).map((line) => dress(series, line, true));
    if (own.length && (series.shape === "bars" || series.shape === "stages")) return own;
    return [...settled, ...own.filter((one) => !settled.some((other) => alike(one.line, other.line)))];
  });
}

// Rows with a value whose neighbours are gaps: a line cannot show them, so they get a dot.
function alone(chart, index, show) {
  if (show) return null;
  const values = chart.data[index];
  const rows = [];
  let [before, last] = [null, null];
  values.forEach((value, row) => {
    if (value === undefined) return;
    if (last !== null && before === null && value === null) rows.push(last);
    before = last === null ? null : values[last];
    last = value === null ? null : row;
    if (value === null) before = null;
  });
  if (last !== null && before === null) rows.push(last);
  return rows;
}

function lineSeries({ line, own, shape, stroke, label }) {
  const dots = shape === "dots" && !own;
  return {
    label,
    stroke,
    width: own ? 1 : shape === "dots" ? 1 : 1.5,
    dash: own ? [4, 4] : undefined,
    points: { show: dots ? true : undefined, size: dots ? 7 : 5, fill: stroke, filter: dots ? undefined : alone },
  };
}

const edge = (label) => ({ label, stroke: "transparent", width: 0, points: { show: false } });
const unseen = (label) => ({ label, paths: () => null, points: { show: false } });

// uPlot wants one row of times for all lines: joined, with gaps as nulls from one value to the next (it breaks a line
// only between neighbouring times) and the other lines' times as undefined.
const EXPAND_NULLS = 2;

function aligned(lines) {
  const series = [{}];
  const bands = [];
  const tables = lines.map((one) => {
    const { line, shape, label, stroke } = one;
    const times = line.start.map((_, row) => middle(line, row));
    if (shape === "bars" || shape === "stages") {
      series.push(unseen(label));
      return [times, line.value];
    }
    series.push(lineSeries(one));
    if (!line.low || one.own) return [times, line.value];
    series.push(edge(label), edge(label));
    bands.push({ series: [series.length - 2, series.length - 1], fill: `${stroke}30` });
    return [times, line.value, line.high, line.low];
  });
  return { series, bands, data: uPlot.join(tables, tables.map((table) => table.map(() => EXPAND_NULLS))) };
}

const compared = (lines) => lines.some(({ own }) => own);

// One band a metric, in the colour of the first of its lines.
const usualOf = (lines) => lines.filter(({ usual }, place) => usual && lines.findIndex((one) => one.usual === usual) === place);

function scaleOf(shape, lines, key) {
  if (shape === "stages") return [0.3, (compared(lines) ? lines.length : draw.STAGE_ROWS) + 0.6];
  if (shape === "bars") return (chart, low, high) => [0, Math.max(high ?? 0, 100) * 1.12];
  if (key === "scores") return [0, 105];
  const bands = usualOf(lines);
  return (chart, low, high) => {
    if (low === null) return [0, 1];
    return uPlot.rangeNum(Math.min(low, ...bands.map((one) => one.usual.low)), Math.max(high, ...bands.map((one) => one.usual.high)), 0.12, true);
  };
}

const shortened = (name) => (name.length > LONGEST_NAME ? `${name.slice(0, LONGEST_NAME - 1)}…` : name);

function stageAxis(lines) {
  const strips = compared(lines);
  const names = lines.map(({ line }) => shortened(line.label.split(" · ").pop())).reverse();
  return {
    splits: strips ? lines.map((_, place) => place + 1) : draw.STAGE_SPLITS,
    values: () => (strips ? names : draw.STAGE_NAMES),
    filter: (chart, splits) => splits,
  };
}

function axes(shape, lines, clock) {
  const look = { stroke: draw.colour("dim"), grid: { stroke: draw.colour("grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const upright = shape === "stages" ? stageAxis(lines) : { space: 34 };
  return [
    { ...look, space: 76, size: 40, values: clock.ticks },
    { ...look, size: AXIS_WIDTH, ...upright },
  ];
}

// Where a lane is hatched: alike metrics, as scores are, share what none of them has; of others the first one speaks.
function silences(lane) {
  const regular = lane.series.filter(({ lines, gaps }) => lines.length && gaps);
  const alike = regular.every(({ shape }) => shape === regular[0].shape);
  const silent = (alike ? regular : regular.slice(0, 1)).map(({ gaps }) => gaps);
  const shared = (ours, theirs) => ours.flatMap((one) => theirs
    .map((other) => ({ ...one, start: Math.max(one.start, other.start), end: Math.min(one.end, other.end) }))
    .filter(({ start, end }) => start < end));
  return silent.length ? silent.reduce(shared) : [];
}

// Every metric's own gaps, for the table.
const silentRows = (lane) => lane.series.flatMap((series) => (series.lines.length ? (series.gaps ?? []).map((gap) => ({ ...gap, label: series.label })) : []));

function painted(shape, lines, conflicts, silent) {
  const columns = new Set(lines.map(({ own, line }) => (own ? String(line.sources) : "settled")));
  const order = [...columns];
  const placed = lines.map((one) => ({ ...one, place: order.indexOf(one.own ? String(one.line.sources) : "settled"), places: order.length }));
  return (chart) => {
    usualOf(lines).forEach(({ usual, stroke }) => draw.usual(chart, usual, stroke));
    draw.gaps(chart, silent);
    if (shape === "bars") draw.bars(chart, placed);
    if (shape === "stages") (compared(lines) ? draw.strips : draw.hypnogram)(chart, lines);
    draw.marks(chart, conflicts);
  };
}

function swatch(kind, fill = "") {
  const box = document.createElement("span");
  box.className = `swatch ${kind}`;
  box.style.background = fill;
  return box;
}

function key(list, box, ...said) {
  const entry = document.createElement("li");
  entry.append(box, ...said);
  list.append(entry);
}

function legend(list, shape, lines, conflicts, silent) {
  const stages = shape === "stages";
  const outputs = lines.map(({ label, stroke }) => {
    const output = document.createElement("output");
    key(list, swatch(stages ? "line" : "", stroke), label, output);
    return output;
  });
  const unnamed = stages ? draw.unnamed(lines, compared(lines)) : [];
  unnamed.forEach((stage) => key(list, swatch("", draw.colour(`stage-${stage}`)), draw.STAGES[stage]));
  usualOf(lines).forEach(({ line, usual, stroke }) => {
    const metric = line.label.split(" · ")[0];
    const [low, high] = [said(shape, usual.low), said(shape, usual.high)];
    key(list, swatch("band", `${stroke}40`), `${metric}, usual ${low}–${high} (${usual.days} of 30 days)`);
  });
  if (conflicts.length) key(list, swatch("mark"), "devices disagree");
  if (silent.length) key(list, swatch("gap"), "no data");
  return outputs;
}

export function said(shape, value) {
  if (value === null || value === undefined) return "–";
  return shape === "stages" ? draw.STAGES[value] : value.toLocaleString("en-GB", { maximumFractionDigits: 1 });
}

// The row that spans `at`, else the nearest one within `reach` seconds, else -1.
function rowAt(line, at, reach) {
  let [best, distance] = [-1, Infinity];
  for (let row = 0; row < line.value.length; row += 1) {
    if (line.value[row] === null) continue;
    const inside = at >= line.start[row] && at < line.end[row];
    const away = inside ? 0 : Math.abs(middle(line, row) - at);
    if (away < distance) [best, distance] = [row, away];
  }
  return distance <= reach ? best : -1;
}

function summary(title, shape, lines, silent) {
  const values = lines.flatMap(({ line }) => line.value.filter((value) => value !== null));
  const devices = lines.map(({ label }) => label).join("; ");
  if (shape === "stages") return `${title}: ${devices}. The table below has every stage.`;
  const usual = usualOf(lines).map((one) => ` Usual for this patient: ${said(shape, one.usual.low)} to ${said(shape, one.usual.high)}.`).join("");
  const gaps = silent.length ? ` ${silent.length} ${silent.length === 1 ? "gap" : "gaps"} without data.` : "";
  return `${title}: ${devices}.${usual}${gaps} From ${said(shape, Math.min(...values))} to ${said(shape, Math.max(...values))}. The table below has every value.`;
}

export class LaneChart {
  // `page` gives the common view: `range()`, `clock`, `onSelect(from, to)`, `onReset()`, `onCursor(at)`.
  constructor(lane, conflicts, page) {
    this.page = page;
    this.title = lane.title;
    this.section = document.getElementById(`lane-${lane.key}`);
    this.lines = dressed(lane);
    this.shape = lane.series[0].shape;
    this.conflicts = conflicts;
    this.silent = silences(lane);
    this.silentRows = silentRows(lane);
    this.holder = this.section.querySelector(".chart");
    const list = this.section.querySelector(".legend");
    list.replaceChildren();
    this.holder.replaceChildren();
    this.holder.classList.toggle("bare", !this.lines.length);
    if (this.lines.length) this.draw(lane, list);
    else this.say("No data in this range.");
  }

  say(text) {
    this.holder.textContent = text;
    this.holder.setAttribute("aria-label", text);
  }

  draw(lane, list) {
    this.outputs = legend(list, this.shape, this.lines, this.conflicts, this.silent);
    this.holder.setAttribute("aria-label", summary(lane.title, this.shape, this.lines, this.silent));
    const { series, bands, data } = aligned(this.lines);
    this.chart = new uPlot({ ...this.options(lane.key), series, bands }, data, this.holder);
    this.note = document.createElement("p");
    this.note.className = "gap-note";
    this.note.hidden = true;
    this.chart.over.append(this.note);
  }

  options(key) {
    const { page } = this;
    return {
      width: Math.max(this.holder.clientWidth, NARROWEST),
      height: HEIGHTS[this.shape],
      pxAlign: 0,
      padding: [8, 12, 0, 0],
      tzDate: page.clock.wall,
      legend: { show: false },
      scales: { x: { range: () => page.range() }, y: { range: scaleOf(this.shape, this.lines, key) } },
      axes: axes(this.shape, this.lines, page.clock),
      cursor: this.cursor(),
      hooks: {
        draw: [painted(this.shape, this.lines, this.conflicts, this.silent)],
        setSelect: [(chart) => this.selected(chart)],
        setCursor: [(chart) => this.pointed(chart)],
      },
    };
  }

  cursor() {
    return {
      y: false,
      points: { show: false },
      drag: { x: true, y: false, setScale: false },
      bind: { dblclick: () => () => this.page.onReset() },
      // Only the pointer is shared: a selection belongs to the chart it was drawn on.
      sync: { key: "lanes", setSeries: false, filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } },
    };
  }

  selected(chart) {
    const { left, width } = chart.select;
    if (width < 4) return;
    const [from, to] = [chart.posToVal(left, "x"), chart.posToVal(left + width, "x")];
    chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.page.onSelect(from, to);
  }

  pointed(chart) {
    const { left } = chart.cursor;
    const at = left === undefined || left < 0 ? null : chart.posToVal(left, "x");
    const reach = at === null ? 0 : chart.posToVal(left + 10, "x") - at;
    this.lines.forEach(({ line, shape }, place) => {
      const row = at === null ? -1 : rowAt(line, at, reach);
      this.outputs[place].textContent = at === null ? "" : said(shape, line.value[row]);
    });
    if (this.note) this.explain(chart, at);
    this.page.onCursor(at);
  }

  // Why there is nothing under the pointer, on the side of it where there is more room.
  explain(chart, at) {
    const gap = at === null ? undefined : this.silent.find(({ start, end }) => at >= start && at < end);
    this.note.hidden = !gap;
    if (!gap) return;
    const { left } = chart.cursor;
    const rightwards = left < chart.over.clientWidth / 2;
    this.note.textContent = `No data, ${this.page.clock.span(gap.start, gap.end)}. ${gap.text}`;
    this.note.style.left = rightwards ? `${left + 12}px` : "auto";
    this.note.style.right = rightwards ? "auto" : `${chart.over.clientWidth - left + 12}px`;
  }

  rescale() {
    const [min, max] = this.page.range();
    this.chart?.setScale("x", { min, max });
  }

  resize() {
    this.chart?.setSize({ width: Math.max(this.holder.clientWidth, NARROWEST), height: HEIGHTS[this.shape] });
  }

  remove() {
    this.chart?.destroy();
  }
}
