"""A patient's samples in pages, metric by metric in order of time, each with how it stands.

Every statement names the patient, one metric and a bounded stretch of `start_at`, as auren/biometrics/timeline.py
explains. A page is one short snapshot of the database: nothing is held open while a file grows, and a long export
keeps nobody's vacuum waiting. What is stored meanwhile may therefore be in later pages and not in earlier ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import psycopg
from django.db import connection, transaction
from django.db.models import QuerySet

from auren.biometrics import timeline
from auren.biometrics.metrics import BY_NAME, METRICS, Metric
from auren.biometrics.models import Sample, Source
from auren.biometrics.standing import Settled, Standing
from devices.models import Link
from webhooks.models import Delivery

PAGE = 10_000  # samples
EVERY_POINT = 2**31 - 1


class Row(NamedTuple):
    start_at: datetime
    end_at: datetime
    source_id: int
    record: str
    value: float
    revised_at: datetime
    utc_offset_minutes: int | None
    delivery_id: int


READ = f"""
SELECT {", ".join(Row._fields)} FROM biometrics_sample
WHERE patient_id = %s AND metric = %s AND start_at >= %s AND start_at < %s
ORDER BY start_at, source_id, record LIMIT %s
"""  # noqa: S608 - names of this file


class Entry(NamedTuple):
    """A sample, whether the timeline counts it, and the state of a conflict it is part of (empty: of none)."""

    row: Row
    settled: Settled
    conflict: str


@dataclass(frozen=True, slots=True)
class Page:
    """`read` counts the samples looked at, `entries` are those asked for."""

    metric: Metric
    entries: list[Entry]
    read: int


class Piece(NamedTuple):
    """Some of a file: its bytes, how many samples were read for it, and how many entries it has."""

    content: bytes
    samples: int
    entries: int


@dataclass(frozen=True, slots=True)
class Selection:
    """What an export is of. Samples belong to the range they start in: neighbouring ranges share none."""

    patient_id: int
    external_id: str
    zone: ZoneInfo
    start_at: datetime
    end_at: datetime
    metrics: tuple[Metric, ...]
    every_source: bool
    # What a report says beside the data.
    name: str = ""
    asked_by: str = ""
    number: int | None = None

    def count(self, most: int | None = None) -> int:
        """How many samples there are; with `most`, no more than that are counted."""
        total = 0
        for metric in self.metrics:
            found = _samples(self, metric, self.start_at, self.end_at)
            total += (found if most is None else found[: most - total]).count()
            if total == most:
                break
        return total


def chosen_metrics(names: list[str]) -> tuple[Metric, ...]:
    """In the catalogue's order; all of them where none is named."""
    wanted = set(names) or set(BY_NAME)
    return tuple(metric for metric in METRICS if metric.name in wanted)


def pages(of: Selection, metric: Metric, start_at: datetime, end_at: datetime) -> Iterator[Page]:
    """The samples of `metric` that start in the range, asked for in pages that end between two instants."""
    since: datetime | None = start_at
    while since is not None:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            rows, following = _page(of, metric, since, end_at)
            standing = Standing(_window(of, rows), metric) if rows else None
        if standing is not None:
            yield Page(metric, _entries(of, rows, standing), len(rows))
        since = following


def _page(of: Selection, metric: Metric, since: datetime, end_at: datetime) -> tuple[list[Row], datetime | None]:
    """Rows up to an instant, which the next page begins with; None after the last one."""
    size = PAGE
    while True:
        rows = _read(of, metric, since, end_at, size + 1)
        if len(rows) <= size:
            return rows, None
        last_at = rows[-1].start_at
        if rows[0].start_at < last_at:
            return [row for row in rows if row.start_at < last_at], last_at
        size *= 2  # a whole page of one instant


def _read(of: Selection, metric: Metric, since: datetime, end_at: datetime, most: int) -> list[Row]:
    """psycopg reads times from binary answers in a third of the time Django's own loader takes."""
    connection.ensure_connection()
    with psycopg.Cursor(connection.connection) as cursor:
        cursor.execute(READ, (of.patient_id, metric.number, since, end_at, most), binary=True)
        return [*map(Row._make, cursor.fetchall())]


def _samples(of: Selection, metric: Metric, start_at: datetime, end_at: datetime) -> QuerySet[Sample]:
    return Sample.objects.filter(
        patient_id=of.patient_id, metric=metric.number, start_at__gte=start_at, start_at__lt=end_at
    )


def _window(of: Selection, rows: list[Row]) -> timeline.Window:
    until = rows[-1].start_at + timedelta(seconds=1)
    return timeline.Window(of.patient_id, rows[0].start_at, until, of.zone, EVERY_POINT)


def _entries(of: Selection, rows: list[Row], standing: Standing) -> list[Entry]:
    outdated = _outdated(rows)
    entries = []
    for number, row in enumerate(rows):
        place = (row.source_id, row.start_at, row.end_at)
        settled = "no" if number in outdated else standing.settled(*place)
        if of.every_source or settled != "no":
            entries.append(Entry(row, settled, standing.conflict(*place)))
    return entries


def _outdated(rows: list[Row]) -> set[int]:
    """Those of which another one of the same source and interval is the newer revision; the rows are in order."""
    found: set[int] = set()
    rivals: dict[datetime, int] = {}  # the best so far of this source and start, by its end
    before = None
    for number, row in enumerate(rows):
        if before is None or before.start_at != row.start_at or before.source_id != row.source_id:
            rivals = {}
        before = row
        rival = rivals.get(row.end_at)
        if rival is None or rows[rival].revised_at < row.revised_at:
            rivals[row.end_at] = number
        if rival is not None:
            found.add(number if rivals[row.end_at] == rival else rival)
    return found


class Devices:
    """The sources met so far, each asked for once: name, kind and vendor."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, str, str]] = {}

    def of(self, page: Page) -> dict[int, tuple[str, str, str]]:
        missing = {entry.row.source_id for entry in page.entries} - self._known.keys()
        if missing:
            sources = Source.objects.in_bulk(missing)
            vendors = dict(
                Link.objects.filter(pk__in={s.link_id for s in sources.values()}).values_list("pk", "vendor")
            )
            for number in missing:
                source = sources.get(number)
                about = (source.name, source.kind, vendors.get(source.link_id, "")) if source else ("", "", "")
                self._known[number] = about
        return self._known


def unfinished_deliveries(page: Page) -> set[int]:
    """Which of the page's deliveries the vendor has not finished: they are asked for again later, as planned."""
    numbers = {entry.row.delivery_id for entry in page.entries}
    waiting = Delivery.objects.filter(pk__in=numbers, state="retrying", planned_wait=True)
    return set(waiting.values_list("pk", flat=True))
