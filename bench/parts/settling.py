"""How long settling takes of a batch of a thousand samples, within a store transaction: two sources that disagree.

The patient has a history of the same kind: sixty bodies before the ones that are measured.
"""

import argparse
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import psycopg
import uvloop
from django.conf import settings

from auren.biometrics import store
from auren.biometrics.conflicts import Change, Touched, settle
from bench.parts.phones import PATIENTS, PEOPLE, SAMPLES, Phones
from bench.parts.storing import work
from bench.parts.telling import add_into, tell

HISTORY, MEASURED = 3 * PEOPLE, 45
UNPLANNED = 5  # the first ones plan their statements
TAKEN: list[float] = []


async def timed(connection: store.Connection, touched: Iterable[Touched], zones: Mapping[int, str]) -> list[Change]:
    started = time.perf_counter()
    changes = await settle(connection, touched, zones)
    TAKEN.append((time.perf_counter() - started) * 1000)
    return changes


def filed(database: psycopg.Connection[Any], phones: Phones) -> Iterator[None]:
    """One delivery after another, so that each is a batch by itself."""
    for _ in range(MEASURED):
        phones.post(database, 1)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.parts.settling", description=__doc__)
    add_into(parser)
    options = parser.parse_args()
    phones = Phones()
    with psycopg.connect(settings.DATABASE_URL, autocommit=True) as database:
        database.execute(PATIENTS, [PEOPLE])
        phones.post(database, HISTORY)
        uvloop.run(work())
        database.execute("VACUUM ANALYZE")
        store.settle = timed  # type: ignore[attr-defined] # measured where it is called
        uvloop.run(work(filed(database, phones)))
    warm = TAKEN[UNPLANNED:]
    print(
        f"  {len(warm)} batches of {SAMPLES:,} samples settled one after another, by a worker that has done so before:"
        f" median {statistics.median(warm):.1f} ms, from {min(warm):.1f} to {max(warm):.1f}"
    )
    tell(options.into, {"settled": warm})


if __name__ == "__main__":
    main()
