"""Deliveries a second that one worker takes and writes down as done, beside others that do the same, in turns.

What waits first are announcements of a kind of no interest: a look says so, no vendor is asked, nothing is stored. What
is left is taking the work and writing down how it ended.

    the worker           as it runs: finds out whose each is, locks that patient's timeline, leaves an attempt
    the same, one each   its own statements and code, for one delivery after another
    a simple queue       takes one, looks, leaves the same rows, in one transaction each; no lease and no lock
    procrastinate        its worker, jobs side by side; a job needs only the look, and leaves rows of its own

Then batches of a phone, ten heart rates each, that have to be stored: the worker writes many in a transaction, its code
for one each and a job of procrastinate's one. The job stores by the same code, and writes no messages for Kafka.

Last the claims alone, by the worker's statement: as many at once as a worker has room for, beside one each.

Each side finds a fresh queue in which more is waiting than it can do, works for so many seconds, and is stopped. The
time is from its start, connecting included, to its end; what it was doing then is finished, and counts.
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import psycopg
import uvloop
from django.conf import settings

from auren.biometrics.store import SESSION
from auren.postgres import connect
from bench.parts.storing import one_worker
from bench.parts.telling import add_into, tell
from bench.parts.waiting import JOBS, Announcements, Batches, Waiting, look_at, make_people
from bench.rivals import simple_queue
from bench.verifying import one
from webhooks.claims import claim
from webhooks.clock import DatabaseClock
from webhooks.storing import Storer

WARM_UP = 0.5  # seconds

BEGUN = "SELECT count(*) FROM webhooks_delivery WHERE state <> 'received' OR lease_token IS NOT NULL"
CLAIMED = "SELECT count(*) FROM webhooks_delivery WHERE lease_until > now()"
SUCCEEDED = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
STARTED = "SELECT count(*) FROM procrastinate_jobs WHERE status <> 'todo'"
STORED = "SELECT count(*) FROM biometrics_sample"

Database = psycopg.Connection[Any]


class Side(Protocol):
    waiting: Waiting

    def file(self, database: Database, count: int) -> None:
        """Empty its tables, and have `count` wait in them."""

    def work(self, seconds: float) -> None: ...

    def finished(self, database: Database) -> int:
        """How many it has done. None may be half done."""


class Deliveries:
    """A side that works on `webhooks_delivery`."""

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting

    def file(self, database: Database, count: int) -> None:
        database.execute("TRUNCATE webhooks_delivery, webhooks_attempt")
        self.waiting.file(database, count)
        database.execute("VACUUM ANALYZE webhooks_delivery, webhooks_attempt")

    def finished(self, database: Database) -> int:
        return same(database, self.waiting.finished, BEGUN)


class TheWorker(Deliveries):
    def work(self, seconds: float) -> None:
        uvloop.run(run_worker(seconds))


class OneEach(Deliveries):
    def work(self, seconds: float) -> None:
        uvloop.run(run_one_each(seconds))


class SimpleQueue(Deliveries):
    def work(self, seconds: float) -> None:
        simple_queue.work(settings.DATABASE_URL, look_at, seconds)


class ClaimsAlone(Deliveries):
    def __init__(self, at_once: int) -> None:
        super().__init__(Announcements())
        self.at_once = at_once

    def work(self, seconds: float) -> None:
        uvloop.run(claim_only(self.at_once, seconds))

    def finished(self, database: Database) -> int:
        return same(database, CLAIMED, BEGUN)


class Procrastinate:
    def __init__(self, waiting: Waiting) -> None:
        from bench.rivals.procrastinate_jobs import Queue  # noqa: PLC0415 - installed for `make bench-sides` only

        self.waiting = waiting
        self.queue = Queue(settings.DATABASE_URL, JOBS)
        self.samples = 0
        uvloop.run(self.queue.make())

    def file(self, database: Database, count: int) -> None:
        database.execute("TRUNCATE procrastinate_jobs, procrastinate_events CASCADE")
        uvloop.run(self.queue.defer(self.waiting.jobs(count)))
        database.execute("VACUUM ANALYZE procrastinate_jobs, procrastinate_events")
        self.samples = int(one(database, STORED)[0])

    def work(self, seconds: float) -> None:
        uvloop.run(self._work(seconds))

    async def _work(self, seconds: float) -> None:
        async with self.waiting.doing() as take:
            await self.queue.work(take, seconds)

    def finished(self, database: Database) -> int:
        finished = same(database, SUCCEEDED, STARTED)
        stored = int(one(database, STORED)[0]) - self.samples
        assert stored == finished * self.waiting.samples, f"{stored} samples of {finished} jobs"
        return finished


ANNOUNCEMENTS, BATCHES = Announcements(), Batches()  # one for all sides: what one has stored is no news to another
SIDES: dict[str, Callable[[], Side]] = {
    "the worker": lambda: TheWorker(ANNOUNCEMENTS),
    "the same, one each": lambda: OneEach(ANNOUNCEMENTS),
    "a simple queue": lambda: SimpleQueue(ANNOUNCEMENTS),
    "procrastinate": lambda: Procrastinate(ANNOUNCEMENTS),
    "the worker, storing": lambda: TheWorker(BATCHES),
    "the same, one each, storing": lambda: OneEach(BATCHES),
    "procrastinate, storing": lambda: Procrastinate(BATCHES),
    "claims alone": lambda: ClaimsAlone(one_worker().room),
    "claims alone, one each": lambda: ClaimsAlone(1),
}


def same(database: Database, *counts: str) -> int:
    """How many all of these queries count."""
    found = {int(one(database, each)[0]) for each in counts}
    assert len(found) == 1, f"begun and not finished: {found}"
    return found.pop()


async def run_worker(seconds: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    await one_worker().run(stop)


async def run_one_each(seconds: float) -> None:
    worker = one_worker()
    storer = Storer(worker.clock)
    async with await connect("bench claims") as claims, await connect("bench store", **SESSION) as writes:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for delivery in await claim(claims, 1, worker.lease, worker.clock):
                await storer.write(writes, [await worker.processor.process(delivery)])


async def claim_only(at_once: int, seconds: float) -> None:
    clock = DatabaseClock()
    async with await connect("bench") as connection:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await claim(connection, at_once, 60, clock)


def rate(side: Side, database: Database, seconds: float) -> float:
    waiting = round(side.waiting.most * seconds)
    side.file(database, waiting)
    database.execute("CHECKPOINT")
    started = time.perf_counter()
    side.work(seconds)
    taken = time.perf_counter() - started
    finished = side.finished(database)
    assert 0 < finished < waiting, f"{finished} of {waiting} were done before the time was over: raise `most` of it"
    return finished / taken


def measure(database: Database, names: Sequence[str], rounds: int, seconds: float) -> dict[str, list[float]]:
    sides = {name: SIDES[name]() for name in names}
    for side in sides.values():
        rate(side, database, WARM_UP)
    rates: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name, side in sides.items():
            rates[name].append(rate(side, database, seconds))
            print(f"  {number + 1}: {name:33} {rates[name][-1]:8,.0f}/s", flush=True)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.parts.claiming", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3, help="of each round (3)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", choices=list(SIDES), action="append", help="one of them; may be given again")
    add_into(parser)
    options = parser.parse_args()
    with psycopg.connect(settings.DATABASE_URL, autocommit=True) as database:
        make_people(database)
        rates = measure(database, options.side or list(SIDES), options.rounds, options.seconds)
    tell(options.into, rates)


if __name__ == "__main__":
    main()
