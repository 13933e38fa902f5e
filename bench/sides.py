"""Ingest and the claim loop beside what they could be, on one PostgreSQL with fsync, in rounds that take turns.

Ingest: signed Oura webhooks, each new, by wrk, to one web process each, no worker running. After each of ours, as many
deliveries must have come as were answered 202.

Claims: `bench.parts.claiming` says what is measured, and what is not.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.bridge import WEB, serving
from bench.goals import Goal, Row, add_results, keep
from bench.store import database, figures_of
from bench.traffic import sign
from bench.verifying import one

CONNECTIONS = 64
SECRET = "only-for-measurements"  # noqa: S105 - of nobody
UVICORN = (
    *("uvicorn", "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
    *("--port", "{port}"),
)
OURS, BARE = "the bridge", "bare ASGI reply"
DJANGO, FASTAPI = "Django, a commit each", "FastAPI + asyncpg, a commit each"
SERVERS = {
    BARE: (*UVICORN, "bench.rivals.plain:bare", "--lifespan", "off"),
    OURS: WEB,
    DJANGO: (*UVICORN, "bench.rivals.django_view:application", "--lifespan", "off"),
    FASTAPI: (*UVICORN, "--factory", "bench.rivals.plain:fastapi_each"),
}
MOST = {BARE: 60_000}  # requests a second that there have to be bodies for
WORKER, STORING = "the worker", "the worker, storing"
CLAIMS = [  # ours first
    [WORKER, "the same, one each", "a simple queue", "procrastinate"],
    [STORING, "the same, one each, storing", "procrastinate, storing"],
    ["claims alone", "claims alone, one each"],
]
INGEST_GOALS = {
    BARE: Goal("ingest, one web process", "beside a bare ASGI reply", "", "x", 0.25, at_least=True),
    DJANGO: Goal("ingest, one web process", "beside a Django view that commits each", "", "x", 10, at_least=True),
    FASTAPI: Goal("ingest, one web process", "beside FastAPI and asyncpg, a commit each", "", "x", 3, at_least=True),
}
CLAIM_GOALS = {
    (WORKER, "the same, one each"): Goal("claim loop", "beside one at a time", "", "x", 20, at_least=True),
    (WORKER, "procrastinate"): Goal("claim loop", "beside procrastinate", "", "x", 10, at_least=True),
    (STORING, "procrastinate, storing"): Goal(
        "claim loop", "beside procrastinate, a phone's batch stored each", "", "x", 10, at_least=True
    ),
}
SCRIPT = """
local lines, at = {}, 0
for line in io.lines(os.getenv("BODIES")) do lines[#lines + 1] = line end
function request()
  at = at % #lines + 1
  local timestamp, signature, body = lines[at]:match("^(%S+) (%S+) (.*)$")
  return wrk.format("POST", "/webhooks/oura", {
    ["content-type"] = "application/json", ["x-oura-timestamp"] = timestamp, ["x-oura-signature"] = signature
  }, body)
end
function done(summary, latency)
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration,
    summary.errors.status, summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Round:
    """What wrk saw: answers a second, those that were no 202, and milliseconds at half and at 99 of a hundred."""

    rate: float
    answers: int
    failed: int
    half: float
    late: float


def write_bodies(path: Path, count: int) -> None:
    """Announcements of objects nobody has announced before, signed now."""
    timestamp = str(int(time.time()))
    run = uuid.uuid4().hex[:8]
    with path.open("w") as file:
        for number in range(count):
            event = {
                "event_type": "update",
                "data_type": "sleep",
                "object_id": f"{run}-{number:08d}-0000-4000-8000-000000000000",
                "event_time": "2026-11-25T06:31:04+00:00",
                "user_id": f"user_{number % 50_000 + 1}",
            }
            body = json.dumps(event)
            file.write(f"{timestamp} {sign(SECRET, timestamp, body.encode()).hex().upper()} {body}\n")


def write_script(folder: Path) -> Path:
    script = folder / "wrk.lua"
    script.write_text(SCRIPT)
    return script


def fire(address: str, bodies: Path, script: Path, seconds: int) -> Round:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), f"{address}/webhooks/oura"]
    environment = os.environ | {"BODIES": str(bodies)}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    line = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", found.stdout)
    assert line, found.stdout + found.stderr
    requests, duration, wrong, broken, half, late = (int(text) for text in line.groups())
    return Round(requests / duration * 1e6, requests, wrong + broken, half / 1000, late / 1000)


