"""What every vendor's `normalise` hands back: our vocabulary, free of Django and of I/O."""

from datetime import datetime
from typing import Any

import msgspec

from auren.biometrics.metrics import BY_NAME, Metric

Document = dict[str, Any]


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One value of one metric.

    `start_at` and `end_at` are aware and in UTC; a point has both the same. `value` is in the catalogue's unit.
    `utc_offset_minutes` is the offset the vendor wrote, None where it wrote none. `record` is the vendor's id of
    the document or sample. `source` names the device within the link. `revised_at` is the vendor's own time of
    this revision; None leaves it to the worker (the time it asked).
    """

    metric: str
    start_at: datetime
    end_at: datetime
    value: float
    utc_offset_minutes: int | None
    record: str
    source: str
    revised_at: datetime | None = None


class Refusal(msgspec.Struct, frozen=True):
    """A part of a document that did not become a sample: `what` names it, `why` says what was wrong with it."""

    what: str
    why: str


class Normalised(msgspec.Struct):
    """All that one document yields.

    `withdrawn` lists records that no longer exist at the vendor, `emptied` those that do and yield nothing (any more):
    an unworn day, a night that cannot be scored. `pending` means the vendor has not finished
    scoring: ask again later. `ignored` counts parts we know, or do not know, but keep nothing of. `source_kinds`
    maps a source's name to what it is: ring, band, watch, phone, scale, cuff, meter or other. `standing` marks a
    document that says how things are rather than what happened (height and weight): stored only when it changes.
    """

    samples: list[Sample] = msgspec.field(default_factory=list)
    refused: list[Refusal] = msgspec.field(default_factory=list)
    withdrawn: list[str] = msgspec.field(default_factory=list)
    emptied: list[str] = msgspec.field(default_factory=list)
    pending: bool = False
    ignored: int = 0
    standing: bool = False
    source_kinds: dict[str, str] = msgspec.field(default_factory=dict)

    def refuse(self, what: str, why: str) -> None:
        self.refused.append(Refusal(what, why))


def implausible(metric: Metric, value: float) -> str | None:
    """Why `value` cannot be a sample of `metric`, or None when it can. NaN and infinities are out of every range."""
    if metric.low <= value <= metric.high:
        return None
    return f"{value:g} {metric.unit} is outside the plausible range {metric.low:g} to {metric.high:g}"


def metric(name: str) -> Metric:
    return BY_NAME[name]
