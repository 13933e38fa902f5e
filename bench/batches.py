"""A phone's batch of 1,000 samples: how soon it is answered, and how soon its samples can be read.

One after another, to the whole bridge on this machine. *Read* counts from receipt until the transaction that stored
them, by the database's clock: from then on the timeline has them.
"""

import argparse
import os
from time import perf_counter

import httpx
import psycopg

from bench.bridge import Bridge, wait_for
from bench.goals import Goal, add_results, keep
from bench.load import add_beside, running
from bench.measuring import percentile
from bench.traffic import Secrets, Traffic
from bench.verifying import ACCEPTED

SAMPLES = 1_000
PEOPLE = 200
WARM_UP = 20
LONGEST = 60.0  # seconds until the last one of a round is stored
ANSWERED = Goal("a phone's 1,000 samples", "answered, P99", "1,532 ms", "ms", 100)
READABLE = Goal("a phone's 1,000 samples", "to be read, P99", "", "ms", 1_000)
STORED = """
SELECT 1000 * extract(epoch FROM stored_at - received_at), sample_count FROM webhooks_delivery
WHERE id = ANY(%s) AND stored_at IS NOT NULL ORDER BY 1
"""


def measure(loaded: Bridge, traffic: Traffic, count: int) -> tuple[float, float]:
    """Milliseconds, at 99 in 100: until the answer, and from receipt until stored."""
    answered: list[float] = []
    filed: list[int] = []
    headers = Secrets().headers
    with httpx.Client(base_url=loaded.run["http"], trust_env=False, timeout=30) as client:
        for post in (traffic.batch(SAMPLES) for _ in range(count)):
            started = perf_counter()
            answer = client.post("/webhooks/healthkit", content=post.body, headers=headers(post))
            answered.append(1000 * (perf_counter() - started))
            assert answer.status_code == ACCEPTED, answer.text
            filed.append(answer.json()["delivery"])
    with psycopg.connect(loaded.run["database_url"], autocommit=True) as database:
        wait_for(lambda: len(database.execute(STORED, [filed]).fetchall()) == count, LONGEST)
        stored = database.execute(STORED, [filed]).fetchall()
        assert all(samples == SAMPLES for _, samples in stored), "not every sample was stored"
    return percentile(sorted(answered), 0.99), float(percentile([ms for ms, _ in stored], 0.99))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.batches", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=100, help="a round (100)")
    add_beside(parser)
    add_results(parser)
    options = parser.parse_args()
    found: list[tuple[float, float]] = []
    with running(options.beside) as loaded:
        traffic = Traffic(PEOPLE)
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
        measure(loaded, traffic, WARM_UP)
        for number in range(options.rounds):
            found.append(measure(loaded, traffic, options.batches))
            answered, stored = found[-1]
            print(f"  {number + 1}: P99 {answered:.0f} ms until answered, {stored:.0f} ms until stored", flush=True)
    keep(options.results, "batches", [ANSWERED.row([ms for ms, _ in found]), READABLE.row([ms for _, ms in found])])


if __name__ == "__main__":
    main()
