"""What consumers are promised in docs/events/, held against messages read from Kafka."""

import json
import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.contrib.auth.models import User
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from auren.biometrics.metrics import METRICS
from auren.embedded.server import BASE_DIR
from auren.sandbox.server import RunningSandbox
from tests.webhooks.living import (
    NOON,
    again,
    announce,
    connect,
    heart_rate,
    patient,
    push,
    running,
    samples,
    send_out,
    until,
    work,
)
from tests.webhooks.reading import Read, read
from webhooks.actions import retry
from webhooks.erasure import erase
from webhooks.events import CONFLICTS, DEAD, ERASED, MAX_BYTES, SAMPLES, TOPICS, TYPES
from webhooks.models import Delivery

FOLDER = BASE_DIR / "docs" / "events"
SLEEP = "/v2/usercollection/sleep"


SCHEMAS = (*TOPICS, ERASED)
FORMATS = Draft202012Validator.FORMAT_CHECKER


def schema_of(name: str) -> Draft202012Validator:
    """As consumers have it: what it does not name may come all the same."""
    return Draft202012Validator(json.loads((FOLDER / f"{name}.json").read_text()), format_checker=FORMATS)


def closed(part: Any) -> Any:
    """A schema as we keep it: nothing else may come that has no line in it."""
    if isinstance(part, dict):
        shut = {"additionalProperties": False} if "properties" in part else {}
        return {name: closed(inner) for name, inner in part.items()} | shut
    return [closed(inner) for inner in part] if isinstance(part, list) else part


@pytest.fixture
def who(database: str) -> str:
    """A patient whose name nobody has used before: topics outlive the test."""
    name = f"events-{uuid4().hex[:12]}"
    patient(name)
    return name


def keeps_the_contract(message: Read) -> None:
    name = message.headers["ce_dataschema"].removeprefix("urn:auren:event:")
    schema = schema_of(name).schema
    assert schema["$id"] == message.headers["ce_dataschema"]
    Draft202012Validator(closed(schema), format_checker=FORMATS).validate(message.body)
    delivery = Delivery.objects.get(pk=message.body["delivery"])
    happened_at = datetime.fromisoformat(message.headers["ce_time"])
    assert message.headers == {
        "ce_specversion": "1.0",
        "ce_id": message.id,
        "ce_type": ERASED if name == ERASED else TYPES[message.topic],  # type: ignore[index]
        "ce_dataschema": f"urn:auren:event:{ERASED if name == ERASED else message.topic}",
        "ce_source": "/auren/bridge",
        "ce_subject": str(delivery.pk),
        "ce_time": f"{happened_at:%Y-%m-%dT%H:%M:%S.%f}Z",
        "sequence": str(delivery.sequence or 0),
        "content-type": "application/json",
    }
    assert happened_at == (delivery.stored_at or delivery.received_at)
    assert re.fullmatch(rf"{delivery.pk}\.{delivery.sequence or 0}\.\d+", message.id)
    assert message.key == message.body["patient"] or (message.body["patient"], message.topic) == (None, DEAD)
    assert len(message.value) < MAX_BYTES


def test_samples_are_published_as_their_schema_says(who: str, kafka: str) -> None:
    delivery = push(heart_rate(61), heart_rate(62, NOON + timedelta(minutes=5), uuid="r-2"), user=who)
    work()
    send_out()
    [message] = read(kafka, who)
    keeps_the_contract(message)
    assert message.topic == SAMPLES
    assert message.body["delivery"] == delivery.pk
    assert [(each["value"], each["unit"], each["source"]) for each in message.body["samples"]] == [
        (61, "/min", "Apple Watch"),
        (62, "/min", "Apple Watch"),
    ]
    assert message.body["samples"][1]["record"] == "r-2"
    assert message.body["withdrawn"] == []


def test_a_whole_night_from_a_vendor_is_published_as_its_schema_says(
    vendors: RunningSandbox, who: str, kafka: str
) -> None:
    for vendor, event_type in (("oura", "sleep.update"), ("whoop", "sleep.updated")):
        connect(vendors, vendor, who)  # type: ignore[arg-type]
        night = vendors.documents(vendor, who, "sleep")[-1]["id"]  # type: ignore[arg-type]
        announce(vendor, event_type, night, user=who)
    work()
    send_out()
    messages = [message for message in read(kafka, who) if message.topic == SAMPLES]
    for message in messages:
        keeps_the_contract(message)
    assert {message.body["vendor"] for message in messages} == {"oura", "whoop"}
    published = sum(len(message.body["samples"]) for message in messages)
    assert published == len(samples(who)) > 20


