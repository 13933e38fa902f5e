"""One value a metric and local day, read from the settled timeline: a report never says anything else than its lanes.

Something belongs to the day it ends on, as a night does; a count to the day it was counted on. Of the values of one
day, what adds up is added, of nights that end on one day the longest one speaks, and others are averaged.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from auren.biometrics import timeline
from auren.biometrics.metrics import ASLEEP, BY_NAME, DEEP, IN_BED, LIGHT, NIGHT, REM, Metric

DAY = timedelta(days=1)
STRETCH = 31  # days of a metric of many values a day that are read at once
LONG_STRETCH = 400
PAUSE = 3600.0  # seconds; stages further apart than this are two nights
EVERY_POINT = 2**31 - 1
STAGE = BY_NAME["sleep_stage"]
# Totals that a night of stages alone yields.
OF_STAGES = {
    BY_NAME["sleep_duration"]: {LIGHT, DEEP, REM, ASLEEP},
    BY_NAME["sleep_light"]: {LIGHT},
    BY_NAME["sleep_deep"]: {DEEP},
    BY_NAME["sleep_rem"]: {REM},
}

Row = tuple[float, float, float]  # start, end, value; times in Unix seconds


@dataclass(frozen=True, slots=True)
class Span:
    """Local days of one patient, both included."""

    patient_id: int
    zone: ZoneInfo
    first: date
    last: date

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    def each(self) -> Iterator[date]:
        return (self.first + number * DAY for number in range(self.days))

    def before(self) -> "Span":
        """As many days, that end where this begins."""
        return Span(self.patient_id, self.zone, self.first - self.days * DAY, self.first - DAY)

    def midnight(self, day: date) -> datetime:
        return datetime.combine(day, time.min, self.zone).astimezone(UTC)

    def bounds(self) -> tuple[datetime, datetime]:
        return self.midnight(self.first), self.midnight(self.last + DAY)

    def stretches(self, most: int) -> Iterator["Span"]:
        for number in range(0, self.days, most):
            first = self.first + number * DAY
            yield Span(self.patient_id, self.zone, first, min(first + (most - 1) * DAY, self.last))


@dataclass(slots=True)
class Daily:
    """A metric's value by day; `sources` are the devices that gave them."""

    values: dict[date, float] = field(default_factory=dict)
    sources: set[int] = field(default_factory=set)


def read(span: Span, metric: Metric, into: Daily) -> Iterator[None]:
    """Fill `into`, and yield between the statements: a year of a minute's values takes a while."""
    often = metric.cumulative or isinstance(metric.bucket, int)
    for some in span.stretches(STRETCH if often else LONG_STRETCH):
        lines = _lines(some, metric)
        into.sources.update(source for line in lines for source in line.sources)
        into.values.update(_by_day(some, metric, lines))
        yield


def read_stages(span: Span, into: dict[Metric, Daily]) -> Iterator[None]:
    """Nights of a device that gives stages and no totals: of the days that `into` has no sleep of."""
    known = set(into[BY_NAME["sleep_duration"]].values)
    for some in span.stretches(STRETCH):
        for day, stages in _nights(some):
            if day in known:
                continue
            for metric, counted in OF_STAGES.items():
                total = sum(end - start for start, end, stage in stages if int(stage) in counted)
                if total or metric.name == "sleep_duration":
                    into[metric].values[day] = into[metric].values.get(day, 0.0) + total
        yield


def _lines(span: Span, metric: Metric) -> list[timeline.Line]:
    """A day more at each end: what the window cuts would be settled by what is left of it."""
    start_at, end_at = span.bounds()
    window = timeline.Window(span.patient_id, start_at - DAY, end_at + DAY, span.zone, EVERY_POINT)
    return timeline.read(window, (metric,)).series[0].lines


def _rows(lines: list[timeline.Line]) -> list[Row]:
    found = [
        (start, end, value)
        for line in lines
        for start, end, value in zip(line.start, line.end, line.value, strict=True)
        if value is not None
    ]
    return sorted(found)


def _by_day(span: Span, metric: Metric, lines: list[timeline.Line]) -> dict[date, float]:
    days: dict[date, list[Row]] = defaultdict(list)
    for row in _rows(lines):
        day = _local(row[0] if metric.cumulative else _last_moment(row), span.zone)
        if span.first <= day <= span.last:
            days[day].append(row)
    return {day: _one(metric, rows) for day, rows in days.items()}


def _one(metric: Metric, rows: list[Row]) -> float:
    if metric.adds == "sum":
        return sum(value for _, _, value in rows)
    if metric.adds == "last":
        return rows[-1][2]
    if metric.bucket == NIGHT:
        return max(rows, key=lambda row: row[1] - row[0])[2]
    return sum(value for _, _, value in rows) / len(rows)


def _nights(span: Span) -> Iterator[tuple[date, list[Row]]]:
    night: list[Row] = []
    for row in [row for row in _rows(_lines(span, STAGE)) if int(row[2]) != IN_BED]:
        if night and row[0] - night[-1][1] > PAUSE:
            yield from _within(span, night)
            night = []
        night.append(row)
    yield from _within(span, night)


def _within(span: Span, night: list[Row]) -> Iterator[tuple[date, list[Row]]]:
    day = _local(_last_moment(night[-1]), span.zone) if night else None
    if day is not None and span.first <= day <= span.last:
        yield day, night


def _last_moment(row: Row) -> float:
    """Midnight belongs to the day that it ends."""
    start, end, _ = row
    return max(start, end - 1e-6)


def _local(seconds: float, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(seconds, zone).date()
