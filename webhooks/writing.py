"""Outcomes on their way into PostgreSQL: gathered into batches, written however long it is away, and around what it
refuses.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter
from typing import TypeGuard

import psycopg

from auren.biometrics.store import SESSION
from auren.postgres import Line
from devices.vendors.normalised import Normalised
from webhooks import metrics
from webhooks.bell import Bell
from webhooks.clock import DatabaseClock
from webhooks.processing import Outcome
from webhooks.storing import Storer

logger = logging.getLogger(__name__)

BATCH_DELIVERIES = 100
BATCH_SAMPLES = 20_000
RETRY_STORE = 0.3  # seconds
# A transaction costs as much for one delivery as for several. Where more are held than can be asked for at once, nobody
# is kept waiting by gathering so many, or whatever comes in so long.
GATHERED = 20
GATHER_SECONDS = 0.05


class Writer:
    """One connection, and what waits for it: as much as the worker holds at most.

    `let_go` hears of every batch that needs no more of this worker, written or not; `busy` says that more is held than
    can be asked for at once.
    """

    def __init__(
        self,
        name: str,
        clock: DatabaseClock,
        bell: Bell,
        *,
        let_go: Callable[[Sequence[Outcome]], None],
        busy: Callable[[], bool],
    ) -> None:
        self.clock = clock
        self.bell = bell
        self.let_go = let_go
        self.busy = busy
        self.storer = Storer(clock)
        self.line = Line(name, **SESSION)
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self._enough = asyncio.Event()

    def put(self, outcome: Outcome) -> None:
        self._outcomes.put_nowait(outcome)
        if self._outcomes.qsize() >= GATHERED:
            self._enough.set()

    async def write_outcomes(self) -> None:
        """Without end: whatever has come while the last batch was written is the next one."""
        while True:
            batch = [await self._outcomes.get()]
            if self._outcomes.qsize() < GATHERED and self.busy():
                await self._gather()
            samples = _size(batch[0])
            while not self._outcomes.empty() and len(batch) < BATCH_DELIVERIES and samples < BATCH_SAMPLES:
                batch.append(self._outcomes.get_nowait())
                samples += _size(batch[-1])
            try:
                await self._write(batch)
            finally:
                self.let_go(batch)

    async def _gather(self) -> None:
        self._enough.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._enough.wait(), GATHER_SECONDS)

    async def _write(self, batch: Sequence[Outcome]) -> None:
        """Write a batch, however long PostgreSQL is away; around a row that it refuses, halve."""
        while True:
            try:
                await self._write_once(batch)
            except (psycopg.Error, KeyError, ValueError) as error:
                if not passes(error):
                    await self._halve(batch, error)
                    return
                logger.warning(
                    "%d outcomes not written yet: %s %s", len(batch), type(error).__name__, error.diag.message_primary
                )
                await asyncio.sleep(RETRY_STORE)
            else:
                return

    async def _write_once(self, batch: Sequence[Outcome]) -> None:
        started = perf_counter()
        async with self.line.use() as connection:
            written = await self.storer.write(connection, batch)
        metrics.STORE_SECONDS.observe(perf_counter() - started)
        done = [outcome for outcome in batch if outcome.delivery.id in written]
        self._count(done)
        await self.bell.ring({outcome.delivery.link.patient_id for outcome in done if outcome.delivery.link})

    async def _halve(self, batch: Sequence[Outcome], error: Exception) -> None:
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._write(batch[:middle])
            await self._write(batch[middle:])
            return
        outcome = batch[0]
        if outcome.error_class == "unstorable":
            logger.error("delivery %d cannot be written down at all", outcome.delivery.id, exc_info=error)
            return
        logger.warning("delivery %d cannot be stored", outcome.delivery.id, exc_info=error)
        outcome.kind, outcome.stage, outcome.error_class = "failed", "store", "unstorable"
        outcome.reason = f"the database refuses what it yields ({type(error).__name__})"
        outcome.normalised, outcome.document = Normalised(), None
        await self._write([outcome])

    def _count(self, written: Sequence[Outcome]) -> None:
        now = self.clock.now()
        for outcome in written:
            vendor = outcome.delivery.vendor
            metrics.PROCESSED.labels(vendor, outcome.kind).inc()
            if outcome.normalised is not None:
                metrics.SAMPLES.labels(vendor).inc(len(outcome.normalised.samples))
                metrics.SAMPLES_REFUSED.labels(vendor).inc(len(outcome.normalised.refused))
            if outcome.kind == "done":
                seconds = (now - outcome.delivery.received_at).total_seconds()
                metrics.STORED_SECONDS.labels(vendor).observe(max(seconds, 0.0))


# Classes of SQLSTATE that say nothing about the rows: the connection, the transaction, room, an operator, the system.
PASSING = ("08", "25", "40", "53", "55", "57", "58")


def passes(error: Exception) -> TypeGuard[psycopg.Error]:
    """Whether the same rows may be taken another time: PostgreSQL was away (no SQLSTATE) or in trouble of its own."""
    if not isinstance(error, psycopg.Error):
        return False
    return (error.sqlstate or PASSING[0]).startswith(PASSING)


def _size(outcome: Outcome) -> int:
    return len(outcome.normalised.samples) if outcome.normalised else 0
