import base64
import hashlib
import hmac
from typing import ClassVar

import httpx
import pytest
from django.conf import settings

from tests.webhooks.entry import JSON, Json, compact, promised, rows
from tests.webhooks.webhook_cases import SignedContract, fresh


class TestWhoop(SignedContract):
    vendor = "whoop"
    secret_setting = "WHOOP_CLIENT_SECRETS"
    signature_header = "x-whoop-signature"
    timestamp_header = "x-whoop-signature-timestamp"
    ticks = 1000
    unsigned: ClassVar[Json] = {"type": "recovery.updated", "user_id": "user_7", "trace_id": "from-the-load-script"}
    needed = ("user_id", "type")
    named = ("user_id", "type", "id", "trace_id")

    def event(self) -> Json:
        return {"user_id": 10_129, "id": fresh(), "type": "recovery.updated", "trace_id": fresh()}

    def stored(self, event: Json) -> Json:
        return {
            "event_type": event["type"],
            "vendor_user_id": str(event["user_id"]),
            "object_id": event["id"],
            "event_time": None,
            "headers": None,
        }

    def sign(self, body: bytes, *, secret: str = "", at: float | None = None, timestamp: str = "") -> dict[str, str]:
        timestamp = timestamp or self.timestamp(at)
        secret = secret or next(iter(settings.WHOOP_CLIENT_SECRETS), "")
        signed = hmac.new(secret.encode(), timestamp.encode() + body, hashlib.sha256).digest()
        return {self.signature_header: base64.b64encode(signed).decode(), self.timestamp_header: timestamp}

    def another_vendors(self, body: bytes) -> dict[str, str]:
        seconds = self.timestamp(None)[:-3]
        signed = hmac.new(b"the-newer-secret", seconds.encode() + body, hashlib.sha256).hexdigest().upper()
        return {"x-oura-signature": signed, "x-oura-timestamp": seconds}

    async def test_get_is_no_verb_of_whoops(self, web: httpx.AsyncClient) -> None:
        answer = await web.get(self.path, params={"verification_token": "oura-shakes-hands", "challenge": "a"})
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")

    @pytest.mark.parametrize("changed", ["user_id", "type", "id", "trace_id"])
    async def test_events_that_differ_in_anything_that_counts_are_two(
        self, web: httpx.AsyncClient, changed: str
    ) -> None:
        event = self.event()
        promised(await self.post(web, event))
        other = {**event, changed: "sleep.updated" if changed == "type" else "another"}
        assert not promised(await self.post(web, other))["duplicate"]

    async def test_a_repeat_spelled_otherwise_is_known_by_its_trace(self, web: httpx.AsyncClient) -> None:
        event = self.event()
        first = promised(await self.post(web, event))
        again = promised(await self.post(web, {**dict(reversed(event.items())), "sent": "again"}))
        assert again == first | {"duplicate": True}
        assert bytes(rows()[0]["body"]) == compact(event)

    async def test_without_a_trace_the_body_tells_repeats(self, web: httpx.AsyncClient) -> None:
        event = {"user_id": 10_129, "type": "sleep.updated", "id": fresh()}
        first = promised(await self.post(web, event))
        assert promised(await self.post(web, event)) == first | {"duplicate": True}
        assert not promised(await self.post(web, compact(event) + b" "))["duplicate"]

    async def test_names_of_255_characters_of_any_script_are_taken(self, web: httpx.AsyncClient) -> None:
        long = "\U0001f4a4" * 255
        event = {"user_id": long, "type": "x" * 255, "id": "\u00e4" * 255, "trace_id": long}
        promised(await self.post(web, event))
        assert rows()[0]["vendor_user_id"] == long

    async def test_a_header_sent_twice_opens_nothing(self, web: httpx.AsyncClient) -> None:
        body = compact(self.event())
        right, wrong = self.sign(body)[self.signature_header], self.sign(b"other")[self.signature_header]
        headers = [*JSON.items(), (self.timestamp_header, self.sign(body)[self.timestamp_header])]
        headers += [(self.signature_header, wrong), (self.signature_header, f"{wrong},{right}")]
        assert (await web.post(self.path, content=body, headers=headers)).status_code == 401
