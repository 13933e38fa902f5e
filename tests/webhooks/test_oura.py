import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import ClassVar

import httpx
import pytest
from django.conf import settings as given
from pytest_django import Settings

from tests.webhooks.entry import JSON, Json, compact, in_sandbox, opened, promised, refused, rows
from tests.webhooks.webhook_cases import SignedContract, fresh

EVENT_TIME = "2026-11-24T08:00:00.5+01:00"


class TestOura(SignedContract):
    vendor = "oura"
    verbs = "GET, POST"
    secret_setting = "OURA_CLIENT_SECRETS"
    signature_header = "x-oura-signature"
    timestamp_header = "x-oura-timestamp"
    ticks = 1
    unsigned: ClassVar[Json] = {"event_type": "sleep.updated", "user_id": "user_7"}
    needed = ("user_id", "event_type", "data_type")
    named = ("user_id", "event_type", "data_type", "object_id", "event_time")

    def event(self) -> Json:
        return {
            "event_type": "update",
            "data_type": "daily_sleep",
            "object_id": fresh(),
            "event_time": EVENT_TIME,
            "user_id": "user_7",
        }

    def stored(self, event: Json) -> Json:
        return {
            "event_type": "daily_sleep.update",
            "vendor_user_id": "user_7",
            "object_id": event["object_id"],
            "event_time": datetime(2026, 11, 24, 7, 0, 0, 500_000, tzinfo=UTC),
            "headers": None,
        }

    def sign(self, body: bytes, *, secret: str = "", at: float | None = None, timestamp: str = "") -> dict[str, str]:
        timestamp = timestamp or self.timestamp(at)
        secret = secret or next(iter(given.OURA_CLIENT_SECRETS), "")
        signed = hmac.new(secret.encode(), timestamp.encode() + body, hashlib.sha256).hexdigest().upper()
        return {self.signature_header: signed, self.timestamp_header: timestamp}

    def another_vendors(self, body: bytes) -> dict[str, str]:
        milliseconds = f"{self.timestamp(None)}000"
        signed = hmac.new(b"the-newer-secret", milliseconds.encode() + body, hashlib.sha256).digest()
        return {
            "x-whoop-signature": base64.b64encode(signed).decode(),
            "x-whoop-signature-timestamp": milliseconds,
        }

    async def test_the_case_of_the_signature_does_not_count(self, web: httpx.AsyncClient) -> None:
        body = compact(self.event())
        signed = self.sign(body)
        signed[self.signature_header] = signed[self.signature_header].lower()
        promised(await self.post(web, body, JSON | signed))

    @pytest.mark.parametrize("changed", ["user_id", "event_type", "data_type", "object_id", "event_time"])
    async def test_events_that_differ_in_anything_that_counts_are_two(
        self, web: httpx.AsyncClient, changed: str
    ) -> None:
        event = self.event()
        other = {
            **event,
            changed: {"data_type": "sleep", "event_type": "create", "event_time": "2026-11-24T08:00:01Z"}.get(
                changed, "another"
            ),
        }
        promised(await self.post(web, event))
        assert not promised(await self.post(web, other))["duplicate"]

    async def test_a_repeat_spelled_otherwise_is_known(self, web: httpx.AsyncClient) -> None:
        event = self.event()
        first = promised(await self.post(web, event))
        again = promised(await self.post(web, {**dict(reversed(event.items())), "sent": "again"}))
        assert again == first | {"duplicate": True}

    async def test_without_a_time_every_announcement_is_a_new_one(self, web: httpx.AsyncClient) -> None:
        body = {"event_type": "sleep.updated", "user_id": "user_7"}
        promises = [promised(await self.post(web, body)) for _ in range(2)]
        assert [promise["duplicate"] for promise in promises] == [False, False]

    @pytest.mark.parametrize("event_time", ["yesterday", "2026-11-24", "2026-11-24T08:00:00", "2026-13-24T08:00:00Z"])
    async def test_a_time_that_is_none_is_refused(self, web: httpx.AsyncClient, event_time: str) -> None:
        refused(await self.post(web, {**self.event(), "event_time": event_time}), 400, "bad-body")

    async def test_a_kind_and_verb_in_one_need_no_data_type(self, web: httpx.AsyncClient) -> None:
        promised(await self.post(web, {"event_type": "workout.updated", "user_id": "user_7"}))
        assert rows()[0]["event_type"] == "workout.update"

    @pytest.mark.parametrize("event_type", ["sleep", "sleep.", ".updated"])
    async def test_half_an_event_type_is_refused(self, web: httpx.AsyncClient, event_type: str) -> None:
        refused(await self.post(web, {"event_type": event_type, "user_id": "user_7"}), 400, "bad-body")


class TestHandshake:
    asked: ClassVar[dict[str, str]] = {"verification_token": "oura-shakes-hands", "challenge": "c-\u00e4 &+%"}

    @pytest.fixture(autouse=True)
    def outside_the_sandbox(self, settings: Settings) -> None:
        in_sandbox(settings, on=False)

    async def shake(self, verb: str = "GET", **query: str) -> httpx.Response:
        async with opened() as web:
            return await web.request(verb, "/webhooks/oura", params=query)

    async def test_the_challenge_comes_back(self, database: str) -> None:
        answer = await self.shake(**self.asked)
        assert (answer.status_code, answer.json()) == (200, {"challenge": "c-\u00e4 &+%"})
        assert answer.headers["content-type"] == "application/json"
        assert rows() == []

    @pytest.mark.parametrize("token", ["", "wrong", "oura-shakes-hand", "OURA-SHAKES-HANDS", "\u00e4", "\0"])
    async def test_a_token_that_is_not_ours_is_refused(self, database: str, token: str) -> None:
        refused(await self.shake(challenge="c", verification_token=token), 401, "unauthorised")

    @pytest.mark.parametrize("missing", ["verification_token", "challenge"])
    async def test_both_parameters_are_needed(self, database: str, missing: str) -> None:
        query = {name: value for name, value in self.asked.items() if name != missing}
        refused(await self.shake(**query), 401, "unauthorised")
        refused(await self.shake(), 401, "unauthorised")
        refused(await self.shake(**query, **{missing: ""}), 401, "unauthorised")

    async def test_head_shakes_no_hands(self, database: str) -> None:
        answer = await self.shake("HEAD", **self.asked)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
        assert rows() == []

    async def test_without_a_token_of_ours_none_is_right(self, database: str, settings: Settings) -> None:
        in_sandbox(settings)  # elsewhere it does not even start
        settings.OURA_VERIFICATION_TOKEN = ""
        refused(await self.shake(challenge="c", verification_token=""), 401, "unauthorised")
        refused(await self.shake(challenge="c", verification_token="any"), 401, "unauthorised")
