import base64
import hashlib
import hmac
import json

import httpx
import pytest

from auren.sandbox.server import RunningSandbox
from tests.sandbox.conftest import NOW, Reader
from tests.sandbox.receiver import Receiver

CREDENTIALS = {"x-client-id": "sandbox-oura", "x-client-secret": "sandbox-oura-secret"}
SUBSCRIPTIONS = "/oura/v2/webhook/subscription"


@pytest.fixture
def wanted(bridge: Receiver) -> dict[str, str]:
    return {
        "callback_url": f"{bridge.url}/own/path",
        "verification_token": "shaken",
        "event_type": "update",
        "data_type": "sleep",
    }


def test_ouras_webhook_is_signed_over_timestamp_and_raw_body(
    sandbox: RunningSandbox, bridge: Receiver, oura: Reader
) -> None:
    announced = sandbox.announce("oura", "user_1", "sleep")
    [webhook] = bridge.received
    message = webhook.headers["x-oura-timestamp"].encode() + webhook.body
    expected = hmac.new(b"sandbox-oura-secret", message, hashlib.sha256).hexdigest().upper()
    assert webhook.path == "/webhooks/oura"
    assert webhook.headers["x-oura-signature"] == expected
    assert len(webhook.headers["x-oura-timestamp"]) == 10
    assert json.loads(webhook.body) == {
        "event_type": "update",
        "data_type": "sleep",
        "object_id": announced["record"],
        "event_time": NOW.isoformat(),
        "user_id": "user_1",
    }
    assert oura.get(f"/v2/usercollection/sleep/{announced['record']}").status_code == 200


def test_whoops_webhook_is_signed_over_milliseconds_and_raw_body(
    sandbox: RunningSandbox, bridge: Receiver, whoop: Reader
) -> None:
    announced = sandbox.announce("whoop", "user_1", "recovery")
    [webhook] = bridge.received
    message = webhook.headers["x-whoop-signature-timestamp"].encode() + webhook.body
    digest = hmac.new(b"sandbox-whoop-secret", message, hashlib.sha256).digest()
    body = json.loads(webhook.body)
    assert webhook.headers["x-whoop-signature"] == base64.b64encode(digest).decode()
    assert len(webhook.headers["x-whoop-signature-timestamp"]) == 13
    assert set(body) == {"user_id", "id", "type", "trace_id"}
    assert (body["type"], body["id"]) == ("recovery.updated", announced["record"])
    assert whoop.get(f"/v2/activity/sleep/{body['id']}").status_code == 200


def test_oura_announces_vo2_max_in_lower_case(sandbox: RunningSandbox, bridge: Receiver, oura: Reader) -> None:
    sandbox.announce("oura", "user_1", "vO2_max")
    assert json.loads(bridge.received[0].body)["data_type"] == "vo2_max"


def test_an_edited_whoop_sleep_is_announced_with_its_recovery(
    sandbox: RunningSandbox, bridge: Receiver, whoop: Reader
) -> None:
    night = next(each for each in whoop.get("/v2/activity/sleep").json()["records"] if not each["nap"])
    sandbox.edit_document("whoop", "user_1", "sleep", night["id"], announce=True)
    sandbox.announcements(wait=True)
    assert {json.loads(each.body)["type"] for each in bridge.received} == {"sleep.updated", "recovery.updated"}


def test_nothing_is_announced_for_a_person_without_a_grant(sandbox: RunningSandbox, bridge: Receiver) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="409"):
        sandbox.announce("oura", "user_1", "sleep")
    assert bridge.received == []


@pytest.mark.parametrize(("vendor", "retries"), [("oura", 10), ("whoop", 5)])
def test_a_webhook_is_retried_with_the_same_bytes_and_then_given_up(
    sandbox: RunningSandbox, bridge: Receiver, vendor: str, retries: int
) -> None:
    bridge.answers = [503] * 20
    sandbox.grant(vendor, "user_1")  # type: ignore[arg-type]
    announced = sandbox.announce(vendor, "user_1", "sleep")  # type: ignore[arg-type]
    assert announced["statuses"] == [503] * (retries + 1)
    assert announced["outcome"] == "given up"
    assert len({(each.body, tuple(sorted(each.headers.items()))) for each in bridge.received}) == 1


