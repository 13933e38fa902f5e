// What uPlot has no path for: bars by the day, hypnograms and the marks of conflicts. Canvas pixels throughout.

const SOURCE = 3; // the height of the line that says by its colour from which device stages came

export const STAGES = { 1: "Awake", 2: "Light", 3: "Deep", 4: "REM", 5: "In bed", 6: "Asleep" };
// From top to bottom as hypnograms are read; "asleep" stands between, for devices that know no more.
const ROWS = { 1: 5, 4: 4, 6: 3, 2: 2, 3: 1 };
export const STAGE_ROWS = 5;
export const STAGE_SPLITS = [1, 2, 3, 4, 5];
export const STAGE_NAMES = ["Deep", "Light", "Asleep", "REM", "Awake"];
const IN_BED = 5;

// The stages of `lines` that no row of the axis names, and that a legend therefore must.
export function unnamed(lines, strips) {
  const found = new Set(lines.flatMap(({ line }) => line.value));
  return Object.keys(STAGES).map(Number).filter((stage) => found.has(stage) && (stage === IN_BED) !== strips);
}

const colours = new Map(); // asked for thousands of times a frame

export function colour(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return colours.get(name);
}

window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => colours.clear());

function clipped(chart, paint) {
  const { ctx, bbox } = chart;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  paint(ctx, bbox);
  ctx.restore();
}

const across = (chart, at) => chart.valToPos(at, "x", true);
const up = (chart, value) => chart.valToPos(value, "y", true);

// Lines share a day's width when several devices are shown. A day of zero is a thin stroke; a day without data, nothing.
export function bars(chart, lines) {
  clipped(chart, (ctx) => {
    lines.forEach(({ line, stroke, place, places }) => {
      ctx.fillStyle = stroke;
      line.value.forEach((value, row) => {
        const left = across(chart, line.start[row]);
        const day = across(chart, line.end[row]) - left;
        const width = (day * 0.76) / places;
        const base = up(chart, 0);
        const height = Math.max(base - up(chart, value), 2 * uPlot.pxRatio);
        ctx.fillRect(left + day * 0.12 + width * place, base - height, Math.max(width - 1, 1), height);
      });
    });
  });
}

export function hypnogram(chart, lines) {
  clipped(chart, (ctx, bbox) => {
    const row = up(chart, 1) - up(chart, 2);
    for (const { line, stroke } of lines) {
      inBed(chart, ctx, bbox, line);
      steps(chart, ctx, line);
      source(chart, ctx, line, stroke, bbox.top + bbox.height);
      eachStage(chart, line, (stage, left, width) => {
        ctx.fillStyle = colour(`stage-${stage}`);
        ctx.fillRect(left, up(chart, ROWS[stage]) - row * 0.36, width, row * 0.72);
      });
    }
  });
}

// One strip a device, for comparing: stages by colour alone, named in the legend and the table.
export function strips(chart, lines) {
  clipped(chart, (ctx) => {
    const row = up(chart, 1) - up(chart, 2);
    lines.forEach(({ line, stroke }, place) => {
      const center = up(chart, lines.length - place);
      eachStage(chart, line, (stage, left, width) => {
        ctx.fillStyle = colour(`stage-${stage}`);
        ctx.fillRect(left, center - row * 0.38, width, row * 0.72);
      });
      source(chart, ctx, line, stroke, center + row * 0.38 + SOURCE * uPlot.pxRatio);
    });
  });
}

function eachStage(chart, line, paint) {
  line.value.forEach((stage, row) => {
    if (stage === IN_BED) return;
    const left = across(chart, line.start[row]);
    paint(stage, left, Math.max(across(chart, line.end[row]) - left, 1));
  });
}

function inBed(chart, ctx, bbox, line) {
  ctx.fillStyle = colour(`stage-${IN_BED}`);
  line.value.forEach((stage, row) => {
    if (stage !== IN_BED) return;
    const left = across(chart, line.start[row]);
    ctx.fillRect(left, bbox.top, across(chart, line.end[row]) - left, bbox.height);
  });
}

// Whole pixels, so that neighbouring rows make one line.
function source(chart, ctx, line, stroke, bottom) {
  const height = SOURCE * uPlot.pxRatio;
  ctx.fillStyle = stroke;
  line.start.forEach((start, row) => {
    const [left, right] = [start, line.end[row]].map((at) => Math.round(across(chart, at)));
    ctx.fillRect(left, Math.round(bottom) - height, Math.max(right - left, 1), height);
  });
}

