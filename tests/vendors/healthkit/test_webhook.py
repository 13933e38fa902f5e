import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from devices.vendors.client import Ask, Rejected
from devices.vendors.healthkit import client
from devices.vendors.healthkit.normalise import normalise
from devices.vendors.healthkit.webhook import WEBHOOK, document_of
from devices.vendors.webhook import Announcement, Caller, Refused
from tests.vendors.recorded import ANYTHING, RecordedApi, payloads_in

CLINIC = Caller(owner="clinic", patients=frozenset(("user_1", "user_2")))
PHONE = Caller(owner="phone", patients=frozenset(("user_1",)))
SANDBOX = Caller(owner="sandbox", patients=frozenset(), sandbox=True)
PLAIN: dict[str, Any] = {"user_id": "user_1", "samples": []}


def read(body: Any, caller: Caller = CLINIC, **headers: str) -> Announcement:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return WEBHOOK.read(named, body if isinstance(body, bytes) else json.dumps(body).encode(), caller)


def refusal(body: Any, caller: Caller = CLINIC, **headers: str) -> Refused:
    with pytest.raises(Refused) as caught:
        read(body, caller, **headers)
    return caught.value


def key_refusal(headers: dict[str, str]) -> Refused:
    with pytest.raises(Refused) as caught:
        WEBHOOK.key_digest(headers)
    return caught.value


# Keys


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer k-1"},
        {"authorization": "bearer  k-1 "},
        {"x-api-key": "k-1"},
        {"authorization": "Basic dXNlcjpwYXNz", "x-api-key": "k-1"},
        {"authorization": "Bearer k-1", "x-api-key": "k-2"},
    ],
)
def test_the_key_is_hashed_wherever_it_was_sent(headers: dict[str, str]) -> None:
    assert WEBHOOK.key_digest(headers) == hashlib.sha256(b"k-1").digest()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "k-1"},
        {"authorization": "Basic k-1"},
        {"x-api-key": " "},
        {"x-api-key": "clé"},
        {"x-api-key": "k" * 256},
        {"authorization": "Bearer k 1"},
        {"x-api-key": "k\0"},
    ],
)
def test_a_missing_or_malformed_key_is_401(headers: dict[str, str]) -> None:
    assert key_refusal(headers).status == 401


# Whose batch


def test_a_batch_is_announced_for_the_patient_its_body_names() -> None:
    found = read(PLAIN)
    assert (found.event_type, found.vendor_user_id, found.object_id) == ("batch.posted", "user_1", "")
    assert found.interest == "known"
    assert WEBHOOK.interest_in("batch.deleted") == "unknown"


@pytest.mark.parametrize(
    ("body", "headers", "caller", "user"),
    [
        ({"data": {}}, {"x_user_id": "user_2"}, CLINIC, "user_2"),
        ({"data": {}}, {}, PHONE, "user_1"),
        ({"data": {}, "user_id": None}, {"x_user_id": " "}, PHONE, "user_1"),
        (PLAIN, {"x_user_id": "user_1"}, CLINIC, "user_1"),
        ({"samples": [], "user_id": 7}, {}, Caller("k", frozenset("7")), "7"),
        ({"samples": [], "user_id": "user_404"}, {}, SANDBOX, "user_404"),
    ],
)
def test_the_patient_is_the_bodys_then_the_headers_then_the_keys(
    body: Any, headers: dict[str, str], caller: Caller, user: str
) -> None:
    assert read(body, caller, **headers).vendor_user_id == user


@pytest.mark.parametrize("caller", [CLINIC, SANDBOX])
def test_a_batch_that_names_nobody_is_400_for_a_key_of_several(caller: Caller) -> None:
    assert refusal({"data": {}}, caller).status == 400


def test_two_different_patients_in_body_and_header_are_400() -> None:
    found = refusal(PLAIN, x_user_id="user_2")
    assert found.status == 400
    assert "two different patients" in found.detail