def test_a_webhook_that_is_taken_at_last_is_not_sent_again(
    sandbox: RunningSandbox, bridge: Receiver, oura: Reader
) -> None:
    bridge.answers = [500, 401]
    assert sandbox.announce("oura", "user_1", "sleep")["statuses"] == [500, 401, 202]


def test_gone_ends_ouras_subscription(sandbox: RunningSandbox, bridge: Receiver, oura: Reader) -> None:
    bridge.answers = [410]
    assert sandbox.announce("oura", "user_1", "sleep")["outcome"] == "cancelled"
    with pytest.raises(httpx.HTTPStatusError, match="409"):
        sandbox.announce("oura", "user_1", "sleep")
    assert sandbox.announce("oura", "user_1", "daily_sleep")["outcome"] == "taken"


def test_a_dropped_webhook_is_never_sent(sandbox: RunningSandbox, bridge: Receiver, oura: Reader) -> None:
    sandbox.set_faults("oura", drop_webhook=1)
    assert sandbox.announce("oura", "user_1", "sleep")["outcome"] == "dropped"
    assert bridge.received == []


def test_a_subscription_needs_the_applications_credentials(http: httpx.Client, wanted: dict[str, str]) -> None:
    assert http.post(SUBSCRIPTIONS, json=wanted).status_code == 401
    assert http.get(SUBSCRIPTIONS, headers={**CREDENTIALS, "x-client-secret": "guessed"}).status_code == 401


def test_a_subscription_shakes_hands_and_then_gets_its_pairs_events(
    sandbox: RunningSandbox, http: httpx.Client, bridge: Receiver, oura: Reader, wanted: dict[str, str]
) -> None:
    created = http.post(SUBSCRIPTIONS, json=wanted, headers=CREDENTIALS)
    assert created.status_code == 201
    assert set(created.json()) == {"id", "callback_url", "event_type", "data_type", "expiration_time"}
    assert not created.json()["expiration_time"].endswith("Z")
    sandbox.announce("oura", "user_1", "sleep", verb="update")
    sandbox.announce("oura", "user_1", "sleep", verb="create")
    assert [each.path for each in bridge.received] == ["/own/path", "/webhooks/oura"]


def test_a_subscription_is_not_made_where_nobody_shakes_hands(http: httpx.Client, wanted: dict[str, str]) -> None:
    refused = http.post(SUBSCRIPTIONS, json={**wanted, "verification_token": "unknown"}, headers=CREDENTIALS)
    assert refused.status_code == 422
    assert http.get(SUBSCRIPTIONS, headers=CREDENTIALS).json() == []


def test_there_is_one_subscription_a_pair(http: httpx.Client, wanted: dict[str, str]) -> None:
    statuses = [http.post(SUBSCRIPTIONS, json=wanted, headers=CREDENTIALS).status_code for _ in range(2)]
    assert statuses == [201, 409]


def test_heart_rates_cannot_be_subscribed_to(http: httpx.Client, wanted: dict[str, str]) -> None:
    refused = http.post(SUBSCRIPTIONS, json={**wanted, "data_type": "heartrate"}, headers=CREDENTIALS)
    assert refused.status_code == 422


def test_a_subscription_can_be_read_renewed_changed_and_deleted(
    sandbox: RunningSandbox, http: httpx.Client, wanted: dict[str, str]
) -> None:
    http.headers.update(CREDENTIALS)
    created = http.post(SUBSCRIPTIONS, json=wanted).json()
    one = f"{SUBSCRIPTIONS}/{created['id']}"
    sandbox.set_clock(NOW.replace(month=5))
    renewed = http.put(f"{SUBSCRIPTIONS}/renew/{created['id']}").json()
    changed = http.put(one, json={"verification_token": "shaken", "event_type": "create"}).json()
    assert http.get(one).json() == changed
    assert renewed["expiration_time"] > created["expiration_time"]
    assert changed["event_type"] == "create"
    assert http.delete(one).status_code == 204
    assert [http.request(verb, one).status_code for verb in ("GET", "DELETE")] == [403, 403]
