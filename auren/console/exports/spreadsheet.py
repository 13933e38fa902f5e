"""CSV (RFC 4180, UTF-8): one row a sample. docs/exports.md explains each column and why the table is long."""

import csv
import io
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo

from auren.biometrics.metrics import STAGE_LABELS, Metric
from auren.console.exports.reading import Devices, Entry, Page, Piece, Selection, pages

COLUMNS = (
    "patient",
    "metric",
    "code",
    "start_at_utc",
    "end_at_utc",
    "start_at_local",
    "end_at_local",
    "utc_offset_minutes",
    "value",
    "unit",
    "value_label",
    "source",
    "source_kind",
    "vendor",
    "record",
    "revised_at_utc",
    "delivery",
    "settled",
    "conflict",
)
# What a spreadsheet takes for the beginning of a formula, the full-width forms included
# (https://owasp.org/www-community/attacks/CSV_Injection).
FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
OFFSETS = {minutes: timezone(timedelta(minutes=minutes)) for minutes in range(-14 * 60, 14 * 60 + 1)}


def pieces(of: Selection) -> Iterator[Piece]:
    """The file, page by page, the header first."""
    devices = Devices()
    yield Piece(_text([header(of.metrics)]), 0, 0)
    for metric in of.metrics:
        for page in pages(of, metric, of.start_at, of.end_at):
            yield Piece(_text(_rows(of, page, devices)), page.read, len(page.entries))


def header(metrics: tuple[Metric, ...]) -> list[str]:
    """The values' unit stands in the header where it is one for all of them, else it is the column beside."""
    units = {metric.unit for metric in metrics}
    value = f"value [{units.pop()}]" if len(units) == 1 else "value [see unit]"
    return [value if column == "value" else column for column in COLUMNS]


def number(value: float) -> str:
    """The shortest text that reads back as the same float; a whole number without its point: zero is `0`."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def harmless(text: str) -> str:
    """With an apostrophe before what a spreadsheet would take for a formula."""
    return "'" + text if text.startswith(FORMULA) else text


def _text(rows: Iterator[list[str]] | list[list[str]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerows(rows)
    return buffer.getvalue().encode()


def _rows(of: Selection, page: Page, devices: Devices) -> Iterator[list[str]]:
    metric = page.metric
    first = [harmless(of.external_id), metric.name, metric.code]
    named = {number: [harmless(text) for text in about] for number, about in devices.of(page).items()}
    for entry in page.entries:
        yield [*first, *_times(entry, of.zone), *_value(entry, metric), *named[entry.row.source_id], *_origin(entry)]


def _times(entry: Entry, zone: tzinfo) -> list[str]:
    start_at, end_at, minutes = entry.row.start_at, entry.row.end_at, entry.row.utc_offset_minutes
    there = zone if minutes is None else OFFSETS.get(minutes, zone)
    start, start_local = _utc(start_at), start_at.astimezone(there).isoformat()
    offset = "" if minutes is None else str(minutes)
    if end_at == start_at:
        return [start, start, start_local, start_local, offset]
    return [start, _utc(end_at), start_local, end_at.astimezone(there).isoformat(), offset]


def _utc(at: datetime) -> str:
    return at.isoformat()[:-6] + "Z"


def _value(entry: Entry, metric: Metric) -> list[str]:
    value = entry.row.value
    stage = STAGE_LABELS.get(int(value), "") if metric.adds == "state" else ""
    return [number(value), metric.unit, stage]


def _origin(entry: Entry) -> list[str]:
    row = entry.row
    return [harmless(row.record), _utc(row.revised_at), str(row.delivery_id), entry.settled, entry.conflict]
