"""From a claimed delivery to its outcome: find out what it is about, ask the vendor, normalise. Stores nothing.

No database transaction is open in here, and no exception leaves `process`: whatever goes wrong is an outcome.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from time import perf_counter
from typing import Literal, Protocol

import msgspec
import psycopg

from devices.vendors.client import Answer, ApiError, Ask, Failed, LinkExpired, NotFound, Postponed, Rejected
from devices.vendors.normalised import Normalised
from devices.vendors.registry import VENDORS
from devices.vendors.times import to_text
from webhooks.claims import Claimed
from webhooks.clock import DatabaseClock

logger = logging.getLogger(__name__)

Kind = Literal["done", "ignored", "unlinked", "postponed", "missing", "failed", "dead"]

LARGE_BODY = 256 * 1024  # bytes from which on reading a document would hold up the loop: done in a thread
RECENT_PAGES = 20
FORGOTTEN = "the body has been deleted after its retention time"
LISTS = frozenset({"backfill", "poll", "reconcile"})  # origins of deliveries that ask for a list
FINAL = timedelta(microseconds=999_999)


class Window(msgspec.Struct, frozen=True):
    """The body of a delivery that asks for a list: a backfill, a poll or a reconciliation."""

    kind: str
    start_at: datetime
    end_at: datetime
    page_token: str = ""


class Outcome(msgspec.Struct):
    """How a try at a delivery ended, before anything of it is written.

    `started_at` is when its turn came: waiting for a slot is no part of a try. `sent_at` is PostgreSQL's time when the
    vendor was asked: the revision of documents that carry none. `document`
    is JSON text. `next_page` continues a list in a delivery of its own. `asked_kind` is the document type that the
    vendor was asked for.
    """

    delivery: Claimed
    kind: Kind
    started_at: datetime
    stage: str = "fetch"
    duration_ms: int = 0
    normalised: Normalised | None = None
    document: str | None = None
    sent_at: datetime | None = None
    reason: str = ""
    error_class: str = ""
    retry_after: float | None = None
    next_page: Window | None = None
    asked_kind: str = ""
    began: float = msgspec.field(default_factory=perf_counter)

    def begin(self, now: datetime) -> None:
        """Its turn has come now, by PostgreSQL's clock."""
        self.started_at, self.began = now, perf_counter()

    def end(self) -> None:
        self.duration_ms = round((perf_counter() - self.began) * 1000)


class Asked(Protocol):
    @property
    def answer(self) -> Answer: ...
    @property
    def sent_at(self) -> datetime: ...


class Asking(Protocol):
    """How a vendor is asked: see `devices.asking.Asking`."""

    async def expect(self, links: Iterable[tuple[str, int]]) -> None: ...

    async def ask(
        self, vendor: str, link_id: int, ask: Ask, *, since: datetime, begun: Callable[[], None]
    ) -> Asked: ...


