"""Health Auto Export's metrics: `{data: {metrics: [{name, units, data: [...]}], workouts: [...], ...}}`.

Shapes: https://github.com/Lybron/health-auto-export/wiki/API-Export---JSON-Format (2026-11-24). A point has no id and
mostly no end: what it adds up ends after the period of the `automation-aggregation` header, where that was said.
"""

from datetime import UTC, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from auren.biometrics.metrics import BY_NAME, Metric
from devices.vendors.documents import Fields, Span, Unusable, number_of
from devices.vendors.healthkit.batch import Batch, converted
from devices.vendors.healthkit.reading import MISSING, first, is_stated, record_of, span, text
from devices.vendors.healthkit.sources import source_of
from devices.vendors.healthkit.units import HOURS, conversion_of
from devices.vendors.healthkit.vocabulary import AUTO_EXPORT, AUTO_EXPORT_TYPES, TYPES, SampleType
from devices.vendors.normalised import Document
from devices.vendors.times import find_zone, quoted

PRESSURES = {"systolic": TYPES["BloodPressureSystolic"], "diastolic": TYPES["BloodPressureDiastolic"]}
SLEEP_TOTALS = {
    "core": BY_NAME["sleep_light"],
    "deep": BY_NAME["sleep_deep"],
    "rem": BY_NAME["sleep_rem"],
    "awake": BY_NAME["sleep_awake"],
}
ALL_SLEEP = ("totalSleep", "asleep")  # the second in older versions
IN_BED = "inBed"
NIGHT_FIELDS = frozenset((*ALL_SLEEP, IN_BED, *SLEEP_TOTALS))
# By name of the metric, each field that is read and the metric of ours it yields: for docs/metrics.md.
FIELDS: Fields = (
    *AUTO_EXPORT.items(),
    *((f"blood_pressure.{field}", kind.metric.name) for field, kind in PRESSURES.items()),
    *((f"sleep_analysis.{field}", "sleep_duration") for field in ALL_SLEEP),
    *((f"sleep_analysis.{field}", metric.name) for field, metric in SLEEP_TOTALS.items()),
    (f"sleep_analysis.{IN_BED}", "sleep_in_bed"),
    ("workouts.duration", "workout_duration"),
)
CLOCK_PERIODS = {"second": timedelta(seconds=1), "minute": timedelta(minutes=1), "hour": timedelta(hours=1)}
CALENDAR_PERIODS = {"day": (0, 1), "week": (0, 7), "month": (1, 0), "year": (12, 0)}  # months, days
ADVERBS = {
    "secondly": "second",
    "hourly": "hour",
    "daily": "day",
    "weekly": "week",
    "monthly": "month",
    "yearly": "year",
}


class Export:
    """One body's metrics on their way into a batch; `aggregation` is what the header said, `zone` the patient's."""

    def __init__(self, batch: Batch, aggregation: object, zone: str) -> None:
        self.batch = batch
        self.period = period_of(aggregation)
        self.zone = zone_or_utc(zone)

    def take_metric(self, group: Document) -> None:
        """`{name, units, data: [...]}`. Raises ValueError to refuse the whole; its points are refused one by one."""
        name, points = group.get("name"), group.get("data")
        if not isinstance(name, str) or not name:
            raise Unusable("it has no name")
        kind = AUTO_EXPORT_TYPES.get(text("name", name))
        if name == "blood_pressure":
            self.batch.each(name, points, partial(self.take_pressure, group))
        elif kind is None:
            self.batch.ignore(len(points) if isinstance(points, list) else 1)
        elif kind.form == "stage":
            self.batch.each(name, points, partial(self.take_sleep, group, kind))
        else:
            self.batch.each(name, points, partial(self.take_point, group, kind))

    def take_point(self, group: Document, kind: SampleType, point: Document) -> None:
        """`{date, qty, source}`, or `{date, Min, Avg, Max}`, of which only the average is a heart rate."""
        value = first(point, "Avg", "qty")
        if value is None:
            return self.batch.ignore()
        when = self.point_span(point, kind.metric)
        return self.batch.quantity(point, group["name"], kind, value, group.get("units"), when)

    def take_pressure(self, group: Document, point: Document) -> None:
        """`{date, systolic, diastolic}`: two samples, one of which may be unusable."""
        when = span(date_of(point), None)
        for field, kind in PRESSURES.items():
            value, unit = point.get(field, MISSING), group.get("units")
            take = partial(self.batch.quantity, point, group["name"], kind, value, unit, when)
            self.batch.attempt(f"blood_pressure {field} of {quoted(date_of(point))}", take)

    def take_sleep(self, group: Document, kind: SampleType, point: Document) -> None:
        """A stage `{startDate, endDate, value}`, or a night's totals."""
        if "value" in point or ("startDate" in point and point.keys().isdisjoint(NIGHT_FIELDS)):
            self.batch.stage(point, group["name"], kind, span(date_of(point), point.get("endDate")))
        else:
            Night(self.batch, group, point).take()

    def point_span(self, point: Document, metric: Metric) -> Span:
        start = span(date_of(point), point.get("endDate"))
        if self.period is None or metric.adds != "sum" or point.get("endDate") is not None:
            return start
        return start._replace(end_at=period_end(start, self.period, self.zone))


