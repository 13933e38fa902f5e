"""What one body has yielded so far, and how a single sample of any form is added to it."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from auren.biometrics.metrics import BY_NAME, Metric
from devices.vendors.documents import Span, Unusable, number_of
from devices.vendors.healthkit.reading import MISSING, first, is_stated, record_of, span, text
from devices.vendors.healthkit.sources import UNNAMED, Source, source_of
from devices.vendors.healthkit.units import SAME, Conversion, conversion_of
from devices.vendors.healthkit.vocabulary import STAGE_PREFIX, STAGE_WORDS, UNKNOWN_STAGE, SampleType
from devices.vendors.normalised import Document, Normalised, Sample, implausible
from devices.vendors.times import quoted
from devices.vendors.webhook import MAX_FIELD

MAX_LISTED = 10_000  # refusals told one by one; a body of 16 MiB could hold millions
WORKOUT = BY_NAME["workout_duration"]
FRACTION = Conversion(100)


class Batch:
    """Collects samples, refusals and counts. `revised_at` is the envelope's `syncTimestamp`."""

    def __init__(self, revised_at: datetime | None = None) -> None:
        self.result = Normalised()
        self.revised_at = revised_at
        self.unlisted = 0

    def each(self, where: str, items: object, take: Callable[[Document], None]) -> None:
        """Hand every object of a list to `take`, and write down what it refuses by raising ValueError."""
        if not isinstance(items, list):
            if items is not None:
                self.refuse(where, "must be a list")
            return
        for position, item in enumerate(items):
            try:
                if not isinstance(item, dict):
                    raise Unusable(f"{quoted(item)} is not an object")
                take(item)
            except ValueError as error:
                self.refuse(f"{where}[{position}]{label_of(item)}", str(error))

    def attempt(self, where: str, take: Callable[[], None]) -> None:
        """One of several values of an item: its refusal leaves the others standing."""
        try:
            take()
        except ValueError as error:
            self.refuse(where, str(error))

    def refuse(self, what: str, why: str) -> None:
        if len(self.result.refused) < MAX_LISTED:
            self.result.refuse(what, why)
        else:
            self.unlisted += 1

    def ignore(self, count: int = 1) -> None:
        self.result.ignored += count

    def finish(self) -> Normalised:
        if self.unlisted:
            self.result.refuse(f"{self.unlisted} more", f"refused as well; only the first {MAX_LISTED} are listed")
        return self.result

    def add(self, metric: Metric, value: float, when: Span, record: str, source: Source) -> None:
        """Keep one value, in the catalogue's unit. Raises Unusable when it is out of the plausible range."""
        if not metric.low <= value <= metric.high:
            raise Unusable(implausible(metric, value))
        result = self.result
        result.samples.append(
            Sample(metric.name, when[0], when[1], value, when[2], record, source.name, self.revised_at)
        )
        kinds = result.source_kinds
        if source.name not in kinds or kinds[source.name] == UNNAMED.kind:
            kinds[source.name] = source.kind

    def quantity(self, item: Document, name: str, kind: SampleType, value: object, unit: object, when: Span) -> None:
        """One number with its unit. Null is no value."""
        if value is None:
            return self.ignore()
        number = in_our_unit(kind, value, unit)
        source = source_of(item.get("source"))
        return self.add(kind.metric, number, when, record_of(item, name, source.name, when), source)

    def stage(self, item: Document, name: str, kind: SampleType, when: Span) -> None:
        """One sleep stage, under `value` or (Open Wearables) `stage`: a number, a word, or unknown."""
        value = first(item, "value", "stage")
        if value is None or (isinstance(value, str) and folded_stage(value) == UNKNOWN_STAGE):
            return self.ignore()
        source = source_of(item.get("source"))
        stage = stage_of(value, kind)
        return self.add(kind.metric, stage, when, record_of(item, name, source.name, when), source)

    def workout(self, item: Document, name: object, duration: object, unit: object, when: Span) -> None:
        """One workout: the reported duration (seconds unless `unit` says otherwise), else the span."""
        source = source_of(item.get("source"))
        record = record_of(item, text("name", name) if isinstance(name, str) else "", source.name, when)
        if duration is None and first(item, "endDate", "end") in (None, MISSING):
            raise Unusable("it has neither a duration nor an end")
        self.add(WORKOUT, when.seconds if duration is None else seconds_of(duration, unit), when, record, source)


def seconds_of(duration: object, unit: object) -> float:
    return converted(number_of(duration), conversion_of(WORKOUT, unit) if is_stated(unit) else SAME)


def in_our_unit(kind: SampleType, value: object, unit: object) -> float:
    """A value in the catalogue's unit; up to 1.0 of a percent metric is the fraction HealthKit keeps on the phone.

    Raises Unusable when it is not a number, or the unit not one of the metric's.
    """
    number = value if type(value) is float else number_of(present(value))
    metric = kind.metric
    conversion = kind.units.get(unit) if isinstance(unit, str) else None
    if conversion is None:
        conversion = conversion_of(metric, unit) if is_stated(unit) else kind.unstated
    if metric.unit == "%" and number <= 1.0:
        return converted(number, FRACTION)
    return converted(number, conversion)


def converted(number: float, conversion: Conversion) -> float:
    return number if conversion is SAME else conversion.of(number)


def present(value: object) -> object:
    if value is MISSING:
        raise Unusable("it has no value")
    return value


def stage_of(value: object, kind: SampleType) -> float:
    """The catalogue's number of a stage. Raises Unusable for anything section 9 of the design does not name."""
    if isinstance(value, str):
        stage = STAGE_WORDS.get(folded_stage(value))
    else:
        stage = kind.stages.get(int(number)) if (number := number_of(present(value))).is_integer() else None
    if stage is None:
        raise Unusable(f"{quoted(value)} is not a sleep stage")
    return float(stage)


def folded_stage(word: str) -> str:
    """A stage's word without case, spaces, underscores and the enum's prefix; empty for what is too long to be one."""
    if len(word) > MAX_FIELD:
        return ""
    return word.casefold().replace(" ", "").replace("_", "").removeprefix(STAGE_PREFIX)


def label_of(item: Any) -> str:
    """What a person may look for in the body: the type and the id, as far as they are texts."""
    if not isinstance(item, dict):
        return ""
    said = (item.get("type"), item.get("uuid") or item.get("id"))
    return "".join(f" {quoted(value)}" for value in said if value and isinstance(value, str))


def plain_span(item: Document) -> Span:
    """The time of a sample with `startDate` and `endDate`, or `timestamp`. Raises ValueError where it is unusable."""
    start = item.get("startDate")
    if start is None:
        start = item.get("timestamp")
        if start is None:
            raise Unusable("it has neither a startDate nor a timestamp")
    return span(start, item.get("endDate"), item.get("zoneOffset"))
