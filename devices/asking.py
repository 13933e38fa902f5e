"""Asking vendors for documents, once for all deliveries that one answer can serve."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from time import perf_counter

import msgspec
import psycopg
from prometheus_client import Counter, Histogram

from devices.api import Clock, LinkApi, VendorApi
from devices.breaker import State
from devices.remembered import HITS, Asked, Remembered
from devices.tokens import REUSED
from devices.vendors.client import Answer, Api, Ask

SAVED = Counter("auren_vendor_calls_saved", "Asks answered by another delivery's call", ["vendor"])
SLOT_SECONDS = Histogram(
    "auren_delivery_slot_seconds",
    "Wait for a slot in the worker",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)

EXPECT_WITHIN = 1.0  # seconds, for nothing is claimed meanwhile

Fetch = Callable[[Ask, Api], Awaitable[Answer]]


def nothing() -> None:
    """For those who need not know when their call has begun."""


class Asking:
    """Who may share a call: a delivery that was due before the call was sent, else an edit would be lost.

    `fetch` has each vendor's function of `devices.vendors.<vendor>.client`. At most `slots` asks are at the vendors at
    once, with all the calls that each of them takes; the others wait for their turn.
    """

    def __init__(
        self,
        apis: Mapping[str, VendorApi],
        fetch: Mapping[str, Fetch],
        clock: Clock,
        remembered: Remembered,
        *,
        slots: int,
    ) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._apis = apis
        self._fetch = fetch
        self._clock = clock
        self._remembered = remembered
        self._latest: dict[tuple[str, int, Ask], _Call] = {}
        self._tasks: set[asyncio.Task[Asked]] = set()
        for vendor in apis:  # at zero from the start: a rate needs the step from there
            for counter in (SAVED, HITS, REUSED):
                counter.labels(vendor)

    async def expect(self, links: Iterable[tuple[str, int]]) -> None:
        """Get the tokens of these links, given by vendor and id, ready: they are asked about in a moment.

        That it cannot be done now is no fault: whoever asks does it then. A vendor that keeps failing is left alone.
        """
        by_vendor: dict[str, set[int]] = {}
        for vendor, link_id in links:
            by_vendor.setdefault(vendor, set()).add(link_id)
        for vendor, link_ids in by_vendor.items():
            api = self._apis[vendor]
            if api.breaker.state is State.CLOSED:
                with suppress(psycopg.Error, TimeoutError):
                    async with asyncio.timeout(EXPECT_WITHIN):
                        await api.tokens.expect(link_ids)

    async def ask(
        self, vendor: str, link_id: int, ask: Ask, *, since: datetime, begun: Callable[[], None] = nothing
    ) -> Asked:
        """What the vendor says, or said after `since`: when the delivery came, or was due once more.

        `begun` is called when a call that waited for its turn has it. Raises an `ApiError`, or what psycopg raises when
        PostgreSQL is away. A cancelled waiter leaves the call to the others.
        """
        key = (vendor, link_id, ask)
        if not (call := self._under_way(key, since)):
            kept = await self._remembered.find(vendor, link_id, ask, since=since)
            if kept is not None:
                return kept
            call = self._under_way(key, since) or self._start(key)
        call.waiting.append(begun)
        return await asyncio.shield(call.task)

    async def close(self) -> None:
        """Cut off the calls that are still under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _under_way(self, key: tuple[str, int, Ask], since: datetime) -> "_Call | None":
        call = self._latest.get(key)
        if call is None or not call.serves(since):
            return None
        SAVED.labels(key[0]).inc()
        return call

    def _start(self, key: tuple[str, int, Ask]) -> "_Call":
        vendor, link_id, ask = key
        api = self._apis[vendor].for_link(link_id, background=ask.background)
        waiting: list[Callable[[], None]] = []
        running = self._run(vendor, link_id, api, ask, waiting)
        task = asyncio.create_task(running, name=f"{vendor} {ask.kind} of link {link_id}")
        call = self._latest[key] = _Call(api, task, waiting)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(key, call, done))
        return call

    async def _run(
        self, vendor: str, link_id: int, api: LinkApi, ask: Ask, waiting: Sequence[Callable[[], None]]
    ) -> Asked:
        waiting_since = perf_counter()
        async with self._slots:
            SLOT_SECONDS.observe(perf_counter() - waiting_since)
            for begun in waiting:
                begun()
            answer = await self._fetch[vendor](ask, api)
        asked = Asked(answer, api.sent_at or self._clock())
        await self._remembered.keep(link_id, ask, asked)
        return asked

    def _ended(self, key: tuple[str, int, Ask], call: "_Call", done: asyncio.Task[Asked]) -> None:
        self._tasks.discard(done)
        if self._latest.get(key) is call:
            del self._latest[key]
        if not done.cancelled():
            done.exception()  # its waiters may all have left


class _Call(msgspec.Struct, frozen=True, eq=False):
    api: LinkApi
    task: asyncio.Task[Asked]
    waiting: list[Callable[[], None]]

    def serves(self, since: datetime) -> bool:
        """A call that is not sent yet will be sent after anything that was due by now."""
        return self.api.sent_at is None or self.api.sent_at > since
