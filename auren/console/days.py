"""Three months at a glance, and one night in numbers: what the calendar and the night view show.

Both read the settled timeline, so that they never say anything else than its lanes do.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from auren.biometrics import timeline
from auren.biometrics.metrics import BY_NAME, Metric
from auren.biometrics.models import Conflict
from auren.biometrics.timeline import Line, Series, Timeline

CALENDAR_DAYS = 91
DAY = timedelta(days=1)
NOON = time(12)
LONGEST_NIGHT = timedelta(hours=16)
MARGIN = timedelta(minutes=30)

CALENDAR = tuple(BY_NAME[name] for name in ("sleep_duration", "steps", "resting_heart_rate"))
NIGHT = tuple(
    BY_NAME[name]
    for name in (
        "sleep_duration",
        "sleep_in_bed",
        "sleep_efficiency",
        "sleep_latency",
        "sleep_awake",
        "sleep_light",
        "sleep_deep",
        "sleep_rem",
        "resting_heart_rate",
        "hrv_rmssd",
        "respiratory_rate",
        "spo2",
        "skin_temperature",
    )
)


@dataclass(slots=True)
class Day:
    """One square of the calendar; `values` by metric name, in the catalogue's units."""

    date: date
    start_at: datetime
    end_at: datetime
    values: dict[str, float] = field(default_factory=dict)
    conflicts: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """One line of a night's table."""

    metric: Metric
    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Night:
    """The longest sleep that ends on `date`, from bed to waking, with what was measured in it."""

    date: date
    start_at: datetime
    end_at: datetime
    said: list[Said]
    conflicts: list[Conflict]

    @property
    def shown(self) -> tuple[datetime, datetime]:
        """The window that its charts show."""
        return self.start_at - MARGIN, self.end_at + MARGIN


def calendar(patient_id: int, last: date, zone: ZoneInfo) -> list[list[Day | None]]:
    """Weeks from Monday to Sunday, the first one with `last` in it and then back in time; None before the first day."""
    first = last - (CALENDAR_DAYS - 1) * DAY
    days = {day.date: day for day in _days(first, last, zone)}
    window = timeline.Window(patient_id, days[first].start_at, days[last].end_at, zone, points=timeline.MOST_POINTS)
    found = timeline.read(window, CALENDAR)
    for series in found.series:
        _fill(days, series, zone)
    for conflict in found.conflicts:
        day = days.get((conflict.end_at - timedelta(microseconds=1)).astimezone(zone).date())
        if day is not None:
            day.conflicts += 1
    padded: list[Day | None] = [*[None] * first.weekday(), *days.values()]
    return [padded[start : start + 7] for start in range(0, len(padded), 7)][::-1]


def night(patient_id: int, wanted: date, zone: ZoneInfo) -> Night | None:
    """The night that ends on the local day `wanted`; None when no device saw one."""
    begin = datetime.combine(wanted, time.min, zone).astimezone(UTC)
    span = timeline.Window(patient_id, begin - LONGEST_NIGHT, begin + DAY + timedelta(hours=1), zone)
    found = timeline.read(span, NIGHT)
    nights = [
        (end - start, start, end)
        for line in found.series[0].lines
        for start, end, value in _rows(line)
        if value and _local(end, zone) == wanted
    ]
    if not nights:
        return None
    _, start, end = max(nights)
    return Night(wanted, _at(start), _at(end), list(_said(found, start, end)), _within(found.conflicts, start, end))


def _days(first: date, last: date, zone: ZoneInfo) -> Iterator[Day]:
    day = first
    while day <= last:
        midnight, next_one = (datetime.combine(each, time.min, zone).astimezone(UTC) for each in (day, day + DAY))
        yield Day(day, midnight, next_one)
        day += DAY


def _fill(days: dict[date, Day], series: Series, zone: ZoneInfo) -> None:
    """Bars by the day they stand for, nights by the day they end on; of several naps and a night the sum slept."""
    name, bars = series.metric.name, series.shape == "bars"
    for line in series.lines:
        for start, end, value in _rows(line):
            day = days.get(_at(start).astimezone(zone).date() if bars else _local(end, zone))
            if day is None:
                continue
            before = day.values.get(name, 0.0) if series.metric.adds == "sum" else 0.0
            day.values[name] = value + before


def _said(found: Timeline, start: float, end: float) -> Iterator[Said]:
    """What each metric says over the night: the value that covers most of it, and of several that do the mean."""
    for series in found.series:
        for line in series.lines:
            values = [value for begun, ended, value in _rows(line) if ended > start and begun < end]
            if not values:
                continue
            value = max(values) if series.metric.adds == "sum" else sum(values) / len(values)
            yield Said(series.metric, value, " + ".join(_names(found, line.sources)))


def _names(found: Timeline, sources: Iterable[int]) -> Iterator[str]:
    for number in sources:
        source = found.sources.get(number)
        yield source.name if source else f"device {number}"


def _within(conflicts: Iterable[Conflict], start: float, end: float) -> list[Conflict]:
    return [one for one in conflicts if one.end_at.timestamp() > start and one.start_at.timestamp() < end]


def _rows(line: Line) -> Iterator[tuple[float, float, float]]:
    for start, end, value in zip(line.start, line.end, line.value, strict=True):
        if value is not None:
            yield start, end, value


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _local(seconds: float, zone: ZoneInfo) -> date:
    """The local day that something ends on, which at midnight is the one before."""
    return (_at(seconds) - timedelta(microseconds=1)).astimezone(zone).date()
