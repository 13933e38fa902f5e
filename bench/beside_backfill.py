"""Does history hold up what has just happened? Live webhooks, first beside a backfill of 90 days, then without one.

Everything is real: `manage.py up` with 20 people, whose history the workers fetch under the vendors' published rate
limits (counts as they are, all windows a twentieth as long), and signed webhooks from the sandbox over HTTP. The time
is that from receipt to the stored samples, by PostgreSQL's clock.
"""

import itertools
import time
from typing import Any

import psycopg

from auren.sandbox.remote import RemoteSandbox
from bench.bridge import bridge, wait_for

PEOPLE, DAYS = 20, 90
LIMITS = {"WHOOP_RATE_LIMIT": "100/3,10000/4320", "OURA_RATE_LIMIT": "5000/15"}
EVERY = 0.2  # seconds between live webhooks
LIVE = 150
BACKFILL_SECONDS = 600.0

UNDER_WAY = """
SELECT count(*) FROM webhooks_delivery
WHERE origin = 'backfill' AND state IN ('received', 'retrying') AND pending_asks = 0
"""
STORED = """
SELECT count(*), count(*) FILTER (WHERE state IN ('received', 'retrying') AND pending_asks = 0),
       percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM stored_at - received_at) * 1000)
FROM webhooks_delivery WHERE origin = 'webhook' AND vendor = 'whoop' AND id > %s
"""


def live(sandbox: RemoteSandbox, database: psycopg.Connection[Any]) -> tuple[float, float]:
    """Send LIVE webhooks about nights, one after the other at a steady pace; P50 and P99 in ms until stored."""
    people = [f"user_{number}" for number in range(1, PEOPLE + 1)]
    nights = {who: [str(one["id"]) for one in sandbox.documents("whoop", who, "sleep")[-DAYS // 2 :]] for who in people}
    before = database.execute("SELECT coalesce(max(id), 0) FROM webhooks_delivery").fetchone()
    due = time.monotonic()
    for place, who in zip(range(LIVE), itertools.cycle(people), strict=False):
        sandbox.announce("whoop", who, "sleep", nights[who][place // PEOPLE], wait=False)
        due += EVERY
        time.sleep(max(0.0, due - time.monotonic()))
    sandbox.announcements(wait=True)

    def measured() -> Any:
        return database.execute(STORED, before).fetchone()

    wait_for(lambda: measured()[1] == 0, 120)
    count, _, (middle, worst) = measured()
    assert count == LIVE, f"{count} of {LIVE} webhooks came"
    return float(middle), float(worst)


def main() -> None:
    with (
        bridge(people=PEOPLE, days=DAYS, settings=LIMITS) as running,
        psycopg.connect(running.run["database_url"], autocommit=True) as database,
    ):
        sandbox = RemoteSandbox(running.sandbox)

        def under_way() -> int:
            row = database.execute(UNDER_WAY).fetchone()
            return int(row[0]) if row else 0

        print(f"{under_way()} lists of history wait, of {PEOPLE} people and {DAYS} days. {LIMITS}")
        beside = live(sandbox, database)
        left = under_way()
        wait_for(lambda: under_way() == 0, BACKFILL_SECONDS)
        alone = live(sandbox, database)
        sandbox.close()
    print(f"{LIVE} live webhooks, one every {EVERY:g} s; from receipt to stored, in ms:")
    print(f"  beside the backfill   P50 {beside[0]:6.0f}   P99 {beside[1]:6.0f}   ({left} lists were left at the end)")
    print(f"  without it            P50 {alone[0]:6.0f}   P99 {alone[1]:6.0f}")
    print(f"  ratio                 P50 {beside[0] / alone[0]:6.2f}   P99 {beside[1] / alone[1]:6.2f}")


if __name__ == "__main__":
    main()
