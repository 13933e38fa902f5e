"""`/webhooks/*`: takes deliveries in. A small ASGI application of its own; README and docs/decisions say why.

The order is fixed (DESIGN section 9): route, verb, size, type, signature, shape, right, key, room. Nothing is
parsed before it is verified, nothing is stored before it is parsed, and 202 is sent after the commit only.
"""

import asyncio
import logging
from collections.abc import Mapping
from time import perf_counter, time
from urllib.parse import parse_qsl

import psycopg
from django.conf import settings

from auren.pace import Pace
from auren.postgres import Line
from devices.vendors.healthkit.webhook import WEBHOOK as HEALTHKIT
from devices.vendors.oura.webhook import WEBHOOK as OURA
from devices.vendors.webhook import Announcement, Refused, SignedWebhook
from devices.vendors.whoop.webhook import WEBHOOK as WHOOP
from webhooks import metrics
from webhooks.http import (
    Answer,
    Gone,
    Reading,
    Receive,
    Scope,
    Send,
    answer,
    from_loopback,
    headers_of,
    problem,
    read_body,
    reply,
)
from webhooks.inbox import Inbox, Row, Unavailable, Unstorable
from webhooks.keyring import KeyRing

logger = logging.getLogger(__name__)

PREFIX = "/webhooks/"
RETRY_AFTER = (b"retry-after", b"2")
UNREAD = frozenset({408, 413})  # whose body has not been read to its end: nothing can follow on that connection
WRITE_DOWN_EVERY = 0.25  # seconds
LONGEST_REST = 60.0  # seconds between two counts of what waits
COUNT_TIMEOUT = 10  # seconds; beyond what PostgreSQL itself is told, for one that says nothing any more
UNSTORABLE = Refused(400, "unstorable", "The database refuses this body. Check it for unusual characters.")

# Counting stops at the bound, so that a long line is not read to its end every second.
BACKLOG = """
SELECT count(*) FROM (
    (SELECT 1 FROM webhooks_delivery WHERE state IN ('received', 'retrying') LIMIT %(bound)s)
    UNION ALL
    (SELECT 1 FROM webhooks_delivery WHERE outbox IS NOT NULL LIMIT %(bound)s)
) AS waiting
"""


