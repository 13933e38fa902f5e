// The same data as words, for readers who do not see the chart. Built when opened.

import { said } from "./lane.js";

const MOST_ROWS = 1_000;

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
}

function rowsOf(lines) {
  const rows = lines.flatMap(({ line, shape, label }) =>
    line.value.map((value, row) => ({
      shape, label, value, start: line.start[row], end: line.end[row], low: line.low?.[row], high: line.high?.[row],
    })),
  );
  return rows.sort((one, other) => other.start - one.start);
}

function rowElement(row, clock, banded) {
  const made = document.createElement("tr");
  made.append(element("th", clock.span(row.start, row.end), { scope: "row" }), element("td", row.label));
  made.append(element("td", row.value === null ? "no data" : said(row.shape, row.value), { class: "number" }));
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

export function fill(place, title, lines, clock) {
  const rows = rowsOf(lines);
  const banded = rows.some(({ low }) => low !== undefined);
  const table = document.createElement("table");
  const cut = rows.length > MOST_ROWS ? ` The newest ${MOST_ROWS} of ${rows.length} rows; zoom in for the others.` : "";
  table.append(element("caption", `${title}, newest first, times in ${clock.zone}.${cut}`));
  table.createTHead().append(head(banded));
  table.createTBody().append(...rows.slice(0, MOST_ROWS).map((row) => rowElement(row, clock, banded)));
  place.replaceChildren(table);
}
