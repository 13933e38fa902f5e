"""Announcements a second that one worker processes, each with one call to a vendor that takes 120 or 180 ms.

The worker is held still (SIGSTOP) until enough are waiting, and then let go. The rate is that of the middle eight in
ten by the time they were done with, and all are written down before the next round. The bound is what
MAX_CONCURRENT_WEBHOOKS calls at once allow. Everything runs on this machine, the vendors too.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx
import psycopg

from bench.bridge import Bridge, wait_for
from bench.goals import Goal, keep
from bench.load import OURA_MS, WHOOP_MS, add_common, prepare, running
from bench.measuring import LAST
from bench.traffic import Post, Secrets, Traffic
from bench.verifying import ACCEPTED, one

MILLISECONDS = {"oura": OURA_MS, "whoop": WHOOP_MS}
ONE_CALL = {"oura": ("sleep", "daily_sleep", "daily_readiness", "daily_activity"), "whoop": ("sleep",)}
AT_ONCE = 40  # MAX_CONCURRENT_WEBHOOKS as it is by default
SENDERS = 16
PEOPLE = 5_000
LONGEST = 120.0  # seconds
LEFT = "SELECT count(*) FROM webhooks_delivery WHERE id > %s AND state IN ('received', 'retrying') AND pending_asks = 0"
GOALS = {
    vendor: Goal(
        "one worker", f"{title} announcements processed, of what 40 calls at once allow", "", "%", 90, at_least=True
    )
    for vendor, title in (("oura", "Oura"), ("whoop", "WHOOP"))
}
MIDDLE = """
SELECT count(*), 0.8 * count(*) / extract(epoch FROM
    percentile_disc(0.9) WITHIN GROUP (ORDER BY ended_at) - percentile_disc(0.1) WITHIN GROUP (ORDER BY ended_at))
FROM webhooks_delivery d JOIN LATERAL (
    SELECT max(started_at + duration_ms * interval '1 ms') AS ended_at FROM webhooks_attempt WHERE delivery_id = d.id
) AS tries ON true
WHERE d.id > %s AND d.error_class = ''
"""


@contextmanager
def held_still(pids: Sequence[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def announcements(vendor: str, count: int, people: int) -> list[Post]:
    """Of documents that take one call each; no two of one person, whose call they might share."""
    traffic = Traffic(people, repeats=0, bursts=0)
    found: dict[str, Post] = {}
    while len(found) < count:
        for each in traffic.next(vendor):
            about = json.loads(each.body)
            if about.get("data_type", about.get("type", "").partition(".")[0]) in ONE_CALL[vendor]:
                found.setdefault(about["user_id"], each)
    return list(found.values())[:count]


async def post(loaded: Bridge, secrets: Secrets, posts: Sequence[Post]) -> None:
    left = iter(posts)
    async with httpx.AsyncClient(base_url=loaded.run["http"], trust_env=False, timeout=30) as client:

        async def send() -> None:
            for each in left:
                answer = await client.post(f"/webhooks/{each.vendor}", content=each.body, headers=secrets.headers(each))
                assert answer.status_code == ACCEPTED, answer.text

        await asyncio.gather(*(send() for _ in range(SENDERS)))


def measure(loaded: Bridge, vendor: str, count: int, people: int) -> float:
    run = loaded.run
    secrets = Secrets(run["oura_client_secret"], run["whoop_client_secret"])
    with psycopg.connect(run["database_url"], autocommit=True) as database:
        since = one(database, LAST)[0]
        with held_still(run["pids"]["worker"]):
            asyncio.run(post(loaded, secrets, announcements(vendor, count, people)))
        wait_for(lambda: one(database, LEFT, since)[0] == 0, LONGEST)
        done, rate = one(database, MIDDLE, since)
        assert done == count, f"{done} of {count} were processed without an error"
        return float(rate)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.calls", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--announcements", type=int, default=2_000, help="a round (2000)")
    add_common(parser)
    parser.set_defaults(people=PEOPLE, token_seconds=7200)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {vendor: [] for vendor in MILLISECONDS}
    with running(options.beside) as loaded:
        prepare(loaded, options.people, options.token_seconds)
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
        for number in range(-1, options.rounds):  # one before the first warms up
            for vendor, found in rates.items():
                rate = measure(loaded, vendor, options.announcements, options.people)
                if number >= 0:
                    found.append(rate)
                    print(f"  {number + 1}: {vendor:6} {rate:6.1f}/s", flush=True)
    rows = []
    for vendor, found in rates.items():
        bound = AT_ONCE * 1000 / MILLISECONDS[vendor]
        median = statistics.median(found)
        print(
            f"{vendor}: median {median:.1f}/s, from {min(found):.1f} to {max(found):.1f}; "
            f"{100 * median / bound:.0f} % of the {bound:.0f} that {AT_ONCE} calls at once of "
            f"{MILLISECONDS[vendor]} ms allow"
        )
        rows.append(GOALS[vendor].row([100 * rate / bound for rate in found]))
    keep(options.results, "calls", rows)


if __name__ == "__main__":
    main()
