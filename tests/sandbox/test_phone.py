import json
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

from auren.sandbox import phone
from auren.sandbox.physiology import Person, person
from devices.vendors.healthkit.normalise import normalise
from devices.vendors.normalised import Normalised
from tests.sandbox.conftest import NOW

PEOPLE = [person(f"user_{number}") for number in range(1, 21)]
START = NOW - timedelta(days=3)


def document(who: Person, start: datetime = START, end: datetime = NOW) -> dict[str, Any]:
    """A batch's body with what the worker adds to it."""
    made = phone.batch(who, start, end, "key")
    assert made is not None
    body: dict[str, Any] = json.loads(made.body)
    aggregation = made.headers.get("automation-aggregation")
    return body | ({"automation_aggregation": aggregation} if aggregation else {})


def normalised(who: Person) -> Normalised:
    return normalise("batch", document(who), str(who.zone))


def one_of(envelope: str) -> Person:
    return next(who for who in PEOPLE if phone.envelope_of(who) == envelope)


def test_every_uploader_is_in_use_among_twenty_people() -> None:
    assert {phone.envelope_of(who) for who in PEOPLE} == {"plain", "open_wearables", "health_auto_export"}


@pytest.mark.parametrize("envelope", ["plain", "open_wearables", "health_auto_export"])
def test_the_bridge_refuses_and_ignores_nothing_of_a_batch(envelope: str) -> None:
    yielded = normalised(one_of(envelope))
    assert yielded.refused == []
    assert yielded.ignored == 0
    assert {sample.metric for sample in yielded.samples} == {"heart_rate", "steps", "hrv_sdnn", "spo2", "sleep_stage"}


@pytest.mark.parametrize("envelope", ["plain", "open_wearables"])
def test_watch_and_phone_count_the_same_steps_twice(envelope: str) -> None:
    steps = [sample for sample in normalised(one_of(envelope)).samples if sample.metric == "steps"]
    spans = Counter(sample.start_at for sample in steps)
    assert {sample.source for sample in steps} == {"Apple Watch", "iPhone"}
    assert max(spans.values()) == 2
    assert min(spans.values()) == 1


def test_samples_keep_their_uuids_and_differ_from_each_other() -> None:
    who = one_of("plain")
    uuids = [sample["uuid"] for sample in document(who)["samples"]]
    assert len(uuids) == len(set(uuids))
    assert uuids == [sample["uuid"] for sample in document(who)["samples"]]


@pytest.mark.parametrize("who", PEOPLE[:8], ids=lambda who: who.user_id)
def test_two_batches_hold_what_one_over_both_spans_holds(who: Person) -> None:
    middle = NOW - timedelta(hours=31, minutes=7)
    whole = phone.readings(who, START, NOW)
    parts = phone.readings(who, START, middle) + phone.readings(who, middle, NOW)
    assert Counter(parts) == Counter(whole)
    assert all(START < reading.end <= NOW for reading in whole)


def test_an_hours_steps_are_exported_once_the_hour_is_over() -> None:
    who = one_of("health_auto_export")
    assert phone.batch(who, NOW + timedelta(minutes=10), NOW + timedelta(minutes=50), "key") is None


def test_only_envelopes_that_name_no_user_carry_it_in_a_header() -> None:
    for who in PEOPLE:
        made = phone.batch(who, START, NOW, "test_api_key")
        assert made is not None
        assert made.headers["Authorization"] == "Bearer test_api_key"
        assert ("X-User-Id" in made.headers) == (phone.envelope_of(who) != "plain")