class Ingest:
    """One per web process; `open` it before the first request."""

    def __init__(self) -> None:
        self.sandbox: bool = settings.SANDBOX
        self.signed: dict[str, tuple[SignedWebhook, tuple[str, ...]]] = {
            "oura": (OURA, settings.OURA_CLIENT_SECRETS),
            "whoop": (WHOOP, settings.WHOOP_CLIENT_SECRETS),
        }
        self.inbox = Inbox(
            max_rows=settings.MAX_QUEUED_WEBHOOKS,
            max_bytes=settings.MAX_QUEUED_BYTES,
            limit=settings.COMMIT_TIMEOUT,
        )
        self.keys = KeyRing(sandbox=self.sandbox, limit=settings.COMMIT_TIMEOUT)
        self.tally = metrics.Tally()
        # What is read has yet to be verified; it may be twice of what waits for a commit.
        self.reading = Reading(2 * settings.MAX_QUEUED_BYTES)
        self._counting = Line("backlog", statement_timeout="5s")
        self._background: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        await self.inbox.open()
        await self.keys.open()
        await self._counting.open()
        self._background = [
            asyncio.create_task(count_backlog(self._counting, self.inbox, settings.MAX_BACKLOG)),
            asyncio.create_task(self._write_down_forever()),
        ]

    async def close(self) -> None:
        await self.inbox.close()
        await self.keys.close()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._counting.close()
        self.write_down_metrics()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        vendor = scope["path"][len(PREFIX) :]
        try:
            given = await self._answer(vendor, scope, receive)
        except Refused as refused:
            given = self._refuse(vendor, refused)
        except Gone:
            return
        self.tally.answered(self._known(vendor), given[0], perf_counter() - started)
        await reply(send, given)

    def _known(self, vendor: str) -> str:
        return vendor if vendor in self.signed or vendor == "healthkit" else "unknown"

    def write_down_metrics(self) -> None:
        """Bring the metrics up to date: a few times a second, and before a page is made of them."""
        self.tally.write_down()
        metrics.QUEUED.set(self.inbox.rows)
        metrics.QUEUED_BYTES.set(self.inbox.bytes)

    async def _write_down_forever(self) -> None:
        while True:
            await asyncio.sleep(WRITE_DOWN_EVERY)
            self.write_down_metrics()

    def _refuse(self, vendor: str, refused: Refused) -> Answer:
        metrics.REFUSED.labels(self._known(vendor), refused.slug).inc()
        if refused.status == 503:
            return problem(refused, RETRY_AFTER)
        if refused.status in UNREAD:
            return problem(refused, (b"connection", b"close"))
        if refused.status == 405:
            return problem(refused, (b"allow", b"GET, POST" if vendor == "oura" else b"POST"))
        if refused.status == 401:
            return problem(refused, (b"www-authenticate", b"Bearer" if vendor == "healthkit" else b"Signature"))
        return problem(refused)

    async def _answer(self, vendor: str, scope: Scope, receive: Receive) -> Answer:
        if vendor not in self.signed and vendor != "healthkit":
            raise Refused(404, "unknown-vendor", "There are /webhooks/oura, /webhooks/whoop and /webhooks/healthkit.")
        if vendor == "oura" and scope["method"] == "GET":
            return handshake(scope)
        if scope["method"] != "POST":
            raise Refused(405, "wrong-method", "Webhooks are taken by POST.")
        headers = headers_of(scope)
        announcement, body = await self._verified(vendor, scope, receive, headers)
        return await self._store(vendor, announcement, body)

    async def _verified(
        self, vendor: str, scope: Scope, receive: Receive, headers: Mapping[str, str]
    ) -> tuple[Announcement, bytes]:
        if vendor == "healthkit":
            body = await self._body(scope, receive, headers, HEALTHKIT.body_limit)
            return await self._from_phone(headers, body), body
        webhook, secrets = self.signed[vendor]
        body = await self._body(scope, receive, headers, webhook.body_limit)
        if not (self.sandbox and from_loopback(scope) and webhook.is_unsigned(headers)):
            webhook.verify(headers, body, secrets=secrets, max_age=settings.WEBHOOK_MAX_AGE, now=time())
        return webhook.read(headers, body), body

    async def _body(self, scope: Scope, receive: Receive, headers: Mapping[str, str], limit: int) -> bytes:
        """The raw body, once size and type are right. A wrong type comes before "busy": no retry will mend it."""
        try:
            body = await read_body(scope, receive, headers.get("content-length", ""), limit, self.reading)
        except Refused as refused:
            if refused.status != 413:
                check_media_type(headers)
            raise
        check_media_type(headers)
        return body

    async def _from_phone(self, headers: Mapping[str, str], body: bytes) -> Announcement:
        digest = HEALTHKIT.key_digest(headers)
        try:
            caller = await self.keys.find(digest)
        except (psycopg.Error, TimeoutError):
            raise Refused(503, "unavailable", "The API key cannot be looked up right now. Try again.") from None
        if caller is None:
            raise Refused(401, "unauthorised", "The API key is unknown or revoked. Ask support for a new one.")
        return HEALTHKIT.read(headers, body, caller)

    async def _store(self, vendor: str, announcement: Announcement, body: bytes) -> Answer:
        row = Row(
            vendor,
            announcement.dedup_key,
            announcement.event_type,
            announcement.vendor_user_id,
            announcement.object_id,
            announcement.event_time,
            body,
            announcement.headers,
            same_body=announcement.idempotency_key,
        )
        try:
            receipt = await self.inbox.put(row)
        except Unavailable as error:
            raise Refused(503, "unavailable", f"{error} Nothing was stored: send it again.") from None
        except Unstorable:
            raise UNSTORABLE from None
        if receipt.other_body:
            raise Refused(
                422, "key-reused", "This Idempotency-Key came before with another body or patient. Use a new one."
            )
        if receipt.duplicate:
            metrics.DUPLICATES.labels(vendor).inc()
        return answer(202, {"delivery": receipt.id, "duplicate": receipt.duplicate})


def handshake(scope: Scope) -> Answer:
    """Oura asks, while a subscription is being created, whether this address is ours (vendors.md 1.1)."""
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    return answer(200, {"challenge": OURA.handshake(query, settings.OURA_VERIFICATION_TOKEN)})


def check_media_type(headers: Mapping[str, str]) -> None:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refused(415, "wrong-type", "Send Content-Type: application/json.")
    if "content-encoding" in headers:
        raise Refused(415, "wrong-type", "Send the body as it is, without Content-Encoding.")


async def count_backlog(line: Line, inbox: Inbox, bound: int) -> None:
    """Count what waits, once a second or in a twentieth of the time, and close the door at `bound`."""
    loop = asyncio.get_running_loop()
    pace = Pace(20, least=1.0, most=LONGEST_REST)
    while True:
        started = loop.time()
        try:
            inbox.backlogged = await _backlog(line, bound) >= bound
        except (psycopg.Error, TimeoutError) as error:
            logger.info("backlog not counted: %s", type(error).__name__)
        pace.took(loop.time() - started)
        await asyncio.sleep(pace.rest)


async def _backlog(line: Line, bound: int) -> int:
    async with asyncio.timeout(COUNT_TIMEOUT), line.use() as connection:
        row = await (await connection.execute(BACKLOG, {"bound": bound})).fetchone()
    waiting = int(row[0]) if row else 0
    metrics.BACKLOG.set(waiting)
    return waiting
