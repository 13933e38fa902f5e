"""Webhooks as the vendors send them: signed over the raw bytes, retried for about an hour, stopped by a 410."""

import asyncio
import base64
import hashlib
import hmac
import random
import secrets
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from uuid import uuid4

import httpx
import msgspec

from auren.sandbox import oura, whoop
from auren.sandbox.grants import Vendor
from auren.sandbox.state import Sandbox
from auren.sandbox.subscriptions import Subscriptions

Verb = Literal["create", "update", "delete"]
Outcome = Literal["sending", "taken", "given up", "dropped", "cancelled"]

RETRIES: dict[Vendor, int] = {"oura": 10, "whoop": 5}
TIMEOUT_SECONDS: dict[Vendor, float] = {"oura": 10, "whoop": 5}
KEPT = 10_000
GONE = 410


def sign_oura(secret: str, timestamp: str, body: bytes) -> dict[str, str]:
    """Upper-case hex of HMAC-SHA256 over the timestamp (Unix seconds) and the body, nothing between them."""
    digest = hmac.new(secret.encode(), timestamp.encode() + body, hashlib.sha256).hexdigest()
    return {"x-oura-signature": digest.upper(), "x-oura-timestamp": timestamp}


def sign_whoop(secret: str, timestamp: str, body: bytes) -> dict[str, str]:
    """Base64 of HMAC-SHA256 over the timestamp (Unix milliseconds) and the body, nothing between them."""
    digest = hmac.new(secret.encode(), timestamp.encode() + body, hashlib.sha256).digest()
    return {"X-WHOOP-Signature": base64.b64encode(digest).decode(), "X-WHOOP-Signature-Timestamp": timestamp}


@dataclass(slots=True)
class Announcement:
    """One webhook and how it fared: `statuses` of its tries in order, 0 where there was no answer."""

    vendor: Vendor
    user: str
    kind: str
    verb: Verb
    record: str
    url: str
    outcome: Outcome = "sending"
    statuses: list[int] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Announcer:
    """Sends announcements in the background. Every one is about a person who has granted access."""

    def __init__(self, sandbox: Sandbox, subscriptions: Subscriptions) -> None:
        self.sandbox = sandbox
        self.subscriptions = subscriptions
        self.sent: deque[Announcement] = deque(maxlen=KEPT)
        self._cancelled: set[tuple[str, str]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dice = random.Random(sandbox.config.seed)  # noqa: S311 - jitter, not secrets
        self._client: httpx.AsyncClient | None = None

    @property
    def client(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(trust_env=False)
        return self._client

    async def shake_hands(self, callback_url: str, token: str) -> bool:
        """Oura's handshake: whether the address answers the challenge."""
        challenge = secrets.token_hex(16)
        query = {"verification_token": token, "challenge": challenge}
        try:
            reply = await self.client.get(callback_url, params=query, timeout=TIMEOUT_SECONDS["oura"])
            return reply.status_code == httpx.codes.OK and reply.json() == {"challenge": challenge}
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):
            return False

    def announce(self, vendor: Vendor, user: str, kind: str, verb: Verb, record: str) -> Announcement | None:
        """Send one webhook in the background. None: nobody asked for it, so nothing is sent."""
        url = self._address(vendor, kind, verb)
        if not url or not self.sandbox.vendor(vendor).grants.granted(user):
            return None
        one = Announcement(vendor, user, kind, verb, record, url)
        self.sent.append(one)
        faults = self.sandbox.vendor(vendor).faults
        if faults.happens(faults.shares.drop_webhook):
            one.outcome = "dropped"
        else:
            task = asyncio.create_task(self._deliver(one, self._body(one)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return one

    def _address(self, vendor: Vendor, kind: str, verb: Verb) -> str:
        """Where it goes: to its subscription, else to the bridge, unless a 410 ended that."""
        bridge = self.sandbox.config.bridge_url
        default = f"{bridge.rstrip('/')}/webhooks/{vendor}" if bridge else ""
        if vendor == "whoop":
            return default
        pair = (verb, oura.data_type(kind))
        subscription = self.subscriptions.of_pair(*pair)
        if subscription and subscription.expires_at > self.sandbox.clock.seconds():
            return subscription.callback_url
        return "" if pair in self._cancelled else default

    def _body(self, one: Announcement) -> bytes:
        if one.vendor == "whoop":
            action = "deleted" if one.verb == "delete" else "updated"
            event = {"user_id": one.user, "id": one.record, "type": f"{one.kind}.{action}", "trace_id": str(uuid4())}
            return msgspec.json.encode(event)
        return msgspec.json.encode(
            {
                "event_type": one.verb,
                "data_type": oura.data_type(one.kind),
                "object_id": one.record,
                "event_time": self.sandbox.clock.now().isoformat(),
                "user_id": one.user,
            }
        )

    def _signed(self, vendor: Vendor, body: bytes) -> dict[str, str]:
        """Signed with the time of the wall, whatever the sandbox's clock was set to: receivers check freshness."""
        secret = self.sandbox.vendor(vendor).config.client_secrets[0]
        now = time.time()
        if vendor == "oura":
            return sign_oura(secret, str(int(now)), body)
        return sign_whoop(secret, str(int(now * 1000)), body)

    async def _deliver(self, one: Announcement, body: bytes) -> None:
        """Post until it is taken, and again with the same bytes and signature while it is not."""
        headers = {"Content-Type": "application/json", **self._signed(one.vendor, body)}
        for wait in [0.0, *self._waits(one.vendor)]:
            await asyncio.sleep(wait)
            status = await self._post(one, body, headers)
            one.statuses.append(status)
            if 200 <= status < 300:
                one.outcome = "taken"
                return
            if status == GONE:
                self._cancel(one)
                return
        one.outcome = "given up"

    async def _post(self, one: Announcement, body: bytes, headers: dict[str, str]) -> int:
        try:
            timeout = TIMEOUT_SECONDS[one.vendor]
            reply = await self.client.post(one.url, content=body, headers=headers, timeout=timeout)
        except (httpx.HTTPError, httpx.InvalidURL):
            return 0
        return reply.status_code

    def _waits(self, vendor: Vendor) -> list[float]:
        """Seconds before each retry: each twice the last, give or take a fifth, the whole within the span."""
        count = RETRIES[vendor]
        unit = self.sandbox.config.retry_span_seconds / (2**count - 1)
        return [unit * 2**index * self._dice.uniform(0.8, 1.0) for index in range(count)]

    def _cancel(self, one: Announcement) -> None:
        one.outcome = "cancelled"
        if one.vendor == "oura":
            pair = (one.verb, oura.data_type(one.kind))
            self._cancelled.add(pair)
            if subscription := self.subscriptions.of_pair(*pair):
                self.subscriptions.remove(subscription.id)

    def forget(self) -> None:
        """Stop every retry, and forget what was sent and what was cancelled."""
        for task in self._tasks:
            task.cancel()
        self.sent.clear()
        self._cancelled.clear()

    async def settle(self) -> None:
        """Wait until everything announced so far was taken, given up or cancelled."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.settle()
        if self._client is not None:
            await self._client.aclose()


def announced_kinds(vendor: Vendor) -> tuple[str, ...]:
    """The kinds a vendor announces of which there are documents here, by the name they have in a path."""
    if vendor == "whoop":
        return whoop.ANNOUNCED
    subscribable = {oura.path_kind(each) for each in oura.SUBSCRIBABLE}
    return tuple(kind for kind in oura.BUILDERS if kind in subscribable)