class Processor:
    """Processes one delivery at a time for each caller; `recent_days` is the window of an announcement without id."""

    def __init__(self, asking: Asking, clock: DatabaseClock, *, recent_days: int) -> None:
        self.asking = asking
        self.clock = clock
        self.recent = timedelta(days=recent_days)
        self._turn = asyncio.Lock()

    async def expect(self, deliveries: Iterable[Claimed]) -> None:
        """These will be processed in a moment. Where a vendor will be asked, what that takes is read together."""
        links = {(each.vendor, each.link.id) for each in deliveries if each.link and will_ask(each)}
        if links:
            await self.asking.expect(links)

    async def process(self, delivery: Claimed) -> Outcome:
        """Raises nothing but cancellation."""
        outcome = Outcome(delivery, "done", self.clock.now())
        try:
            await self._process(delivery, outcome)
        except ApiError as error:
            explain(error, outcome)
        except psycopg.OperationalError as error:
            outcome.kind, outcome.reason = "postponed", f"PostgreSQL was away ({type(error).__name__})"
        except Exception as error:
            logger.exception("delivery %d", delivery.id)
            outcome.kind, outcome.error_class = "failed", type(error).__name__
            outcome.reason = "an unforeseen fault; the worker's log has the details"
        outcome.end()
        return outcome

    async def _process(self, delivery: Claimed, outcome: Outcome) -> None:
        if delivery.link is None:
            outcome.stage = "link"
            outcome.kind, outcome.reason = "unlinked", "no link for this vendor user yet"
        elif not delivery.link.usable:
            outcome.stage = "link"
            outcome.kind, outcome.reason = "unlinked", "the link is expired, revoked or paused"
        elif delivery.origin in LISTS:
            await self._process_window(delivery, outcome)
        elif delivery.vendor == "healthkit":
            await self._process_batch(delivery, outcome)
        else:
            await self._process_announcement(delivery, outcome)

    async def _process_batch(self, delivery: Claimed, outcome: Outcome) -> None:
        """HealthKit: the body is the document."""
        outcome.stage, outcome.asked_kind = "normalise", "batch"
        vendor = VENDORS["healthkit"]
        if delivery.body is None:
            outcome.kind, outcome.reason = "dead", FORGOTTEN
            return
        body, headers, zone = delivery.body, delivery.headers, self._zone(delivery)
        outcome.normalised = await self._in_turn(
            lambda: vendor.normalise("batch", vendor.document_of(body, headers), zone), size=len(body)
        )

    async def _process_announcement(self, delivery: Claimed, outcome: Outcome) -> None:
        vendor = VENDORS[delivery.vendor]
        interest = vendor.webhook.interest_in(delivery.event_type)
        if interest != "known":
            outcome.stage = "read"
            outcome.kind = "ignored"
            outcome.reason = (
                f"{delivery.event_type} is {'of no interest' if interest == 'ignored' else 'not a type we know'}"
            )
            return
        if vendor.is_v1_id(delivery.object_id):
            outcome.stage = "read"
            outcome.kind, outcome.reason = "ignored", "an id of the vendor's first API, which is gone"
            return
        withdrawn = vendor.withdrawn_by(delivery.event_type, delivery.object_id) if delivery.object_id else []
        if withdrawn:
            outcome.stage = "read"
            outcome.normalised = Normalised(withdrawn=withdrawn)
            return
        kind, verb = vendor.kind_and_verb(delivery.event_type)
        if verb in {"delete", "deleted"}:
            outcome.stage = "read"
            outcome.kind, outcome.reason = "ignored", "a deletion that names no object"
            return
        await self._ask(delivery, self._ask_for(delivery, kind), outcome)

    def _ask_for(self, delivery: Claimed, kind: str) -> Ask:
        if delivery.object_id:
            return Ask(kind, delivery.vendor_user_id, object_id=delivery.object_id)
        midnight = self.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        # Whole days, so that announcements that come close together share one call.
        start_at, end_at = midnight - self.recent, midnight + timedelta(days=1)
        return Ask(kind, delivery.vendor_user_id, start_at=start_at, end_at=end_at, pages=RECENT_PAGES)

    async def _process_window(self, delivery: Claimed, outcome: Outcome) -> None:
        """One page of the vendor's list; the next one becomes a delivery of its own."""
        if delivery.body is None:
            outcome.kind, outcome.reason = "dead", FORGOTTEN
            return
        window = msgspec.json.decode(delivery.body, type=Window)
        ask = Ask(
            window.kind,
            delivery.vendor_user_id,
            start_at=window.start_at,
            end_at=window.end_at,
            page_token=window.page_token,
            background=delivery.background,
        )
        answer = await self._ask(delivery, ask, outcome)
        if answer.next_page and answer.next_page != window.page_token:
            outcome.next_page = msgspec.structs.replace(window, page_token=answer.next_page)

    async def _ask(self, delivery: Claimed, ask: Ask, outcome: Outcome) -> Answer:
        assert delivery.link is not None, "`_process` has seen to it"
        asked = await self.asking.ask(
            *(delivery.vendor, delivery.link.id, ask),
            since=delivery.due_at,
            begun=lambda: outcome.begin(self.clock.now()),
        )
        document = dict(asked.answer.document)
        if ask.kind == "body_measurement":
            document["fetched_at"] = to_text(asked.sent_at)
        outcome.sent_at, outcome.asked_kind = asked.sent_at, ask.kind
        outcome.document = msgspec.json.encode(document).decode()
        vendor, zone = VENDORS[delivery.vendor], self._zone(delivery)
        outcome.normalised = await self._in_turn(
            lambda: vendor.normalise(ask.kind, document, zone), size=len(outcome.document)
        )
        return asked.answer

    async def _in_turn(self, work: Callable[[], Normalised], *, size: int) -> Normalised:
        """One document after another, and the loop has its turn in between: so what is done with is being written
        while the next is read, and a hundred bodies at once do not hold up the leases. A large one holds up nobody.
        """
        if size > LARGE_BODY:
            return await asyncio.to_thread(work)
        async with self._turn:
            normalised = work()
            await asyncio.sleep(0)
            return normalised

    @staticmethod
    def _zone(delivery: Claimed) -> str:
        return delivery.link.zone if delivery.link else "UTC"


def will_ask(delivery: Claimed) -> bool:
    """Whether processing it begins with a question to its vendor, as far as can be told without reading it."""
    if delivery.link is None or not delivery.link.usable or delivery.vendor == "healthkit":
        return False
    return delivery.origin in LISTS or VENDORS[delivery.vendor].webhook.interest_in(delivery.event_type) == "known"


def explain(error: ApiError, outcome: Outcome) -> None:
    """Turn what the vendor's API did into an outcome."""
    outcome.reason = str(error)
    outcome.error_class = getattr(error, "error_class", "") or type(error).__name__
    kinds: Mapping[type[ApiError], Kind] = {
        NotFound: "missing",
        Postponed: "postponed",
        Rejected: "dead",
        LinkExpired: "unlinked",
        Failed: "failed",
    }
    outcome.kind = kinds.get(type(error), "failed")
    if isinstance(error, Postponed):
        outcome.retry_after = error.seconds
    if isinstance(error, Failed):
        outcome.retry_after = error.retry_after


def withdrawn_at(delivery: Claimed, sent_at: datetime | None) -> datetime:
    """When a record was gone: at the fetch that showed it, else at the deletion's event time, else its receipt.

    A vendor that writes whole seconds means somewhere within that second.
    """
    if sent_at is not None or delivery.event_time is None:
        return sent_at or delivery.received_at
    return delivery.event_time + FINAL if delivery.event_time.microsecond == 0 else delivery.event_time
