"""Samples a second of one worker, beside a multi-VALUES upsert with RETURNING by SQLAlchemy, in turns.

Ours is the whole way: claim, parse, normalise, conflicts, outbox, states. Theirs is given finished rows, and only
writes them: a table of the same columns and key (not partitioned), a transaction for a thousand samples.
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

import psycopg
import sqlalchemy as sa
import uvloop
from django.conf import settings
from sqlalchemy.dialects.postgresql import insert

from auren.biometrics.metrics import BY_NAME
from auren.collecting import collect_seldom
from auren.postgres import connect
from bench.parts.phones import PATIENTS, PEOPLE, SAMPLES, Phones
from bench.parts.sizes import print_sizes
from bench.parts.telling import add_into, tell
from devices.vendors.registry import VENDORS
from webhooks.bell import Bell
from webhooks.clock import DatabaseClock
from webhooks.processing import Asking, Processor
from webhooks.worker import Worker

BATCH = 10  # deliveries of ours for one batch of theirs

TABLE = "CREATE TABLE IF NOT EXISTS replaced_sample (LIKE biometrics_sample INCLUDING DEFAULTS INCLUDING INDEXES)"
LEFT = "SELECT 1 FROM webhooks_delivery WHERE state IN ('received', 'retrying') LIMIT 1"
KEY = ("patient_id", "metric", "start_at", "source_id", "record")
CHANGED = ("end_at", "value", "utc_offset_minutes", "revised_at", "delivery_id")


class Unasked:
    """A phone's delivery carries its document: no vendor is asked."""


class Cost:
    """Wall time, this process's CPU time, and PostgreSQL's, all in seconds."""

    def __init__(self, database: psycopg.Connection[Any]) -> None:
        row = database.execute("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)::int").fetchone()
        self.postmaster = int(row[0]) if row else 0
        self.begin()

    def begin(self) -> None:
        self._began = self._now()

    def taken(self) -> tuple[float, float, float]:
        wall, ours, server = (now - before for now, before in zip(self._now(), self._began, strict=True))
        return wall, ours, server

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), self._server()

    def _server(self) -> float:
        """CPU time of the postmaster, of those it has outlived, and of those that are there."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(path.parent.name) == self.postmaster:
                ticks += sum(int(field) for field in fields[11:15])
            elif int(fields[1]) == self.postmaster:
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def one_worker() -> Worker:
    """As `manage.py process_deliveries` makes it, garbage collector included."""
    collect_seldom()
    clock = DatabaseClock()
    return Worker(
        Processor(cast(Asking, Unasked()), clock, recent_days=settings.RECENT_DAYS),
        clock,
        slots=settings.MAX_CONCURRENT_WEBHOOKS,
        lease=settings.DELIVERY_LEASE,
        poll=settings.POLL_INTERVAL,
        sandbox=False,
        bell=Bell(None),
    )


async def work(more: Iterable[None] = ()) -> None:
    """One worker until nothing is left to store and there is no `more`."""
    stop = asyncio.Event()
    working = asyncio.create_task(one_worker().run(stop))
    async with await connect("bench") as watching:
        for _ in chain([None], more):
            while await (await watching.execute(LEFT)).fetchone() is not None:
                await asyncio.sleep(0.1)
    stop.set()
    await working


def rows_of(phones: Phones) -> list[dict[str, Any]]:
    """What a body's thousand samples are to the replaced system: finished rows."""
    who, body = phones.body()
    vendor = VENDORS["healthkit"]
    sources = {"Apple Watch": 1, "iPhone": 2}
    return [
        {
            "patient_id": int(who.removeprefix("bench_")),
            "metric": BY_NAME[sample.metric].number,
            "start_at": sample.start_at,
            "end_at": sample.end_at,
            "source_id": sources[sample.source],
            "record": sample.record,
            "value": sample.value,
            "utc_offset_minutes": sample.utc_offset_minutes,
            "revised_at": sample.end_at,
            "delivery_id": phones.number,
        }
        for sample in vendor.normalise("batch", vendor.document_of(body, None)).samples
    ]


