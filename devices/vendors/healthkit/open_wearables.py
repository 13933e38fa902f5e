"""The Open Wearables SDK's envelope: `{provider, sdkVersion, syncTimestamp, data: {records, sleep, workouts}}`.

Shapes: the-momentum/open-wearables `schemas/providers/mobile_sdk/sync_request.py` and the iOS SDK's `Types.swift`
(2026-11-24). `records` are plain samples.
"""

from devices.vendors.documents import Unusable
from devices.vendors.healthkit.batch import Batch, plain_span
from devices.vendors.healthkit.reading import MISSING, first, span
from devices.vendors.healthkit.vocabulary import SLEEP, TYPES
from devices.vendors.normalised import Document


def take_sleep(batch: Batch, item: Document) -> None:
    """A stage: `{id, stage, startDate, endDate, zoneOffset, source}`."""
    batch.stage(item, SLEEP, TYPES[SLEEP], plain_span(item))


def take_workout(batch: Batch, item: Document) -> None:
    """A workout of Open Wearables, or of Health Auto Export: both envelopes name their list `workouts`.

    The first has `{id, type, startDate, endDate, zoneOffset, values: [{type: "duration", unit, value}, ...]}`, the
    second `{id, name, start, end, duration}` in seconds or as `{qty, units}`, or, before its version 2, no duration.
    """
    start, end = first(item, "startDate", "start"), first(item, "endDate", "end")
    if start is None or start is MISSING:
        raise Unusable("it has no start")
    when = span(start, None if end is MISSING else end, item.get("zoneOffset"))
    duration, unit = reported_duration(item)
    batch.workout(item, first(item, "type", "name"), duration, unit, when)


def reported_duration(item: Document) -> tuple[object, object]:
    values = item.get("values")
    for entry in values if isinstance(values, list) else ():
        if isinstance(entry, dict) and entry.get("type") == "duration":
            return entry.get("value"), entry.get("unit")
    duration = item.get("duration")
    if isinstance(duration, dict) and "qty" in duration:
        return duration["qty"], duration.get("units")
    return duration, item.get("durationUnit")