class Night:
    """One aggregated sleep: `{sleepStart, sleepEnd, totalSleep, asleep, core, deep, rem, awake, inBed, ...}`.

    The totals run from `sleepStart` to `sleepEnd`; the time in bed from `inBedStart` to `inBedEnd`, else as they do.
    """

    def __init__(self, batch: Batch, group: Document, point: Document) -> None:
        self.batch = batch
        self.point = point
        self.name = group["name"]
        self.unit = group.get("units")
        source = first(point, "source", "sleepSource", "inBedSource")
        self.source = source_of(None if source is MISSING else source)

    def take(self) -> None:
        if self.point.keys().isdisjoint(NIGHT_FIELDS):
            raise Unusable("it is neither a sleep stage nor the totals of a night")
        self.total(BY_NAME["sleep_duration"], self.slept(), "sleep")
        for field, metric in SLEEP_TOTALS.items():
            self.total(metric, self.point.get(field, MISSING), "sleep")
        bounds = (self.point.get("inBedStart"), self.point.get("inBedEnd"))
        self.total(BY_NAME["sleep_in_bed"], self.point.get(IN_BED, MISSING), "sleep" if None in bounds else IN_BED)

    def slept(self) -> object:
        """All sleep: `totalSleep`, in older versions `asleep`.

        Beside stages, an `asleep` of 0 only says that no sleep was without a stage; it is not the night's sum.
        """
        slept = first(self.point, *ALL_SLEEP)
        total, staged = self.point.get("totalSleep"), any(self.point.get(stage) for stage in ("core", "deep", "rem"))
        return MISSING if total is None and staged and slept in (0, 0.0) else slept

    def total(self, metric: Metric, value: object, bounds: str) -> None:
        if value is None:
            self.batch.ignore()
        elif value is not MISSING:
            self.batch.attempt(f"{self.name} {metric.name}", partial(self.add_total, metric, value, bounds))

    def add_total(self, metric: Metric, value: object, bounds: str) -> None:
        start, end = self.point.get(f"{bounds}Start"), self.point.get(f"{bounds}End")
        if start is None or end is None:
            raise Unusable(f"the night has no {bounds}Start or no {bounds}End")
        when = span(start, end)
        conversion = conversion_of(metric, self.unit) if is_stated(self.unit) else HOURS
        seconds = converted(number_of(value), conversion)
        record = record_of(self.point, self.name, self.source.name, when)
        self.batch.add(metric, seconds, when, record, self.source)


def date_of(point: Document) -> object:
    date = first(point, "startDate", "date")
    if date is None or date is MISSING:
        raise Unusable("it has no date")
    return date


def zone_or_utc(zone: str) -> ZoneInfo:
    try:
        return find_zone(zone)
    except ValueError:
        return ZoneInfo("UTC")


def period_of(aggregation: object) -> str | None:
    """The period of an `automation-aggregation` header (`Minutes`, `hour`, `Daily`), or None where it says none."""
    if not isinstance(aggregation, str):
        return None
    word = aggregation.strip().casefold()
    period = ADVERBS.get(word, word.removesuffix("s"))
    return period if period in CLOCK_PERIODS or period in CALENDAR_PERIODS else None


def period_end(start: Span, period: str, zone: ZoneInfo) -> datetime:
    """When a period ends that began at `start`.

    Days and longer are the calendar's: in the patient's zone, where the phone wrote that zone's offset, so that a day
    of a clock change has its 23 or 25 hours; elsewhere by the offset as written.
    """
    clock = CLOCK_PERIODS.get(period)
    if clock is not None:
        return start.start_at + clock
    offset = timedelta(minutes=start.offset_minutes or 0)
    in_zone = start.start_at.astimezone(zone)
    if start.offset_minutes is None or in_zone.utcoffset() == offset:
        return following(in_zone, period).astimezone(UTC)
    return following(start.start_at + offset, period) - offset


def following(local: datetime, period: str) -> datetime:
    """The same wall-clock time a calendar period later; the 1st after a month without that day."""
    months, days = CALENDAR_PERIODS[period]
    if not months:
        return local + timedelta(days=days)
    year, month = divmod(local.year * 12 + local.month - 1 + months, 12)
    first = local.replace(year=year, month=month + 1, day=1)
    later = first + timedelta(days=local.day - 1)
    return later if later.month == first.month else (first + timedelta(days=31)).replace(day=1)
