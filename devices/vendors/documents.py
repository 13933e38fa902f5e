"""Reading one vendor document into samples: whatever JSON it turns out to be, nothing here raises past a refusal."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from auren.biometrics.metrics import DAY_SECONDS
from devices.vendors import times
from devices.vendors.normalised import Document, Normalised, Sample, implausible, metric
from devices.vendors.times import quoted
from devices.vendors.webhook import MAX_FIELD

Fields = tuple[tuple[str, str], ...]  # a vendor's fields, each with the metric that it yields


class Unusable(ValueError):
    """A part of a document that cannot become a sample; the message says why, for people."""


class Span(NamedTuple):
    """When a value holds: two instants in UTC, the same one for a point, and the offset of the first in minutes."""

    start_at: datetime
    end_at: datetime
    offset_minutes: int | None

    @property
    def seconds(self) -> float:
        return (self.end_at - self.start_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Reading:
    """One document on its way into `result`: whose record it is, which device said so, at which revision."""

    result: Normalised
    record: str
    source: str
    revised_at: datetime | None = None

    def add(self, name: str, field: str, value: object, span: Span, *, per: float = 1) -> bool:
        """Keep `value`, in units of which `per` make one of the catalogue's, as a sample of metric `name`.

        Says whether it did. Null is no value; anything that is not a plausible number is refused under `field`.
        """
        if value is None:
            return False
        try:
            number = number_of(value) / per
        except ValueError as error:
            return self.refuse(field, str(error))
        why = implausible(metric(name), number)
        if why is not None:
            return self.refuse(field, why)
        self.result.samples.append(
            Sample(name, *span[:2], number, span.offset_minutes, self.record, self.source, self.revised_at)
        )
        return True

    def refuse(self, field: str, why: str) -> bool:
        self.result.refuse(f"{self.record} {field}", why)
        return False

    def part(self, document: Document, field: str) -> Document:
        """The object under `field`; an empty one when it is null, or when it is no object, which is refused."""
        value = document.get(field)
        if value is None or isinstance(value, dict):
            return value or {}
        self.refuse(field, f"{quoted(value)} is not an object")
        return {}

    def span(self, document: Document, start: str, end: str) -> Span | None:
        """The time between two timestamps of a document, or None with the reason refused."""
        try:
            return span_of(document, start, end)
        except ValueError as error:
            self.refuse(f"{start}..{end}", str(error))
            return None


def within(part: str, fields: Fields) -> Fields:
    """The same fields, named from the document's top. One that is a sum of several has their names, with plus signs."""
    return tuple((" + ".join(f"{part}.{name}" for name in field.split(" + ")), metric) for field, metric in fields)


def read_each(document: object, rows: str, result: Normalised, read: Callable[[Document], str]) -> None:
    """Hand every document to `read`, which adds what it yields and returns its record, "" where it has none.

    What it refuses by raising ValueError is written down; a record that yields nothing at all is `emptied`.
    """
    for name, row in documents_in(document, rows, result):
        before = [len(found) for found in (result.samples, result.refused, result.withdrawn)]
        unfinished, result.pending = result.pending, False
        try:
            record = read(row)
        except ValueError as error:
            result.refuse(name, str(error))
        else:
            after = [len(found) for found in (result.samples, result.refused, result.withdrawn)]
            if record and before == after and not result.pending:
                result.emptied.append(record)
        result.pending |= unfinished


def documents_in(document: object, rows: str, result: Normalised) -> Iterator[tuple[str, Document]]:
    """Each object of a page's list `rows`, or the one document itself, with a name for what is wrong with it."""
    if not isinstance(document, dict):
        result.refuse("document", f"{quoted(document)} is not an object")
    elif rows not in document:
        yield "document", document
    elif not isinstance(document[rows], list):
        result.refuse(rows, f"{quoted(document[rows])} is not a list")
    else:
        yield from objects_in(document[rows], rows, result)


def objects_in(items: list[object], rows: str, result: Normalised) -> Iterator[tuple[str, Document]]:
    for position, item in enumerate(items):
        if isinstance(item, dict):
            yield f"{rows}[{position}]", item
        else:
            result.refuse(f"{rows}[{position}]", f"{quoted(item)} is not an object")


def number_of(value: object) -> float:
    """A JSON number as a float. Raises `Unusable` for all else: a boolean or a numeric string is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unusable(f"{quoted(value)} is not a number")
    try:
        return float(value)
    except OverflowError:
        raise Unusable(f"{quoted(value)} is not a plausible number") from None


def identifier_of(document: Document, field: str) -> str:
    """The vendor's id under `field`, a text or a whole number, as text. Raises `Unusable` where it cannot be one."""
    value = document.get(field)
    if value is None or value == "":
        raise Unusable(f"there is no {field}")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Unusable(f"{field} must be a text or a whole number, not {quoted(value)}")
    text = str(value)
    if len(text) > MAX_FIELD or "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise Unusable(f"{field} is longer than {MAX_FIELD} characters, or has a NUL or a lone surrogate in it")
    return text


def span_of(document: Document, start: str, end: str) -> Span:
    """The time between two timestamps. Raises ValueError when one is missing, unusable, or they are in reverse."""
    began, ended = moment_of(document, start), moment_of(document, end)
    if ended.at < began.at:
        raise Unusable(f"{end} is before {start}")
    return Span(began.at, ended.at, began.offset_minutes)


def point_of(document: Document, field: str) -> Span:
    """The instant under `field` as a span without length. Raises ValueError when it is missing or unusable."""
    moment = moment_of(document, field)
    return Span(moment.at, moment.at, moment.offset_minutes)


def moment_of(document: Document, field: str) -> times.Moment:
    if document.get(field) is None:
        raise Unusable(f"there is no {field}")
    return times.parse(document[field])


def check_grid(count: int, seconds: float) -> None:
    """Raises `Unusable` unless `count` steps of `seconds` each, as of a hypnogram, fit into one local day."""
    if not (math.isfinite(seconds) and seconds > 0):
        raise Unusable(f"an interval of {seconds:g} s is no step in time")
    if count * seconds > DAY_SECONDS:
        raise Unusable(f"{count} steps of {seconds:g} s are longer than a day")
