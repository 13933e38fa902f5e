"""Group commit: many waiting webhooks in one INSERT, each answered only after the commit.

Every committer owns one connection and takes whatever is waiting the moment it is free: under light load a batch
is one row, under heavy load hundreds, and nobody waits for a batch to fill.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from time import perf_counter
from typing import Any

import msgspec
import psycopg

from auren.postgres import RECONNECT_EVERY, Connection, Line
from webhooks import metrics

logger = logging.getLogger(__name__)

BATCH_ROWS = 500
BATCH_BYTES = 8 * 1024 * 1024
CHANNEL = "deliveries"
NOTIFY_EVERY = 0.05  # seconds
NOTIFY_TIMEOUT = 2  # seconds
LOOK_EVERY = 0.02  # seconds between looks for webhooks that have waited too long

# `ON CONFLICT DO NOTHING` returns nothing for keys already there, and cannot see a double that another session is
# committing at this moment: KNOWN asks for those in a statement, and so a snapshot, of its own.
INSERT = """
INSERT INTO webhooks_delivery
    (vendor, dedup_key, event_type, vendor_user_id, object_id, event_time, body, headers, received_at)
SELECT vendor, dedup_key, event_type, vendor_user_id, object_id, event_time, body, headers, clock_timestamp()
FROM ROWS FROM (
    json_to_recordset(%s::json) AS (
        vendor text, dedup_key text, event_type text, vendor_user_id text, object_id text, event_time timestamptz,
        headers jsonb
    ),
    unnest(%b::bytea[])
) AS given (vendor, dedup_key, event_type, vendor_user_id, object_id, event_time, headers, body)
ON CONFLICT (vendor, dedup_key) DO NOTHING
RETURNING vendor, dedup_key, id
"""
KNOWN = """
SELECT d.vendor, d.dedup_key, d.id,
       d.vendor_user_id = given.vendor_user_id AND (d.body IS NULL OR d.body = given.body)