@pytest.mark.parametrize(
    ("user", "caller"), [("user_3", CLINIC), ("user_2", PHONE), ("alice", SANDBOX), ("user_²", SANDBOX)]
)
def test_a_key_that_may_not_post_for_the_patient_is_403(user: str, caller: Caller) -> None:
    assert refusal({"user_id": user, "samples": []}, caller).status == 403


@pytest.mark.parametrize(
    "user",
    [b"true", b"1.5", b"[]", b"{}", b'"a\\u0000"', b'"\\ud800"', b'"%s"' % (b"x" * 256), b"1" * 256, b"1" * 5000],
)
def test_an_unusable_user_is_400(user: bytes) -> None:
    assert refusal(b'{"user_id": %s, "samples": []}' % user).status == 400


def test_an_over_long_user_header_is_400() -> None:
    assert refusal({"data": {}}, x_user_id="x" * 256).status == 400


# Shape


@pytest.mark.parametrize(
    "body",
    [
        {"samples": [1, "two", None]},
        {"data": {"records": 7}},
        {"deleted": []},
        {"samples": [], "data": None},
        {"samples": [["\ud800"]]},
        {"samples": [{"uuid": "a\0"}]},
    ],
)
def test_a_batch_of_any_accepted_shape_is_taken(body: Any) -> None:
    assert read(body, PHONE).vendor_user_id == "user_1"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"samples": {}},
        {"samples": "x"},
        {"data": []},
        {"data": 7},
        {"deleted": "U-1"},
        {"samples": None},
        {"a": 1},
        {"samples": [], "data": []},
        {"samples": [], "deleted": {}},
        [],
        [PLAIN],
        "x",
        7,
        None,
        True,
        {"samples": "\ud800"},
        {"data": ["\ud800"]},
    ],
)
def test_a_body_of_another_shape_is_400_and_told_the_shapes(body: Any) -> None:
    found = refusal(body, PHONE)
    assert found.status == 400
    assert '"samples"' in found.detail


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"samples": [}',
        b'{"samples": [1,]}',
        b'{"samples": []}x',
        b'\xef\xbb\xbf{"samples": []}',
        b'{"samples": [NaN]}',
        b'{"samples": [Infinity]}',
        b'{"samples": [-Infinity]}',
        b'{"samples": ["\xff"]}',
        b'{"samples": [], "x": "\xed\xa0\x80"}',
        b'{"samples": ["a\x01"]}',
        b'{"samples": ["\\x"]}',
        b'{"samples": [01]}',
        b'{"samples": ["\\ud800", NaN]}',
        '{"samples": []}'.encode("utf-16"),
    ],
)
def test_a_body_that_is_not_json_in_utf8_is_400(body: bytes) -> None:
    assert refusal(body, PHONE).status == 400


@pytest.mark.parametrize("member", ["samples", "elsewhere"])
@pytest.mark.parametrize("before", [b"", b'"\\ud800", '])
def test_json_nested_too_deep_is_400(member: str, before: bytes) -> None:
    deep = b'{"samples": [], "%s": [%s%s%s]}' % (member.encode(), before, b"[" * 100_000, b"]" * 100_000)
    assert "too deep" in refusal(deep, PHONE).detail


def test_of_a_repeated_key_the_last_counts_as_json_has_it() -> None:
    body = b'{"user_id": "user_1", "user_id": "user_2", "samples": 7, "samples": []}'
    assert read(body).vendor_user_id == "user_2"


def test_the_limit_is_sixteen_mebibytes() -> None:
    assert WEBHOOK.body_limit == 16 * 1024 * 1024


# Repeats


def test_the_same_body_of_the_same_key_is_a_repeat() -> None:
    assert read(PLAIN).dedup_key == read(PLAIN).dedup_key
    assert not read(PLAIN).idempotency_key


