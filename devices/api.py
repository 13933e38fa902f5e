"""A vendor's API for one process: breaker, rate limit, token, the call itself, and what its answer means."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
import stamina
from django.conf import settings
from prometheus_client import Counter, Histogram

from devices.breaker import Breaker
from devices.connection import NoReply, Reply, exchange, open_client
from devices.limits import RateLimit
from devices.retry_after import seconds_to_wait
from devices.tokens import Tokens
from devices.vendors.client import Failed, NotFound, Postponed, Rejected

# A few more than the worker's slots, so that one that was cancelled and is still closing keeps nobody waiting.
SPARE_CONNECTIONS = 8
WARM_CONNECTIONS = 8
REASON_LENGTH = 200
WHERE_VENDORS_SAY_WHY = ("detail", "message", "error_description", "error", "title")

CALLS = Counter("auren_vendor_calls", "Calls to a vendor's API, by what came of them", ["vendor", "outcome"])
SECONDS = Histogram(
    "auren_vendor_call_seconds",
    "From sending a call until its whole answer is there, or it failed",
    ["vendor"],
    buckets=(0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5, 10, 15),
)

Clock = Callable[[], datetime]


class VendorApi:
    """The connections to one vendor, one object a process. `clock` is PostgreSQL's, as the process keeps it."""

    def __init__(
        self,
        vendor: str,
        tokens: Tokens,
        limit: RateLimit,
        clock: Clock,
        *,
        breaker: Breaker | None = None,
    ) -> None:
        self.vendor = vendor
        self.tokens = tokens
        self.limit = limit
        self.clock = clock
        self.breaker = breaker or Breaker(vendor)
        self._client = open_client(
            getattr(settings, f"{vendor.upper()}_API_URL"),
            connections=settings.MAX_CONCURRENT_WEBHOOKS + SPARE_CONNECTIONS,
        )

    def for_link(self, link_id: int, *, background: bool = False) -> "LinkApi":
        """An `Api` for one asking: it reads the token once and takes note of when it sent the first call."""
        return LinkApi(self, link_id, background=background)

    async def warm_up(self, connections: int = WARM_CONNECTIONS) -> None:
        """Open connections before the first call needs them, without a token. That the vendor is away is no fault."""
        calls = (exchange(self._client, "HEAD", "/") for _ in range(connections))
        await asyncio.gather(*calls, return_exceptions=True)

    async def close(self) -> None:
        await self._client.close()

    async def send(self, path: str, params: dict[str, str] | None, access_token: str) -> Reply:
        """One call, timed, and known to the breaker. Raises `Failed` when no whole answer came."""
        headers = {"Authorization": f"Bearer {access_token}"}
        started = time.perf_counter()
        try:
            reply = await exchange(self._client, "GET", path, params=params, headers=headers)
        except NoReply as error:
            self.breaker.failed()
            raise self.failed(str(error), error.error_class) from None
        finally:
            SECONDS.labels(self.vendor).observe(time.perf_counter() - started)
        self._tell_breaker(reply)
        return reply

    def _tell_breaker(self, reply: Reply) -> None:
        if reply.status >= 500:
            self.breaker.failed()
        else:
            self.breaker.answered()

    def failed(self, reason: str, error_class: str, retry_after: float | None = None) -> Failed:
        self.count(error_class)
        return Failed(reason, error_class=error_class, retry_after=retry_after)

    def count(self, outcome: str) -> None:
        CALLS.labels(self.vendor, outcome).inc()


class LinkApi:
    """`Api` for one link; its token never leaves it. `sent_at` is when the first call that was answered went out."""

    def __init__(self, vendor_api: VendorApi, link_id: int, *, background: bool = False) -> None:
        self._vendor = vendor_api
        self._link_id = link_id
        self._background = background
        self._access_token = ""
        self._answered = False
        self.sent_at: datetime | None = None

    async def get(self, path: str, params: dict[str, str] | None = None) -> Any:
        """The parsed JSON under `path`. A 401 is tried once more, with another token. Raises an `ApiError`."""
        with self._vendor.breaker.admitted():
            if not self._access_token:
                self._access_token = await self._vendor.tokens.current(self._link_id)
            reply = await self._send(path, params)
            if reply.status == 401:
                self._vendor.count("unauthorised")
                refused = self._access_token
                self._access_token = await self._vendor.tokens.after_refusal(self._link_id, refused)
                reply = await self._send(path, params)
        return await self._read(path, reply)

    async def _send(self, path: str, params: dict[str, str] | None) -> Reply:
        """A connection that broke, as one that was kept too long does, is no reason to come back in 30 s."""
        async for attempt in stamina.retry_context(
            on=is_broken_connection, attempts=3, timeout=2, wait_initial=0.05, wait_jitter=0.05
        ):
            with attempt:
                return await self._send_once(path, params)
        raise AssertionError("stamina raises what the last attempt raised")

    async def _send_once(self, path: str, params: dict[str, str] | None) -> Reply:
        await self._vendor.limit.admit(background=self._background)
        if not self._answered:
            self.sent_at = self._vendor.clock()
        return await self._vendor.send(path, params, self._access_token)

    async def _read(self, path: str, reply: Reply) -> Any:
        where = f"{self._vendor.vendor} answered {reply.status} to {path}"
        if 200 <= reply.status < 300:
            self._answered = True
            return self._parse(where, reply)
        match reply.status:
            case 404:
                self._vendor.count("not_found")
                raise NotFound(where)
            case 429:
                raise await self._rate_limited(reply)
            case 401:
                raise self._vendor.failed(f"{where} twice, the second time with another token", "unauthorised")
            case status if 400 <= status < 500 and status != 408:
                self._vendor.count(f"http_{status}")
                raise Rejected(f"{where}: {self._why(reply)}", error_class=f"http_{status}")
        raise self._vendor.failed(where, f"http_{reply.status}", self._retry_after(reply))

    def _parse(self, where: str, reply: Reply) -> Any:
        try:
            document = msgspec.json.decode(reply.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise self._vendor.failed(f"{where}, but not with JSON", "bad_answer") from None
        self._vendor.count("ok")
        return document

    async def _rate_limited(self, reply: Reply) -> Postponed:
        wait = seconds_to_wait(reply.headers)
        self._vendor.count("rate_limited")
        await self._vendor.limit.pause(wait)
        return Postponed(f"{self._vendor.vendor} says to wait {wait:g} s (429)", wait)

    @staticmethod
    def _retry_after(reply: Reply) -> float | None:
        return seconds_to_wait(reply.headers) if "retry-after" in reply.headers else None

    def _why(self, reply: Reply) -> str:
        """The vendor's own words, on one line, short, and without the token it may echo."""
        said = _message(reply.body).replace(self._access_token, "[token]")
        return " ".join("".join(letter if letter.isprintable() else " " for letter in said).split())[:REASON_LENGTH]


def is_broken_connection(error: Exception) -> bool:
    return isinstance(error, Failed) and error.error_class == "connection"


def _message(body: bytes) -> str:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body[: 4 * REASON_LENGTH].decode(errors="replace")
    if isinstance(document, dict):
        for name in WHERE_VENDORS_SAY_WHY:
            if document.get(name):
                return str(document[name])
    return str(document)