def test_a_withdrawal_is_an_event(who: str, kafka: str) -> None:
    push(heart_rate(61, uuid="mistaken"), user=who)
    work()
    push(user=who, deleted=["mistaken"])
    work()
    send_out()
    came, went = read(kafka, who)
    keeps_the_contract(went)
    assert [each["record"] for each in came.body["samples"]] == ["mistaken"]
    assert (went.body["samples"], went.body["withdrawn"]) == ([], ["mistaken"])
    assert (came.sequence, went.sequence) == (1, 2)


def test_a_conflict_is_an_event_and_so_is_its_end(who: str, kafka: str) -> None:
    push(heart_rate(61, source="A watch"), user=who)
    push(heart_rate(99, source="Another watch", uuid="mistaken"), user=who)
    work()
    push(user=who, deleted=["mistaken"])
    work()
    send_out()
    conflicts = [message for message in read(kafka, who) if message.topic == CONFLICTS]
    for message in conflicts:
        keeps_the_contract(message)
    came, went = (message.body for message in conflicts)
    assert (came["metric"], came["unit"], sorted(came["values"].values())) == ("heart_rate", "/min", [61, 99])
    assert str(came["winner"]) in came["values"]
    assert (went["state"], went["winner"], went["start_at"]) == ("gone", None, came["start_at"])


def test_a_dead_delivery_is_an_event(vendors: RunningSandbox, who: str, kafka: str) -> None:
    connect(vendors, "oura", who)
    vendors.script_fault("oura", SLEEP, status=403)
    delivery = announce("oura", "sleep.update", "night", user=who)
    work()
    send_out()
    [message] = read(kafka, who)
    keeps_the_contract(message)
    assert message.topic == DEAD
    assert message.body["event_type"] == "sleep.update"
    assert (message.body["error_class"], message.body["attempts"]) == ("http_403", 1)
    assert message.body["error"] == again(delivery).error
    assert again(delivery).state == "dead"


def test_a_conflict_whose_values_change_is_said_again(who: str, kafka: str) -> None:
    push(heart_rate(61, source="A watch", uuid="one"), user=who)
    for value in (99, 120):
        push(heart_rate(value, source="Another watch", uuid="other"), user=who)
        work()
    send_out()
    conflicts = [message for message in read(kafka, who) if message.topic == CONFLICTS]
    for message in conflicts:
        keeps_the_contract(message)
    assert [sorted(message.body["values"].values()) for message in conflicts] == [[61, 99], [61, 120]]
    assert len({message.body["start_at"] for message in conflicts}) == 1


def test_that_a_patient_was_erased_is_an_event(who: str, kafka: str) -> None:
    push(heart_rate(61), user=who)
    work()
    send_out()
    erase(patient(who), by="ada", reason="asked for it")
    send_out()
    last = read(kafka, who)[-1]
    keeps_the_contract(last)
    assert (last.topic, last.headers["ce_type"]) == (SAMPLES, ERASED)
    assert last.body["erased_at"] == last.body["received_at"]


def test_what_died_before_anybody_knew_whose_it_was_is_told_under_the_vendors_user(who: str, kafka: str) -> None:
    delivery = announce("whoop", "recovery.updated", user=who, state="stored", outbox=b"half an outb", shard=0)
    send_out()
    [message] = read(kafka, who)
    keeps_the_contract(message)
    assert (message.body["patient"], message.sequence) == (None, 0)
    assert message.body["error_class"] == "outbox_unreadable"
    assert again(delivery).state == "dead"


def test_a_large_delivery_is_split_under_900_kb_with_an_id_for_each_part(who: str, kafka: str) -> None:
    many = [heart_rate(40 + n % 100, NOON - timedelta(seconds=n), uuid=f"{n:06d}-{'r' * 200}") for n in range(6_000)]
    delivery = push(*many, user=who)
    work()
    send_out()
    parts = read(kafka, who)
    assert len(parts) == 3
    for part in parts:
        keeps_the_contract(part)
    assert [part.id for part in parts] == [f"{delivery.pk}.1.{place}" for place in range(3)]
    assert min(len(part.value) for part in parts[:-1]) > 800_000
    records = [each["record"] for part in parts for each in part.body["samples"]]
    assert len(records) == len(set(records)) == 6_000