def test_another_body_key_or_patient_is_no_repeat() -> None:
    found = [
        read(PLAIN),
        read(PLAIN, PHONE),
        read(PLAIN | {"deleted": []}),
        read({"data": {}}, x_user_id="user_1"),
        read({"data": {}}, x_user_id="user_2"),
    ]
    assert len({each.dedup_key for each in found}) == 5


def test_an_idempotency_key_stands_for_the_body_within_one_api_key() -> None:
    first, second = read(PLAIN, idempotency_key="k"), read(PLAIN | {"deleted": []}, idempotency_key=" k ")
    assert first.dedup_key == second.dedup_key
    assert first.idempotency_key
    others = {read(PLAIN, PHONE, idempotency_key="k").dedup_key, read(PLAIN, idempotency_key="l").dedup_key}
    assert len(others | {first.dedup_key}) == 3


def test_an_empty_idempotency_key_is_none() -> None:
    assert read(PLAIN, idempotency_key=" ") == read(PLAIN)


@pytest.mark.parametrize("value", ["x" * 256, "a\0", "\ud800"])
def test_an_unusable_idempotency_key_is_400(value: str) -> None:
    assert refusal(PLAIN, idempotency_key=value).status == 400


# What the worker gets


def test_the_aggregation_header_reaches_the_document() -> None:
    announced = read(PLAIN, automation_aggregation="Hours")
    assert announced.headers == {"automation_aggregation": "Hours"}
    assert document_of(json.dumps(PLAIN).encode(), announced.headers) == PLAIN | {"automation_aggregation": "Hours"}


def test_without_headers_the_document_is_the_body() -> None:
    assert read(PLAIN).headers is None
    assert document_of(json.dumps(PLAIN).encode(), None) == PLAIN
    assert document_of(json.dumps(PLAIN).encode(), {}) == PLAIN


@pytest.mark.parametrize("spoilt", [b'"\\ud800"', b'"\\u0000"', b"1e999", b"1" * 5000, b"-" + b"9" * 400])
def test_a_sample_msgspec_cannot_read_is_refused_alone(spoilt: bytes) -> None:
    good = b'{"type": "HeartRate", "value": 60, "uuid": "a", "timestamp": "2026-10-05T06:00:00Z"}'
    body = b'{"samples": [%s, %s, %s]}' % (good, good.replace(b'"a"', spoilt), good.replace(b"60", spoilt))
    assert read(body, PHONE)
    found = normalise("batch", document_of(body, None))
    assert len(found.samples) == 1
    assert len(found.refused) == 2


@pytest.mark.parametrize("body", [b"[]", b"{", b"", b"\xff", b'{"a": NaN}', b"[" * 100_000])
def test_a_body_that_was_never_let_in_is_a_value_error_to_the_worker(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        document_of(body, None)


@pytest.mark.parametrize("payload", payloads_in(Path(__file__).parent), ids=lambda payload: payload.name)
def test_a_recorded_batch_is_let_in_and_comes_out_as_it_was(payload: Any) -> None:
    body = json.dumps(payload.document).encode()
    assert read(body, Caller("k", frozenset(("user_7", "user_3"))), x_user_id=payload.document.get("user_id", "user_7"))
    assert document_of(body, None) == payload.document


@given(ANYTHING)
def test_any_body_is_announced_or_refused_with_a_status(body: Any) -> None:
    data = json.dumps({"samples": [body], "user_id": body, "data": {"records": body}}).encode()
    try:
        status = 202 if read(data, SANDBOX).vendor_user_id else 500
    except Refused as refused:
        status = refused.status
    assert status in (202, 400, 403)


async def test_there_is_no_api_to_ask() -> None:
    assert client.HISTORY == ()
    with pytest.raises(Rejected) as caught:
        await client.fetch(Ask(kind="batch", vendor_user_id="user_1"), RecordedApi({}))
    assert caught.value.error_class == "no_api"
