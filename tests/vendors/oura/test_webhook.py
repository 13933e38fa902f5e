import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from devices.vendors.oura.webhook import MEASURED, UNMEASURED, WEBHOOK, kind_and_verb, withdrawn_by
from devices.vendors.webhook import Announcement, Refused
from tests.vendors.signing import BODY, NOW, SECRET, SigningContract

EVENT = {
    "event_type": "update",
    "data_type": "sleep",
    "object_id": "0a1b2c3d-1111-4222-8333-444455556666",
    "event_time": "2024-05-05T07:30:00.123456+02:00",
    "user_id": "user_7",
}


class TestSignature(SigningContract):
    webhook = WEBHOOK

    def sign(self, body: bytes, *, secret: str = SECRET, at: float = NOW, timestamp: str = "") -> dict[str, str]:
        timestamp = timestamp or str(int(at))
        signed = hmac.new(secret.encode(), timestamp.encode() + body, hashlib.sha256)
        return {"x-oura-signature": signed.hexdigest().upper(), "x-oura-timestamp": timestamp}

    def test_the_case_of_the_hex_does_not_matter(self) -> None:
        headers = self.sign(BODY)
        self.verify(headers | {"x-oura-signature": headers["x-oura-signature"].lower()})


def read(**changes: Any) -> Announcement:
    event = {name: value for name, value in (EVENT | changes).items() if value is not ...}
    return WEBHOOK.read({}, json.dumps(event).encode())


def refusal(body: bytes) -> str:
    with pytest.raises(Refused) as refused:
        WEBHOOK.read({}, body)
    assert (refused.value.status, refused.value.slug) == (400, "bad-body")
    return refused.value.detail


def test_an_event_says_what_changed_for_whom_and_when() -> None:
    said = read()
    assert (said.event_type, said.vendor_user_id, said.object_id) == ("sleep.update", "user_7", EVENT["object_id"])
    assert said.event_time == datetime(2024, 5, 5, 5, 30, 0, 123_456, UTC)
    assert said.interest == "known"


@pytest.mark.parametrize("event_type", ["sleep.updated", "sleep.update"])
@pytest.mark.parametrize("data_type", [..., None, "", "sleep"])
def test_an_event_may_say_type_and_verb_in_one(event_type: str, data_type: object) -> None:
    assert read(event_type=event_type, data_type=data_type).event_type == "sleep.update"


@pytest.mark.parametrize(("verb", "canonical"), [("created", "create"), ("updated", "update"), ("deleted", "delete")])
def test_verbs_in_the_past_tense_are_the_same_verbs(verb: str, canonical: str) -> None:
    assert read(event_type=f"workout.{verb}", data_type=...).event_type == f"workout.{canonical}"
    assert read(event_type=verb).event_type == f"sleep.{canonical}"


def test_both_spellings_of_vo2_max_are_one_type() -> None:
    assert read(data_type="vO2_max").event_type == read(data_type="vo2_max").event_type == "vo2_max.update"
    assert read(event_type="vO2_max.updated", data_type="vo2_max").event_type == "vo2_max.update"


def test_the_body_of_the_replaced_systems_load_script_is_read() -> None:
    said = WEBHOOK.read({}, b'{"event_type": "sleep.updated", "user_id": "user_7"}')
    assert (said.event_type, said.object_id, said.event_time, said.interest) == ("sleep.update", "", None, "known")


@pytest.mark.parametrize("verb", ["create", "update", "delete"])
def test_the_three_lists_of_event_types_do_not_overlap(verb: str) -> None:
    assert {read(event_type=verb, data_type=kind).interest for kind in MEASURED} == {"known"}
    assert {read(event_type=verb, data_type=kind).interest for kind in UNMEASURED} == {"ignored"}
    assert not WEBHOOK.KNOWN & WEBHOOK.IGNORED


@pytest.mark.parametrize(("kind", "verb"), [("heartrate", "update"), ("sleep", "archive"), ("dreams", "create")])
def test_a_type_on_neither_list_is_unknown_and_still_taken(kind: str, verb: str) -> None:
    assert read(event_type=verb, data_type=kind).interest == "unknown"


def test_a_repeat_of_an_event_has_the_same_dedup_key() -> None:
    assert read().dedup_key == read().dedup_key
    assert read(event_type="sleep.updated", data_type=...).dedup_key == read().dedup_key


