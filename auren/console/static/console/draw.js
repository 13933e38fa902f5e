// What uPlot has no path for: bars by the day, hypnograms and the marks of conflicts. Canvas pixels throughout.

export const STAGES = { 1: "Awake", 2: "Light", 3: "Deep", 4: "REM", 5: "In bed", 6: "Asleep" };
// From top to bottom as hypnograms are read; "asleep" stands between, for devices that know no more.
const ROWS = { 1: 5, 4: 4, 6: 3, 2: 2, 3: 1 };
export const STAGE_ROWS = 5;
export const STAGE_SPLITS = [1, 2, 3, 4, 5];
export const STAGE_NAMES = ["Deep", "Light", "Asleep", "REM", "Awake"];
const IN_BED = 5;

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

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
    for (const { line } of lines) {
      inBed(chart, ctx, bbox, line);
      steps(chart, ctx, line);
      eachStage(chart, line, (stage, left, width) => {
        ctx.fillStyle = colour(`stage-${stage}`);
        ctx.fillRect(left, up(chart, ROWS[stage]) - row * 0.36, width, row * 0.72);
      });
    }
  });
}

// One strip a device, for comparing: stages by colour alone, named in the table.
export function strips(chart, lines) {
  clipped(chart, (ctx) => {
    const row = up(chart, 1) - up(chart, 2);
    lines.forEach(({ line }, place) => {
      eachStage(chart, line, (stage, left, width) => {
        ctx.fillStyle = colour(`stage-${stage}`);
        ctx.fillRect(left, up(chart, lines.length - place) - row * 0.38, width, row * 0.76);
      });
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

export function marks(chart, conflicts) {
  if (!conflicts.length) return;
  clipped(chart, (ctx, bbox) => {
    const size = 5 * uPlot.pxRatio;
    ctx.fillStyle = ctx.strokeStyle = colour("mark");
    ctx.lineWidth = uPlot.pxRatio;
    for (const { start, end } of conflicts) {
      const at = across(chart, (start + end) / 2);
      ctx.globalAlpha = 0.35;
      ctx.beginPath();
      ctx.moveTo(at, bbox.top);
      ctx.lineTo(at, bbox.top + bbox.height);
      ctx.stroke();
      ctx.globalAlpha = 1;
      ctx.beginPath();
      ctx.moveTo(at - size, bbox.top);
      ctx.lineTo(at + size, bbox.top);
      ctx.lineTo(at, bbox.top + size * 1.5);
      ctx.fill();
    }
  });
}
