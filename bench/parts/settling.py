"""How long settling takes of a batch of a thousand samples, within a store transaction: two sources that disagree.

The patient has a history of the same kind: sixty bodies before the ones that are measured.
"""

import statistics
import time
from collections.abc import Mapping

import psycopg
import uvloop
from django.conf import settings

from auren.biometrics import store
from auren.biometrics.conflicts import Change, settle
from bench.parts.phones import PATIENTS, PEOPLE, SAMPLES, Phones
from bench.parts.storing import work

HISTORY, MEASURED = 3 * PEOPLE, 40
TAKEN: list[float] = []


async def timed(connection: store.Connection, zones: Mapping[int, str]) -> list[Change]:
    started = time.perf_counter()
    changes = await settle(connection, zones)
    TAKEN.append((time.perf_counter() - started) * 1000)
    return changes


def main() -> None:
    phones = Phones()
    with psycopg.connect(settings.DATABASE_URL, autocommit=True) as database:
        database.execute(PATIENTS, [PEOPLE])
        phones.post(database, HISTORY)
        uvloop.run(work())
        database.execute("VACUUM ANALYZE")
        store.settle = timed  # type: ignore[attr-defined] # measured where it is called
        for _ in range(MEASURED):
            phones.post(database, 1)
            uvloop.run(work())
    TAKEN.pop(0)
    print(
        f"  {len(TAKEN)} batches of {SAMPLES:,} samples settled each in a transaction and on a connection of its own:"
        f" median {statistics.median(TAKEN):.1f} ms, from {min(TAKEN):.1f} to {max(TAKEN):.1f}"
    )


if __name__ == "__main__":
    main()