def upsert(engine: sa.Engine, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    statement = insert(table).values(list(rows))
    changes = {name: statement.excluded[name] for name in CHANGED}
    statement = statement.on_conflict_do_update(index_elements=KEY, set_=changes)
    with engine.begin() as transaction:
        stored = transaction.execute(statement.returning(table.c.id, table.c.record)).fetchall()
    assert len(stored) == len(rows)


def say(label: str, rate: float, cost: tuple[float, float, float], samples: int) -> None:
    each = [1e6 * seconds / samples for seconds in cost]
    print(
        f"  {label:10} {rate:8,.0f} samples/s   a sample: {each[0]:.1f} us of time,"
        f" {each[1]:.1f} us CPU of Python, {each[2]:.1f} us CPU of PostgreSQL",
        flush=True,
    )


def summary(label: str, rates: Sequence[float]) -> None:
    print(f"  {label:10} median {statistics.median(rates):,.0f}/s, from {min(rates):,.0f} to {max(rates):,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.parts.storing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--deliveries", type=int, default=200, help="a round, and a tenth as many batches of theirs (200)"
    )
    add_into(parser)
    options = parser.parse_args()
    with psycopg.connect(settings.DATABASE_URL, autocommit=True) as database:
        ours, theirs = measure(database, options.rounds, options.deliveries)
        check(database, (options.rounds + 1) * options.deliveries)
        database.execute("VACUUM ANALYZE")
    summary("one worker", ours)
    summary("SQLAlchemy", theirs)
    ratios = [mine / their for mine, their in zip(ours, theirs, strict=True)]
    print(f"  ratio      median {statistics.median(ratios):.1f}, from {min(ratios):.1f} to {max(ratios):.1f}")
    print_sizes()
    tell(options.into, {"one worker": ours, "SQLAlchemy": theirs})


def measure(database: psycopg.Connection[Any], rounds: int, deliveries: int) -> tuple[list[float], list[float]]:
    """Samples a second of ours and of theirs, round by round. One before the first warms up."""
    phones, others = Phones(), Phones()
    engine = sa.create_engine(settings.DATABASE_URL.replace("postgresql:", "postgresql+psycopg:"))
    ours: list[float] = []
    theirs: list[float] = []
    database.execute(PATIENTS, [PEOPLE])
    database.execute(TABLE)
    table = sa.Table("replaced_sample", sa.MetaData(), autoload_with=engine)
    cost = Cost(database)
    for number in range(-1, rounds):
        phones.post(database, deliveries)
        cost.begin()
        uvloop.run(work())
        taken = cost.taken()
        batches = [rows_of(others) for _ in range(max(1, deliveries // BATCH))]
        cost.begin()
        for rows in batches:
            upsert(engine, table, rows)
        taken_by_them = cost.taken()
        if number < 0:
            continue
        ours.append(deliveries * SAMPLES / taken[0])
        theirs.append(len(batches) * SAMPLES / taken_by_them[0])
        say("one worker", ours[-1], taken, deliveries * SAMPLES)
        say("SQLAlchemy", theirs[-1], taken_by_them, len(batches) * SAMPLES)
    return ours, theirs


def check(database: psycopg.Connection[Any], deliveries: int) -> None:
    """That all of it was really stored."""
    counts = "SELECT count(*), sum(sample_count) FROM webhooks_delivery WHERE state = 'stored' AND outbox IS NOT NULL"
    assert database.execute(counts).fetchone() == (deliveries, deliveries * SAMPLES)
    assert database.execute("SELECT count(*) FROM biometrics_sample").fetchone() == (deliveries * SAMPLES,)
    row = database.execute("SELECT count(*) FROM biometrics_conflict").fetchone()
    print(f"  all {deliveries * SAMPLES:,} samples are there, and {row[0] if row else 0:,} conflicts")


if __name__ == "__main__":
    main()
