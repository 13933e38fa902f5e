"""A posted batch into our vocabulary. Three envelopes are told apart by their shape; a body may hold several.

Plain: `{"user_id", "samples": [...]}`. Open Wearables: `{"syncTimestamp", "data": {"records", "sleep", "workouts"}}`.
Health Auto Export: `{"data": {"metrics", "workouts", ...}}`. `deleted` stands at the top of any. One bad sample is
refused by itself; what we do not know is counted as ignored (DESIGN section 9).
"""

from collections.abc import Callable
from datetime import datetime
from functools import partial

from devices.vendors.documents import Fields, Unusable
from devices.vendors.healthkit import health_auto_export, vocabulary
from devices.vendors.healthkit.batch import Batch
from devices.vendors.healthkit.health_auto_export import Export
from devices.vendors.healthkit.open_wearables import take_sleep, take_workout
from devices.vendors.healthkit.plain import take_sample
from devices.vendors.healthkit.reading import moment, text, written_record
from devices.vendors.normalised import Document, Normalised, Refusal
from devices.vendors.times import quoted

KINDS = frozenset(("batch",))
FIELDS: dict[str, Fields] = {"HealthKit": vocabulary.FIELDS, "Health Auto Export": health_auto_export.FIELDS}


def normalise(kind: str, document: Document, zone: str = "UTC") -> Normalised:
    """Samples of one body, in order. `zone` is the patient's IANA zone; only Health Auto Export's days need it.

    The worker adds `automation_aggregation`, from the header of that name. Never raises, whatever the JSON.
    """
    if kind not in KINDS:
        return Normalised(ignored=1)
    if not isinstance(document, dict):
        return Normalised(refused=[Refusal("document", f"{quoted(document)} is not an object")])
    batch = Batch(revised_at(document))
    batch.each("samples", document.get("samples"), partial(take_sample, batch))
    take_data(batch, document, zone)
    take_deleted(batch, document.get("deleted"))
    return batch.finish()


def revised_at(document: Document) -> datetime | None:
    """The envelope's `syncTimestamp`; None leaves it to the time of receipt."""
    try:
        return moment(document.get("syncTimestamp"))[0]
    except ValueError:
        return None


def take_data(batch: Batch, document: Document, zone: str) -> None:
    """The parts of `data`. Lists we know nothing of (symptoms, ecg, medications, ...) are counted, item by item."""
    data = document.get("data")
    if data is None:
        return
    if not isinstance(data, dict):
        batch.refuse("data", "must be an object")
        return
    export = Export(batch, document.get("automation_aggregation"), zone)
    takers: dict[str, Callable[[Document], None]] = {
        "records": partial(take_sample, batch),
        "sleep": partial(take_sleep, batch),
        "workouts": partial(take_workout, batch),
        "metrics": export.take_metric,
    }
    for name, part in data.items():
        if name in takers:
            batch.each(f"data.{name}", part, takers[name])
        elif isinstance(part, list):
            batch.ignore(len(part))


def take_deleted(batch: Batch, deleted: object) -> None:
    """Records to withdraw: uuids, or objects with a `uuid` or `id`."""
    if not isinstance(deleted, list):
        if deleted is not None:
            batch.refuse("deleted", "must be a list")
        return
    for position, entry in enumerate(deleted):
        try:
            batch.result.withdrawn.append(deleted_record(entry))
        except ValueError as error:
            batch.refuse(f"deleted[{position}]", str(error))


def deleted_record(entry: object) -> str:
    if isinstance(entry, dict):
        record = written_record(entry)
    elif isinstance(entry, str):
        record = text("uuid", entry)
    else:
        raise Unusable(f"{quoted(entry)} is neither a uuid nor an object with one")
    if not record:
        raise Unusable("it has no uuid")
    return record