def test_a_repeat_is_the_very_same_message(who: str, kafka: str) -> None:
    delivery = push(heart_rate(61), user=who)
    work()
    waiting = again(delivery)
    send_out()
    Delivery.objects.filter(pk=delivery.pk).update(state="stored", published_at=None, outbox=waiting.outbox)
    send_out()
    first, second = read(kafka, who)
    assert first == second


@pytest.fixture
def row_lock(database: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Somebody who holds every delivery's row, until they let go."""
    with psycopg.connect(database) as holder:
        yield holder


def test_a_publisher_killed_before_it_took_note_of_a_report_is_followed_by_a_repeat(
    who: str, kafka: str, row_lock: psycopg.Connection[tuple[object, ...]]
) -> None:
    delivery = push(heart_rate(61), user=who)
    work()
    row_lock.execute("SELECT FROM webhooks_delivery FOR UPDATE")
    with running("publish_deliveries", PUBLISHER_LEASE="1") as publisher:
        until(lambda: read(kafka, who))
        publisher.send_signal(signal.SIGKILL)
        publisher.wait()
    row_lock.rollback()
    assert again(delivery).state == "stored"
    send_out()
    first, second = read(kafka, who)
    assert first == second
    assert again(delivery).state == "published"


def test_a_retry_that_works_out_is_a_later_event_of_the_same_delivery(
    vendors: RunningSandbox, who: str, kafka: str
) -> None:
    connect(vendors, "oura", who)
    night = vendors.documents("oura", who, "sleep")[-1]["id"]
    vendors.script_fault("oura", SLEEP, status=403)
    delivery = announce("oura", "sleep.update", night, user=who)
    work()
    send_out()
    retry(Delivery.objects.all(), by=User(username="sam"))
    work()
    send_out()
    dead, stored = read(kafka, who), [message for message in read(kafka, who) if message.topic == SAMPLES]
    assert [message.topic for message in dead].count(DEAD) == 1
    assert [message.id for message in stored] == [f"{delivery.pk}.2.0"]
    assert [message.sequence for message in stored] == [2]


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_type_of_event_has_a_schema_whose_examples_match_it(name: str) -> None:
    schema = schema_of(name).schema
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:auren:event:{name}"
    assert schema["title"]
    assert schema["examples"]
    for example in schema["examples"]:
        Draft202012Validator(closed(schema), format_checker=FORMATS).validate(example)


def objects(schema: object) -> Iterator[dict[str, object]]:
    """Every part of a schema that speaks of an object with named members."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for part in schema.values():
            yield from objects(part)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_is_explained_and_required(name: str) -> None:
    for part in objects(schema_of(name).schema):
        fields = part["properties"]
        assert isinstance(fields, dict)
        assert part["required"] == list(fields)
        assert [name for name, field in fields.items() if "description" not in field] == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_consumer_that_validates_is_not_broken_by_a_field_of_a_later_release(name: str) -> None:
    [example, *_] = schema_of(name).schema["examples"]
    schema_of(name).validate(example | {"of_a_later_release": {"any": ["thing"]}})
    samples = [sample | {"of_a_later_release": 1} for sample in example.get("samples", [])]
    schema_of(name).validate(example | ({"samples": samples} if samples else {}))


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_refuses_what_lacks_a_field_or_says_a_time_without_its_zone(name: str) -> None:
    schema = schema_of(name)
    [example, *_] = schema.schema["examples"]
    for field in example:
        assert not schema.is_valid({key: value for key, value in example.items() if key != field})
    assert not schema.is_valid(example | {"received_at": "2026-11-24T06:58:03"})


def test_there_are_no_other_schemas_and_the_page_names_them_all() -> None:
    names = {Path(file).name for file in FOLDER.glob("*.json")}
    assert names == {f"{name}.json" for name in (*TOPICS, ERASED)}
    page = (FOLDER / "README.md").read_text()
    assert {name for name in names if f"({name})" not in page} == set()
    assert {kind for kind in TYPES.values() if f"`{kind}`" not in page} == set()


def test_every_metric_of_the_catalogue_is_one_that_the_schemas_take() -> None:
    validator = Draft202012Validator(schema_of(CONFLICTS).schema["properties"]["metric"])
    assert [metric.name for metric in METRICS if not validator.is_valid(metric.name)] == []


def test_times_are_written_in_utc(who: str, kafka: str) -> None:
    push(heart_rate(61, datetime(2026, 11, 13, 12, tzinfo=UTC)), user=who)
    work()
    send_out()
    [message] = read(kafka, who)
    assert message.body["samples"][0]["start_at"] == "2026-11-13T12:00:00Z"
    assert message.body["samples"][0]["utc_offset_minutes"] == 0