def count(address: str) -> int:
    with psycopg.connect(address) as connection:
        return int(one(connection, "SELECT count(*) FROM webhooks_delivery")[0])


def measure(
    seconds: int, rounds: int, folder: Path, settings: dict[str, str], names: Collection[str] = tuple(SERVERS)
) -> dict[str, list[Round]]:
    script, bodies = write_script(folder), folder / "bodies"
    results: dict[str, list[Round]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            write_bodies(bodies, MOST.get(name, 20_000) * seconds)
            before = count(settings["DATABASE_URL"])
            with serving(SERVERS[name], settings | {"OURA_CLIENT_SECRET": SECRET}) as address:
                fire(address, bodies, script, 1)  # warms up
                write_bodies(bodies, MOST.get(name, 20_000) * seconds)
                found = fire(address, bodies, script, seconds)
            stored = count(settings["DATABASE_URL"]) - before
            assert name == BARE or stored >= found.answers, f"{name}: {found.answers} answered, {stored} stored"
            results[name].append(found)
            print(
                f"  {number + 1}: {name:33} {found.rate:8,.0f}/s, P50 {found.half:6.1f} ms, P99 {found.late:6.1f} ms,"
                f" {found.failed} failed",
                flush=True,
            )
    return results


def rates(results: Mapping[str, Sequence[Round]]) -> dict[str, list[float]]:
    return {name: [each.rate for each in found] for name, found in results.items()}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Round by round: what disturbs the machine for a while disturbs both."""
    return [mine / their for mine, their in zip(ours, theirs, strict=True)]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(ratios(ours, theirs))


def report(found: Mapping[str, Sequence[float]], ours: str) -> None:
    print(f"\n  {'':33} {'median':>8}    {ours} is")
    for name, theirs in found.items():
        print(f"  {name:33} {statistics.median(theirs):8,.0f}/s  {ratio(found[ours], theirs):6.2f} x")


def ingest(rounds: int, seconds: int, settings: dict[str, str]) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="auren-sides-") as folder:
        results = measure(seconds, rounds, Path(folder), settings)
    found = rates(results)
    report(found, OURS)
    print(f"  failed: {', '.join(f'{name} {sum(each.failed for each in found)}' for name, found in results.items())}")
    return [goal.row(ratios(found[OURS], found[name])) for name, goal in INGEST_GOALS.items()]


def claims(rounds: int, seconds: int, settings: dict[str, str]) -> list[Row]:
    found = figures_of("claiming", settings, "--rounds", str(rounds), "--seconds", str(seconds))
    for names in CLAIMS:
        report({name: found[name] for name in names}, names[0])
    return [goal.row(ratios(found[ours], found[theirs])) for (ours, theirs), goal in CLAIM_GOALS.items()]


PARTS = {"ingest": ingest, "claims": claims}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sides", description=__doc__)
    parser.add_argument("--seconds", type=int, default=8, help="of each round (8)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=list(PARTS), action="append", help="one part; may be given again")
    add_results(parser)
    options = parser.parse_args()
    parts = options.only or list(PARTS)
    if "ingest" in parts:
        need_wrk(parser)
    for part in parts:
        load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        print(f"\n{part}; {load}{f', {CONNECTIONS} connections' if part == 'ingest' else ''}", flush=True)
        with database(None, {}) as settings:
            rows = PARTS[part](options.rounds, options.seconds, settings)
        keep(options.results, part, rows)


def need_wrk(parser: argparse.ArgumentParser) -> None:
    if shutil.which("wrk") is None:
        parser.exit(1, "wrk is missing: apt-get install wrk.\n")


if __name__ == "__main__":
    main()
