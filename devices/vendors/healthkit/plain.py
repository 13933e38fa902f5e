"""Samples that name their own type: `samples` of the plain envelope and `records` of Open Wearables."""

from devices.vendors.documents import Unusable
from devices.vendors.healthkit.batch import WORKOUT, Batch, plain_span
from devices.vendors.healthkit.reading import MISSING, text
from devices.vendors.healthkit.vocabulary import TYPES
from devices.vendors.normalised import Document
from devices.vendors.times import quoted


def take_sample(batch: Batch, item: Document) -> None:
    """`{type, value, unit, timestamp | startDate, endDate, uuid | id, source}`. Raises ValueError to refuse it."""
    name = item.get("type")
    kind = TYPES.get(name) if isinstance(name, str) else None
    if kind is None or not isinstance(name, str):
        return take_unknown(batch, name)
    if kind.form == "quantity":
        value = item.get("value", MISSING)
        if value is None:
            return batch.ignore()
        return batch.quantity(item, name, kind, value, item.get("unit"), plain_span(item))
    if kind.form == "stage":
        return batch.stage(item, name, kind, plain_span(item))
    return take_workout(batch, item, name)


def take_unknown(batch: Batch, name: object) -> None:
    """A type of no metric of ours is counted; one that is no type at all is refused."""
    if name is None or name == "":
        raise Unusable("it has no type")
    if not isinstance(name, str):
        raise Unusable(f"the type {quoted(name)} is not a text")
    text("type", name)
    batch.ignore()


def take_workout(batch: Batch, item: Document, name: str) -> None:
    """A workout says how long it was under `duration` (`durationUnit`), or as the `value` (`unit`) of the sample."""
    duration, unit = item.get("duration"), item.get("durationUnit")
    if duration is None:
        duration, unit = item.get("value", MISSING), item.get("unit")
        if duration is None and name == WORKOUT.name:
            return batch.ignore()  # our own name is a quantity's, and null is no value of it
        duration = None if duration is MISSING else duration
    return batch.workout(item, name, duration, unit, plain_span(item))