@pytest.mark.parametrize(
    "changes",
    [
        {"user_id": "user_8"},
        {"data_type": "daily_sleep"},
        {"object_id": "another"},
        {"event_type": "create"},
        {"event_time": "2024-05-05T07:30:01+02:00"},
        {"object_id": "", "user_id": f"user_7{EVENT['object_id']}"},
    ],
)
def test_another_event_has_another_dedup_key(changes: dict[str, Any]) -> None:
    assert read(**changes).dedup_key != read().dedup_key


@pytest.mark.parametrize("absent", [None, "", ...])
def test_without_a_time_every_event_is_its_own(absent: object) -> None:
    assert read(event_time=absent).dedup_key != read(event_time=absent).dedup_key


def test_a_numeric_user_is_the_same_as_its_text() -> None:
    assert read(user_id=7).vendor_user_id == "7"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[]", "not an object"),
        (b'"sleep"', "not an object"),
        (b'{"event_type": NaN}', "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 200_000, "nested too deep"),
        (b"{}", "no event_type"),
        (b'{"event_type": "update", "user_id": "u"}', "no data_type"),
        (b'{"event_type": "", "data_type": "sleep", "user_id": "u"}', "no event_type"),
        (b'{"event_type": "sleep.", "user_id": "u"}', "do not name one type and one verb"),
        (b'{"event_type": ".updated", "user_id": "u"}', "no data_type"),
        (b'{"event_type": "sleep.updated", "data_type": "workout", "user_id": "u"}', "do not name one type"),
        (b'{"event_type": {"a": 1}, "data_type": "sleep", "user_id": "u"}', "must be a text"),
        (b'{"event_type": "sleep.updated"}', "no user_id"),
        (b'{"event_type": "sleep.updated", "user_id": ""}', "no user_id"),
        (b'{"event_type": "sleep.updated", "user_id": null}', "no user_id"),
        (b'{"event_type": "sleep.updated", "user_id": true}', "must be a text"),
        (b'{"event_type": "sleep.updated", "user_id": "u\\u0000"}', "NUL"),
        (b'{"event_type": "sleep.updated", "user_id": "' + b"u" * 256 + b'"}', "longer than 255"),
        (b'{"event_type": "sleep.updated", "user_id": "u", "object_id": ["a"]}', "must be a text"),
        (b'{"event_type": "sleep.updated", "user_id": "u", "object_id": "' + b"o" * 256 + b'"}', "longer than 255"),
        (b'{"event_type": "sleep.updated", "user_id": "u", "event_time": "soon"}', "event_time: 'soon' is not"),
        (b'{"event_type": "sleep.updated", "user_id": "u", "event_time": "2024-05-05T07:30:00"}', "has no time zone"),
        (b'{"event_type": "sleep.updated", "user_id": "u", "event_time": 1716000000}', "is not a timestamp"),
        (b'{"event_type": "' + b"v" * 200 + b'", "data_type": "' + b"t" * 99 + b'", "user_id": "u"}', "longer than"),
    ],
)
def test_a_body_that_is_not_ouras_is_refused_with_the_reason(body: bytes, why: str) -> None:
    assert why in refusal(body)


def test_a_lone_surrogate_is_refused() -> None:
    assert refusal(b'{"event_type": "sleep.updated", "user_id": "\\ud800"}')


def test_the_handshake_echoes_the_challenge_to_the_right_token() -> None:
    assert WEBHOOK.handshake({"verification_token": "ours", "challenge": "r4nd0m"}, "ours") == "r4nd0m"


@pytest.mark.parametrize(
    ("query", "token"),
    [
        ({}, "ours"),
        ({"challenge": "r"}, "ours"),
        ({"verification_token": "ours"}, "ours"),
        ({"verification_token": "ours", "challenge": ""}, "ours"),
        ({"verification_token": "theirs", "challenge": "r"}, "ours"),
        ({"verification_token": "o\u00fcrs\udcff", "challenge": "r"}, "ours"),
        ({"verification_token": "", "challenge": "r"}, ""),
        ({"challenge": "r"}, ""),
    ],
)
def test_a_handshake_without_the_right_token_is_refused(query: dict[str, str], token: str) -> None:
    with pytest.raises(Refused) as refused:
        WEBHOOK.handshake(query, token)
    assert refused.value.status == 401


def test_an_event_type_has_a_kind_and_a_verb() -> None:
    assert kind_and_verb("daily_sleep.delete") == ("daily_sleep", "delete")


def test_only_a_deletion_with_an_id_withdraws_a_record() -> None:
    assert withdrawn_by("sleep.delete", "a") == ["a"]
    assert withdrawn_by("sleep.delete", "") == []
    assert withdrawn_by("sleep.update", "a") == []
