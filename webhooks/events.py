"""What goes to Kafka: CloudEvents 1.0 in binary mode, one or a few messages a delivery, kept in its outbox.

An outbox is made in the transaction that changes what it speaks of and is sent from there, so that a repeat sends
the very same bytes. The JSON Schemas are in docs/events/.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from auren.biometrics.conflicts import Change
from auren.biometrics.metrics import BY_NAME, BY_NUMBER
from devices.vendors.normalised import Sample

Topic = Literal["auren.samples.v1", "auren.conflicts.v1", "auren.deliveries.dead.v1"]
SAMPLES: Topic = "auren.samples.v1"
CONFLICTS: Topic = "auren.conflicts.v1"
DEAD: Topic = "auren.deliveries.dead.v1"
TOPICS: tuple[Topic, ...] = (SAMPLES, CONFLICTS, DEAD)
TYPES = {SAMPLES: "auren.samples.stored.v1", CONFLICTS: "auren.conflicts.settled.v1", DEAD: "auren.delivery.dead.v1"}
ERASED = "auren.patient.erased.v1"  # among the samples, for it ends what came there before

MAX_BYTES = 900_000  # of a message's value: brokers refuse 1 MB unless told otherwise
ROOM = 2_000  # bytes kept for what surrounds the list


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One Kafka message: `value` is the JSON body; key and headers are made when it is sent. `type` is the event's
    where it is not the topic's own."""

    topic: Topic
    value: msgspec.Raw
    type: str = ""


class Outbox(msgspec.Struct, frozen=True, omit_defaults=True):
    """The messages of one delivery, in their order, and the patient they are keyed by.

    `first` is the place of the first one in the delivery's: it counts in their ids.
    """

    key: str
    messages: list[Message]
    first: int = 0


def encode(outbox: Outbox) -> bytes:
    return msgspec.json.encode(outbox)


def decode(outbox: bytes) -> Outbox:
    """Raises `msgspec.DecodeError` when `outbox` is not what `encode` made."""
    return msgspec.json.decode(outbox, type=Outbox)


class PublishedSample(msgspec.Struct, gc=False):
    """A sample in a message: docs/events/ describes each field."""

    metric: str
    start_at: datetime
    end_at: datetime
    value: float
    unit: str
    utc_offset_minutes: int | None
    record: str
    source: str


def published(sample: Sample) -> PublishedSample:
    return PublishedSample(
        sample.metric,
        sample.start_at,
        sample.end_at,
        sample.value,
        BY_NAME[sample.metric].unit,
        sample.utc_offset_minutes,
        sample.record,
        sample.source,
    )


def samples_messages(about: Mapping[str, Any], samples: Iterable[Sample], withdrawn: Sequence[str]) -> list[Message]:
    """`about` (patient, vendor, delivery, …) with its samples, as many messages as 900 kB each allow."""
    pieces = [msgspec.json.encode(published(sample)) for sample in samples]
    gone = [msgspec.json.encode(record) for record in withdrawn]
    tagged = [("samples", piece) for piece in pieces] + [("withdrawn", piece) for piece in gone]
    return [Message(SAMPLES, _body(about, part)) for part in _parts(tagged)] if tagged else []


def _parts(tagged: Sequence[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    part: list[tuple[str, bytes]] = []
    size = ROOM
    for tag, piece in tagged:
        if part and size + len(piece) + 1 > MAX_BYTES:
            yield part
            part, size = [], ROOM
        part.append((tag, piece))
        size += len(piece) + 1
    yield part


def _body(about: Mapping[str, Any], part: Sequence[tuple[str, bytes]]) -> msgspec.Raw:
    lists = {
        name: msgspec.Raw(b"[" + b",".join(piece for tag, piece in part if tag == name) + b"]")
        for name in ("samples", "withdrawn")
    }
    return msgspec.Raw(msgspec.json.encode({**about, **lists}))


def conflict_message(about: Mapping[str, Any], change: Change) -> Message:
    metric = BY_NUMBER[change.metric]
    body = {
        **about,
        "metric": metric.name,
        "unit": metric.unit,
        "start_at": change.start_at,
        "end_at": change.end_at,
        "daily": change.daily,
        "values": change.values,
        "winner": change.winner_id,
        "rule": change.rule,
        "state": change.state,
    }
    return Message(CONFLICTS, msgspec.Raw(msgspec.json.encode(body)))


def dead_message(about: Mapping[str, Any], *, event_type: str, error: str, error_class: str, attempts: int) -> Message:
    body = {**about, "event_type": event_type, "error": error, "error_class": error_class, "attempts": attempts}
    return Message(DEAD, msgspec.Raw(msgspec.json.encode(body)))


def erased_message(about: Mapping[str, Any], *, erased_at: datetime) -> Message:
    return Message(SAMPLES, msgspec.Raw(msgspec.json.encode({**about, "erased_at": erased_at})), ERASED)


def headers(
    message: Message, *, delivery_id: int, sequence: int, place: int, happened_at: datetime
) -> list[tuple[str, str | bytes | None]]:
    """CloudEvents 1.0, binary mode (https://github.com/cloudevents/spec, Kafka binding). `ce_id` is stable."""
    values = {
        "ce_specversion": "1.0",
        "ce_id": f"{delivery_id}.{sequence}.{place}",
        "ce_type": message.type or TYPES[message.topic],
        "ce_dataschema": f"urn:auren:event:{message.type or message.topic}",
        "ce_source": "/auren/bridge",
        "ce_time": happened_at.isoformat().replace("+00:00", "Z"),
        "ce_subject": str(delivery_id),
        "content-type": "application/json",
        "sequence": str(sequence),
    }
    return [(name, value.encode()) for name, value in values.items()]
