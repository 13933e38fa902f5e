// The same data as words, for readers who do not see the chart. Built when opened.

import { said } from "./lane.js";

const MOST_ROWS = 1_000;

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
}

function rowsOf(lines, silent) {
  const rows = lines.flatMap(({ line, shape, label }) =>
    line.value.map((value, row) => ({
      shape, label, value, start: line.start[row], end: line.end[row], low: line.low?.[row], high: line.high?.[row],
    })),
  );
  const values = rows.filter(({ value }) => value !== null); // a gap of one device may be another's line
  const gaps = silent.map(({ label, text, start, end }) => ({ label, text, start, end, value: null }));
  return [...values, ...gaps].sort((one, other) => other.start - one.start);
}

function rowElement(row, clock, banded) {
  const made = document.createElement("tr");
  made.append(element("th", clock.span(row.start, row.end), { scope: "row" }), element("td", row.label));
  if (row.value === null) {
    made.append(element("td", `no data. ${row.text}`, { colspan: banded ? 3 : 1 }));
    return made;
  }
  made.append(element("td", said(row.shape, row.value), { class: "number" }));
  if (banded) {
    made.append(element("td", said(row.shape, row.low), { class: "number" }), element("td", said(row.shape, row.high), { class: "number" }));
  }
  return made;
}

function head(banded) {
  const made = document.createElement("tr");
  const titles = banded ? ["When", "What", "Mean", "Lowest", "Highest"] : ["When", "What", "Value"];
  made.append(...titles.map((title, place) => element("th", title, { scope: "col", class: place > 1 ? "number" : "" })));
  return made;
}

export function fill(place, title, lines, silent, clock) {
  const rows = rowsOf(lines, silent);
  const banded = rows.some(({ low }) => low !== undefined);
  const table = document.createElement("table");
  const cut = rows.length > MOST_ROWS ? ` The newest ${MOST_ROWS} of ${rows.length} rows; zoom in for the others.` : "";
  table.append(element("caption", `${title}, newest first, times in ${clock.zone}.${cut}`));
  table.createTHead().append(head(banded));
  table.createTBody().append(...rows.slice(0, MOST_ROWS).map((row) => rowElement(row, clock, banded)));
  place.replaceChildren(table);
}