FROM unnest(%b::text[], %b::text[], %b::text[], %b::bytea[]) AS given (vendor, dedup_key, vendor_user_id, body)
JOIN webhooks_delivery d USING (vendor, dedup_key)
"""


class Row(msgspec.Struct, frozen=True):
    """A webhook as it will stand in `webhooks_delivery`.

    `same_body`: a repeat with another body, or about another user, is a mistake (422).
    """

    vendor: str
    dedup_key: str
    event_type: str
    vendor_user_id: str
    object_id: str
    event_time: datetime | None
    body: bytes
    headers: dict[str, str] | None
    same_body: bool = False

    @property
    def key(self) -> tuple[str, str]:
        return self.vendor, self.dedup_key

    def repeats(self, other: "Row") -> bool:
        return (self.vendor_user_id, self.body) == (other.vendor_user_id, other.body)


class Receipt(msgspec.Struct, frozen=True):
    """The promise: delivery `id` is committed. `other_body`: the key was there before, with another body or user."""

    id: int
    duplicate: bool
    other_body: bool = False


class Unavailable(Exception):
    """Nothing is promised: the line is full, PostgreSQL is away, or its answer was lost. A retry is safe."""


class Unstorable(Exception):
    """PostgreSQL refuses this very row; its neighbours are stored."""


class Waiting:
    """One webhook in the line, the future its request waits on, and when that is over (loop time)."""

    __slots__ = ("deadline", "promise", "row")

    def __init__(self, row: Row, promise: asyncio.Future[Receipt], deadline: float) -> None:
        self.row = row
        self.promise = promise
        self.deadline = deadline

    def resolve(self, receipt: Receipt) -> None:
        if not self.promise.done():
            self.promise.set_result(receipt)

    def fail(self, error: Exception) -> None:
        if not self.promise.done():
            self.promise.set_exception(error)


class Inbox:
    """The line in front of the commit, with both its bounds.

    `limit` is the longest wait for a commit in seconds, kept under one second; `committers` is how many
    connections commit side by side.
    """

    def __init__(self, *, max_rows: int, max_bytes: int, limit: float, committers: int = 1) -> None:
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self.limit = limit
        self.rows = 0
        self.bytes = 0
        self.backlogged = False
        self._away = False  # no connection, and a try at a new one has failed: who comes is refused at once
        self._line: deque[Waiting] = deque()
        self._deadlines: deque[Waiting] = deque()
        self._wake = asyncio.Event()
        timeout = f"{int(limit * 1000)}ms"
        self._lines = [Line(f"inbox {n}", statement_timeout=timeout) for n in range(committers)]
        self._bell = Bell()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect and start committing. Raises `psycopg.OperationalError` when PostgreSQL is away."""
        for line in self._lines:
            await line.open()
        await self._bell.open()
        self._tasks = [asyncio.create_task(self._commit_forever(line)) for line in self._lines]
        self._tasks += [asyncio.create_task(self._bell.run()), asyncio.create_task(self._keep_deadlines())]

    async def close(self) -> None:
        """Commit what is waiting, for as long as one commit may take, and let go."""
        try:
            async with asyncio.timeout(self.limit):
                while self.rows:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            logger.warning("closing with %d webhooks unanswered", self.rows)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._away = True
        self._fail_all("The process is stopping.")
        for line in self._lines:
            await line.close()
        await self._bell.close()

    def room_for(self, size: int) -> bool:
        return not self.backlogged and self.rows < self.max_rows and self.bytes + size <= self.max_bytes

    async def put(self, row: Row) -> Receipt:
        """Store `row` and return after the commit. Raises `Unavailable` or `Unstorable`."""
        size = len(row.body)
        if not self.room_for(size):
            raise Unavailable("The waiting line is full.")
        if self._away and not any(line.up for line in self._lines):
            raise Unavailable("PostgreSQL is away.")
        self._away = False
        loop = asyncio.get_running_loop()
        waiting = Waiting(row, loop.create_future(), loop.time() + self.limit)
        self.rows += 1
        self.bytes += size
        self._line.append(waiting)
        self._deadlines.append(waiting)
        self._wake.set()
        try:
            return await waiting.promise
        finally:
            self.rows -= 1
            self.bytes -= size

    async def _keep_deadlines(self) -> None:
        """All wait equally long, so the oldest is always first: one look for all is cheaper than a timer each."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            while self._deadlines and (self._deadlines[0].promise.done() or self._deadlines[0].deadline <= loop.time()):
                self._deadlines.popleft().fail(Unavailable("PostgreSQL did not commit in time."))

    async def _commit_forever(self, line: Line) -> None:
        while True:
            await self._wake.wait()
            if not await line.back(within=RECONNECT_EVERY):
                if not any(each.up for each in self._lines):
                    self._away = True
                    self._fail_all("PostgreSQL is away.")
                continue
            batch = self._take()
            if batch:
                await self._settle(line, batch)

    def _fail_all(self, why: str) -> None:
        while self._line:
            self._line.popleft().fail(Unavailable(why))
        self._wake.clear()

    def _take(self) -> list[Waiting]:
        """What is waiting now, up to a batch. A waiter that left is skipped: nothing was promised to it."""
        batch: list[Waiting] = []
        size = 0
        while self._line and len(batch) < BATCH_ROWS and size < BATCH_BYTES:
            waiting = self._line.popleft()
            if not waiting.promise.done():
                batch.append(waiting)
                size += len(waiting.row.body)
        if not self._line:
            self._wake.clear()
        return batch

    async def _settle(self, line: Line, batch: list[Waiting]) -> None:
        """Commit one batch and tell every waiter. Whatever happens, nobody is left without an answer.

        PostgreSQL keeps `limit` itself; one that says nothing any more is left after twice that, connection and all.
        A connection that broke may have done so long ago, when PostgreSQL was started anew: the batch is tried on
        another until its waiters' time is over. If it was committed and only the answer lost, its keys are found.
        """
        broke = False
        try:
            async with asyncio.timeout(2 * self.limit), line.use() as connection:
                await self._store(connection, batch)
        except (psycopg.Error, TimeoutError) as error:
            logger.warning("%d webhooks not committed: %s", len(batch), type(error).__name__)
            broke = not line.up
        except Exception:  # a committer outlives whatever one batch holds
            logger.exception("%d webhooks not committed", len(batch))
        finally:
            if broke:
                self._line.extendleft(reversed(batch))
                self._wake.set()
            else:
                for waiting in batch:
                    waiting.fail(Unavailable("PostgreSQL is away, or its answer was lost."))

    async def _store(self, connection: Connection, batch: Sequence[Waiting]) -> None:
        """Commit, halving the batch around a row that PostgreSQL refuses."""
        try:
            receipts = await commit(connection, [waiting.row for waiting in batch])
        except (psycopg.DataError, psycopg.IntegrityError, UnicodeError) as error:
            if len(batch) == 1:
                logger.warning("a webhook cannot be stored: %s", type(error).__name__)
                batch[0].fail(Unstorable("The database refuses this body."))
                return
            middle = len(batch) // 2
            await self._store(connection, batch[:middle])
            await self._store(connection, batch[middle:])
            return
        self._bell.ring()
        for waiting, receipt in zip(batch, receipts, strict=True):
            waiting.resolve(receipt)


async def commit(connection: Connection, rows: Sequence[Row]) -> list[Receipt]:
    """Store `rows` in one transaction; receipts come in their order. Doubles within `rows` are merged."""
    started = perf_counter()
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        first.setdefault(row.key, row)
    # Sorted, because two sessions inserting the same keys in different orders deadlock.
    ordered = [first[key] for key in sorted(first)]
    new = {(vendor, key): id_ for vendor, key, id_ in await _insert(connection, ordered)}
    known = await _known(connection, [row for row in ordered if row.key not in new])
    metrics.COMMITS.inc()
    metrics.COMMITTED.inc(len(ordered))
    metrics.COMMIT_SECONDS.observe(perf_counter() - started)
    return [_receipt(row, first[row.key], new, known) for row in rows]


async def _insert(connection: Connection, rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    named = [
        {
            "vendor": row.vendor,
            "dedup_key": row.dedup_key,
            "event_type": row.event_type,
            "vendor_user_id": row.vendor_user_id,
            "object_id": row.object_id,
            "event_time": row.event_time,
            "headers": row.headers or None,
        }
        for row in rows
    ]
    given = [msgspec.json.encode(named).decode(), [row.body for row in rows]]
    cursor = await connection.execute(INSERT, given, binary=True)
    return await cursor.fetchall()


async def _known(connection: Connection, rows: Sequence[Row]) -> dict[tuple[str, str], tuple[int, bool]]:
    """Id and whether user and body are the same, for keys that were there before."""
    if not rows:
        return {}
    columns = (
        [row.vendor for row in rows],
        [row.dedup_key for row in rows],
        [row.vendor_user_id for row in rows],
        [row.body for row in rows],
    )
    cursor = await connection.execute(KNOWN, columns, binary=True)
    return {(vendor, key): (id_, same) for vendor, key, id_, same in await cursor.fetchall()}


def _receipt(
    row: Row, first: Row, new: dict[tuple[str, str], int], known: dict[tuple[str, str], tuple[int, bool]]
) -> Receipt:
    if row.key in new:
        if row is first:
            return Receipt(new[row.key], duplicate=False)
        return Receipt(new[row.key], duplicate=True, other_body=row.same_body and not row.repeats(first))
    id_, same = known[row.key]
    if row is not first:
        same = same and row.repeats(first)
    return Receipt(id_, duplicate=True, other_body=row.same_body and not same)


class Bell:
    """Tells workers that something has come: at most one NOTIFY every 50 ms, after the commit, best effort.

    NOTIFY takes a lock at commit that serialises commits, so it has a connection of its own. Workers poll as well.
    """

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._line = Line("inbox bell", statement_timeout="1s")

    def ring(self) -> None:
        self._rung.set()

    async def open(self) -> None:
        await self._line.open()

    async def close(self) -> None:
        await self._line.close()

    async def run(self) -> None:
        while True:
            await self._rung.wait()
            self._rung.clear()
            try:
                async with asyncio.timeout(NOTIFY_TIMEOUT), self._line.use() as connection:
                    await connection.execute(f"NOTIFY {CHANNEL}")
            except (psycopg.Error, TimeoutError) as error:
                logger.info("no NOTIFY: %s", type(error).__name__)
            await asyncio.sleep(NOTIFY_EVERY)