// The fine upright lines that join one stage to the next when nothing lies between them.
function steps(chart, ctx, line) {
  ctx.strokeStyle = colour("dim");
  ctx.lineWidth = 0.5 * uPlot.pxRatio;
  ctx.beginPath();
  for (let row = 1; row < line.value.length; row += 1) {
    const [before, after] = [ROWS[line.value[row - 1]], ROWS[line.value[row]]];
    if (!before || !after || line.start[row] !== line.end[row - 1]) continue;
    const left = across(chart, line.start[row]);
    ctx.moveTo(left, up(chart, before));
    ctx.lineTo(left, up(chart, after));
  }
  ctx.stroke();
}

// Where there are no data: hatched, so that it is neither zero nor a line that was forgotten.
export function gaps(chart, silent) {
  const apart = 7 * uPlot.pxRatio;
  silent.forEach(({ start, end }) => {
    clipped(chart, (ctx, bbox) => {
      const [left, right] = [across(chart, start), across(chart, end)].map((at) => Math.min(Math.max(at, bbox.left), bbox.left + bbox.width));
      ctx.beginPath();
      ctx.rect(left, bbox.top, right - left, bbox.height);
      ctx.clip();
      ctx.strokeStyle = colour("dim");
      ctx.globalAlpha = 0.35;
      ctx.lineWidth = uPlot.pxRatio;
      ctx.beginPath();
      for (let at = left - (left % apart) - bbox.height; at < right; at += apart) {
        ctx.moveTo(at, bbox.top + bbox.height);
        ctx.lineTo(at + bbox.height, bbox.top);
      }
      ctx.stroke();
    });
  });
}

// The patient's own usual range, behind the line it belongs to.
export function usual(chart, { low, high }, stroke) {
  clipped(chart, (ctx, bbox) => {
    const [top, bottom] = [up(chart, high), up(chart, low)];
    ctx.fillStyle = `${stroke}1f`;
    ctx.fillRect(bbox.left, top, bbox.width, bottom - top);
    ctx.strokeStyle = `${stroke}80`;
    ctx.lineWidth = uPlot.pxRatio;
    ctx.setLineDash([2 * uPlot.pxRatio, 4 * uPlot.pxRatio]);
    ctx.beginPath();
    for (const edge of [top, bottom]) {
      ctx.moveTo(bbox.left, edge);
      ctx.lineTo(bbox.left + bbox.width, edge);
    }
    ctx.stroke();
  });
}

// A conflict is an arrow at its middle under a bar of its length; one that stands for several says how many.
export function marks(chart, conflicts) {
  if (!conflicts.length) return;
  clipped(chart, (ctx, bbox) => {
    ctx.fillStyle = ctx.strokeStyle = colour("mark");
    ctx.lineWidth = uPlot.pxRatio;
    conflicts.forEach((conflict) => mark(chart, ctx, bbox, conflict));
    counts(chart, ctx, bbox, conflicts);
  });
}

const middle = (chart, { start, end }) => across(chart, (start + end) / 2);

function mark(chart, ctx, bbox, conflict) {
  const size = 5 * uPlot.pxRatio;
  const at = middle(chart, conflict);
  const left = across(chart, conflict.start);
  ctx.globalAlpha = 0.35;
  ctx.beginPath();
  ctx.moveTo(at, bbox.top);
  ctx.lineTo(at, bbox.top + bbox.height);
  ctx.stroke();
  ctx.globalAlpha = 1;
  ctx.fillRect(left, bbox.top, across(chart, conflict.end) - left, 2 * uPlot.pxRatio);
  ctx.beginPath();
  ctx.moveTo(at - size, bbox.top);
  ctx.lineTo(at + size, bbox.top);
  ctx.lineTo(at, bbox.top + size * 1.5);
  ctx.fill();
}

// Right of the arrow, left of one at the edge; left out where it would cover a neighbour.
function counts(chart, ctx, bbox, conflicts) {
  const gap = 7 * uPlot.pxRatio;
  ctx.font = `600 ${11 * uPlot.pxRatio}px system-ui, sans-serif`;
  ctx.textBaseline = "top";
  ctx.textAlign = "left";
  const arrows = conflicts.map((conflict) => middle(chart, conflict));
  conflicts.forEach(({ count }, place) => {
    const text = `${count}×`;
    const width = ctx.measureText(text).width;
    const at = arrows[place];
    const left = at + gap + width > bbox.left + bbox.width ? at - gap - width : at + gap;
    const covers = arrows.some((other) => other !== at && other > left - gap && other < left + width + gap);
    if (count > 1 && !covers) ctx.fillText(text, left, bbox.top + 3 * uPlot.pxRatio);
  });
}
