import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from devices.vendors.webhook import Announcement, Refused
from devices.vendors.whoop.webhook import WEBHOOK, kind_and_verb, withdrawn_by
from tests.vendors.signing import BODY, NOW, SECRET, SigningContract

EVENT = {
    "user_id": 10129,
    "id": "550e8400-e29b-41d4-a716-446655440000",
    "type": "recovery.updated",
    "trace_id": "d3709ee7-104e-4f70-a928-2932964b017b",
}


class TestSignature(SigningContract):
    webhook = WEBHOOK

    def sign(self, body: bytes, *, secret: str = SECRET, at: float = NOW, timestamp: str = "") -> dict[str, str]:
        timestamp = timestamp or str(int(at * 1000))
        signed = hmac.new(secret.encode(), timestamp.encode() + body, hashlib.sha256).digest()
        return {"x-whoop-signature": base64.b64encode(signed).decode(), "x-whoop-signature-timestamp": timestamp}

    def test_the_case_of_the_base64_matters(self) -> None:
        headers = self.sign(BODY)
        assert self.refusal(headers | {"x-whoop-signature": headers["x-whoop-signature"].swapcase()})

    def test_a_dot_between_timestamp_and_body_is_refused(self) -> None:
        assert self.refusal(self.sign(b"." + BODY))


def read(**changes: Any) -> Announcement:
    event = {name: value for name, value in (EVENT | changes).items() if value is not ...}
    return WEBHOOK.read({}, json.dumps(event).encode())


def refusal(body: bytes) -> str:
    with pytest.raises(Refused) as refused:
        WEBHOOK.read({}, body)
    assert (refused.value.status, refused.value.slug) == (400, "bad-body")
    return refused.value.detail


def test_an_event_says_what_changed_for_whom() -> None:
    said = read()
    assert (said.event_type, said.vendor_user_id, said.object_id) == ("recovery.updated", "10129", EVENT["id"])
    assert (said.interest, said.event_time) == ("known", None)


@pytest.mark.parametrize("kind", ["sleep", "recovery", "workout"])
@pytest.mark.parametrize("verb", ["updated", "deleted"])
def test_all_that_whoop_announces_is_known(kind: str, verb: str) -> None:
    assert read(type=f"{kind}.{verb}").interest == "known"


@pytest.mark.parametrize("event_type", ["cycle.updated", "sleep.created", "sleep", "body_measurement.updated"])
def test_another_type_is_unknown_and_still_taken(event_type: str) -> None:
    assert read(type=event_type).interest == "unknown"


def test_the_body_of_the_replaced_systems_load_script_is_read() -> None:
    said = WEBHOOK.read({}, b'{"type": "recovery.updated", "user_id": "user_7", "trace_id": "t-1"}')
    assert (said.vendor_user_id, said.object_id) == ("user_7", "")


def test_an_id_of_api_v1_is_taken() -> None:
    assert read(id=93845).object_id == "93845"


def test_a_repeat_of_an_event_has_the_same_dedup_key_however_it_is_written() -> None:
    assert read().dedup_key == read(sent_again=True).dedup_key


@pytest.mark.parametrize(
    "changes", [{"user_id": 10130}, {"type": "sleep.updated"}, {"id": "another"}, {"trace_id": "another"}]
)
def test_another_event_has_another_dedup_key(changes: dict[str, Any]) -> None:
    assert read(**changes).dedup_key != read().dedup_key


def test_without_a_trace_the_body_tells_events_apart() -> None:
    assert read(trace_id=...).dedup_key == read(trace_id=...).dedup_key
    assert read(trace_id=..., id="a").dedup_key != read(trace_id=..., id="b").dedup_key
    assert read(trace_id=...).dedup_key != read(trace_id=None).dedup_key


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "is not JSON"),
        (b"null", "not an object"),
        (b'{"type": Infinity}', "is not JSON"),
        (b'{"a":' * 200_000, "nested too deep"),
        (b'{"user_id": 1}', "no type"),
        (b'{"type": 5.5, "user_id": 1}', "must be a text"),
        (b'{"type": "sleep.updated"}', "no user_id"),
        (b'{"type": "sleep.updated", "user_id": 1.5}', "must be a text"),
        (b'{"type": "sleep.updated", "user_id": false}', "must be a text"),
        (b'{"type": "sleep.updated", "user_id": 1, "id": {}}', "must be a text"),
        (b'{"type": "sleep.updated", "user_id": 1, "id": "\\u0000"}', "NUL"),
        (b'{"type": "sleep.updated", "user_id": 1, "trace_id": "' + b"t" * 256 + b'"}', "longer than 255"),
        (b'{"type": "' + b"t" * 256 + b'", "user_id": 1}', "longer than 255"),
    ],
)
def test_a_body_that_is_not_whoops_is_refused_with_the_reason(body: bytes, why: str) -> None:
    assert why in refusal(body)


def test_an_event_type_has_a_kind_and_a_verb() -> None:
    assert kind_and_verb("recovery.deleted") == ("recovery", "deleted")


@pytest.mark.parametrize(
    ("event_type", "object_id", "gone"),
    [
        ("sleep.deleted", "a", ["a", "recovery:a"]),
        ("recovery.deleted", "a", ["recovery:a"]),
        ("workout.deleted", "a", ["a"]),
        ("sleep.deleted", "", []),
        ("recovery.deleted", "", []),
        ("sleep.updated", "a", []),
    ],
)
def test_a_deletion_withdraws_a_record_and_that_of_a_sleep_its_recovery(
    event_type: str, object_id: str, gone: list[str]
) -> None:
    assert withdrawn_by(event_type, object_id) == gone
