"""The worker: claims deliveries, asks vendors side by side, writes outcomes down in batches.

Three stages: claimed and waiting for a slot, being asked for (MAX_CONCURRENT_WEBHOOKS at once: devices.asking), and
waiting to be written. In all a worker holds six times as many. What is held is under lease all the while; what is not
finished in time on the way out is given back.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg

from auren.postgres import Line, connect
from webhooks import metrics
from webhooks.bell import Bell
from webhooks.claims import Claimed, claim, link_phones, release, renew
from webhooks.clock import DatabaseClock
from webhooks.inbox import CHANNEL
from webhooks.processing import Outcome, Processor
from webhooks.writing import RETRY_STORE, Writer

logger = logging.getLogger(__name__)

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

BACKGROUND_SHARE = 4  # of its slots a worker gives one to what can wait, so that a history never holds them all
CLAIMED_AT_LEAST = 4  # one in so many of what it may hold, or its hands are full enough: a claim costs as much for one
WRITERS = 2  # one computes while the other waits for PostgreSQL
FINISH_WITHIN = 6.0  # seconds for what is under way when the worker is told to stop; 10 in all
LOOK_UP = 0.5  # seconds until a worker with its hands full looks whether it is to stop


class Worker:
    """One process's worker. `processor` finds out what a delivery yields; everything written goes through here."""

    def __init__(
        self,
        processor: Processor,
        clock: DatabaseClock,
        *,
        slots: int,
        lease: float,
        poll: float,
        sandbox: bool,
        bell: Bell,
    ) -> None:
        self.processor = processor
        self.clock = clock
        self.room = 6 * slots  # so that each writer has a batch before it and one behind
        self.least_room = max(1, self.room // CLAIMED_AT_LEAST)
        self.background_room = max(1, slots // BACKGROUND_SHARE)
        self.lease = lease
        self.poll = poll
        self.sandbox = sandbox
        self.held: dict[int, Claimed] = {}
        self._claims = Line("worker claims")
        self._writers = [
            Writer(f"worker store {n}", clock, bell, let_go=self._let_go, busy=lambda: len(self.held) > slots)
            for n in range(WRITERS)
        ]
        self._wake = asyncio.Event()
        self._freed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then finish or release what is held within ten seconds."""
        await self._claims.open()
        for writer in self._writers:
            await writer.line.open()
        works = [self._listen, self._renew, *(writer.write_outcomes for writer in self._writers)]
        background = [asyncio.create_task(self._forever(each)) for each in works]
        try:
            await self._claim_until(stop)
            await self._finish()
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self._claims.close()
            for writer in self._writers:
                await writer.line.close()

    async def run_until_idle(self) -> None:
        """Process what is due now and return when nothing is left: for commands and tests."""
        stop = asyncio.Event()
        working = asyncio.create_task(self.run(stop))
        try:
            while not working.done() and not await self._idle():
                self._wake.set()
                await asyncio.sleep(0.02)
        finally:
            stop.set()
            self._wake.set()
            await working

    async def _idle(self) -> bool:
        if self.held or not self._claims.up:
            return False
        try:
            async with self._claims.use() as connection:
                row = await (await connection.execute(DUE)).fetchone()
        except psycopg.Error:
            return False
        return row == (0,) and not self.held

    async def _claim_until(self, stop: asyncio.Event) -> None:
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                if not await self._claim_some():
                    waits = [asyncio.create_task(self._wake.wait()), stopped]
                    await asyncio.wait(waits, timeout=self.poll, return_when=asyncio.FIRST_COMPLETED)
                    waits[0].cancel()
        finally:
            stopped.cancel()

    async def _claim_some(self) -> bool:
        """Claim as many as there is room for; whether it is worth trying again at once."""
        room = self.room - len(self.held)
        if room < self.least_room:
            self._freed.clear()
            try:
                await asyncio.wait_for(self._freed.wait(), min(self.poll, LOOK_UP))
            except TimeoutError:
                return False
            return True
        self._wake.clear()
        try:
            async with self._claims.use() as connection:
                claimed = await claim(connection, room, self.lease, self.clock, background=self._background())
                await link_phones(connection, claimed, sandbox=self.sandbox)
        except psycopg.Error as error:
            logger.warning("no claim: %s", type(error).__name__)
            await asyncio.sleep(RETRY_STORE)
            return False
        await self.processor.expect(claimed)
        for delivery in claimed:
            self._start(delivery)
        return bool(claimed)

    def _background(self) -> int:
        """Room for deliveries that can wait."""
        return max(0, self.background_room - sum(delivery.background for delivery in self.held.values()))

    def _start(self, delivery: Claimed) -> None:
        self.held[delivery.id] = delivery
        metrics.PROCESSING.set(len(self.held))
        task = asyncio.create_task(self._process(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _process(self, delivery: Claimed) -> None:
        outcome = await self.processor.process(delivery)
        self._writer_of(outcome).put(outcome)

    def _writer_of(self, outcome: Outcome) -> Writer:
        """A patient's outcomes go through one writer, so that no two of a worker's wait for one timeline."""
        delivery = outcome.delivery
        return self._writers[(delivery.link.patient_id if delivery.link else delivery.id) % WRITERS]

    async def _forever(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` again whatever ends it, short of cancellation: without it the worker would stand still."""
        while True:
            try:
                await work()
            except psycopg.Error as error:
                logger.warning("%s: %s", work.__name__, type(error).__name__)
            except Exception:
                logger.exception("%s", work.__name__)
            await asyncio.sleep(RETRY_STORE)

    async def _listen(self) -> None:
        connection = await connect("worker bell")
        try:
            await connection.execute(f"LISTEN {CHANNEL}")
            async for _ in connection.notifies():
                self._wake.set()
        finally:
            await connection.close()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self.lease / 3)
            if self.held:
                async with self._claims.use() as connection:
                    await renew(connection, self.held.values(), self.lease)

    def _let_go(self, batch: Sequence[Outcome]) -> None:
        """Make room. Nobody rings for what could wait, so whoever left some of it behind looks again."""
        if not self._background():
            self._wake.set()
        for outcome in batch:
            self.held.pop(outcome.delivery.id, None)
        metrics.PROCESSING.set(len(self.held))
        self._freed.set()

    async def _finish(self) -> None:
        """Let what is under way end; give back what does not in time."""
        try:
            async with asyncio.timeout(FINISH_WITHIN):
                while self.held:
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            logger.warning("giving back %d deliveries", len(self.held))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.held:
            await self._give_back()

    async def _give_back(self) -> None:
        try:
            async with asyncio.timeout(1.5), self._claims.use() as connection:
                await release(connection, self.held.values())
        except (psycopg.Error, TimeoutError):
            logger.warning("leases could not be given back: they run out within %g s", self.lease)
        self.held.clear()


DUE = "SELECT count(*) FROM webhooks_delivery WHERE state IN ('received', 'retrying') AND next_attempt_at <= now()"
