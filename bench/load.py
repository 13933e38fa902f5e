"""The load test: the whole bridge on this machine, vendors that take 120 and 180 ms, 50,000 people, and every promise
looked up after every phase. Writes bench/results/<date>-load.md and .json.

The machine carries everything: PostgreSQL, Valkey, Kafka's stand-in, the sandbox, the bridge and Locust.
"""

import argparse
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
import psycopg

from auren.embedded.server import BASE_DIR
from auren.sandbox.remote import RemoteSandbox
from bench import report
from bench.bridge import Bridge, bridge, found_at, wait_for
from bench.goals import add_results
from bench.measuring import Phase, Rig, Seen, machine, revision
from bench.traffic import Secrets, Traffic
from bench.verifying import ACCEPTED, one

PEOPLE = 50_000
OURA_MS, WHOOP_MS = 120, 180
TOKEN_SECONDS = 900  # a vendor's hour, shortened: enough tokens must end during a phase
RESTART_SECONDS = 60.0
DAYS = 10  # of the sandbox's history; documents are announced of the last six
CALM, HIGH, PEAK, STEADY, SOAK = 50, 200, 300, 150, 110  # users

# For a glance, and for working on this: the figures mean little.
SHORT = {"seconds": 20, "rounds": 1, "sustained": 30, "soak": 30}
LONG = {"seconds": 60, "rounds": 3, "sustained": 1800, "soak": 900}


def phases(seconds: int, rounds: int, sustained: int, soak: int) -> list[Phase]:
    return [
        Phase("baseline", ((CALM, seconds),), rounds),
        Phase("stress", ((HIGH, seconds),), rounds),
        Phase("spike", ((CALM, seconds // 2), (PEAK, seconds // 2), (CALM, seconds // 2)), rounds),
        Phase("sustained", ((STEADY, sustained),)),
        Phase("soak", ((SOAK, soak),)),
    ]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    add = parser.add_argument
    add("--short", action="store_true", help="a few minutes for the whole, one round each")
    add("--only", action="append", metavar="PHASE", help="baseline, stress, spike, sustained or soak; may be repeated")
    add("--rounds", type=int, help=f"of baseline, stress and spike ({LONG['rounds']})")
    add(
        "--seconds",
        type=int,
        help=f"of a round of baseline and stress; of a spike half as long a step ({LONG['seconds']})",
    )
    add("--sustained", type=int, help=f"seconds of 7,000 posts a minute ({LONG['sustained']})")
    add("--soak", type=int, help=f"seconds; 14400 are the replaced system's 1.2 million posts ({LONG['soak']})")
    add_common(parser)
    return parser.parse_args()


def add_common(parser: argparse.ArgumentParser) -> None:
    """What every test under load can be told."""
    add = parser.add_argument
    add("--people", type=int, default=PEOPLE, help=f"whose ids are drawn ({PEOPLE})")
    add("--token-seconds", type=int, default=TOKEN_SECONDS, help=f"life of an access token ({TOKEN_SECONDS})")
    add("--locust", type=Path, default=BASE_DIR / ".venv-bench" / "bin" / "locust", help="(.venv-bench/bin/locust)")
    add_beside(parser)
    add_results(parser)


def add_beside(parser: argparse.ArgumentParser) -> None:
    told = "the folder of a `manage.py up` to load, in place of one of its own"
    parser.add_argument("--beside", type=Path, metavar="VAR", help=told)


def chosen(options: argparse.Namespace) -> list[Phase]:
    given = {name: getattr(options, name) for name in LONG if getattr(options, name) is not None}
    every = phases(**((SHORT if options.short else LONG) | given))
    names = {phase.name for phase in every}
    if unknown := set(options.only or ()) - names:
        raise SystemExit(f"There is no phase {', '.join(sorted(unknown))}: there are {', '.join(sorted(names))}.")
    wanted = [phase for phase in every if not options.only or phase.name in options.only]
    if any(phase.rounds < 1 or min(seconds for _, seconds in phase.steps) < 1 for phase in wanted):
        raise SystemExit("Every phase needs at least one round, and a second a step: two --seconds for a spike.")
    return wanted


def check_locust(locust: Path) -> None:
    if not locust.exists():
        raise SystemExit(f"No Locust at {locust}: `make bench-load` installs it, or name one with --locust.")


@contextmanager
def running(beside: Path | None) -> Iterator[Bridge]:
    if beside:
        yield found_at(beside)
        return
    print("Starting the bridge ...", flush=True)
    with bridge(people=1, days=DAYS) as started:
        yield started


def count_statements(started: Bridge) -> None:
    """Have PostgreSQL count what it is asked: its `pg_stat_statements` wants a start of its own."""
    address = started.run["database_url"]
    with psycopg.connect(address, autocommit=True) as database:
        database.execute("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
    psutil.Process(started.run["pids"]["postgresql"][0]).send_signal(signal.SIGINT)
    wait_for(lambda: preloaded(address), RESTART_SECONDS)
    with psycopg.connect(address, autocommit=True) as database:
        database.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    wait_for(lambda: takes_one(started), RESTART_SECONDS)


def takes_one(started: Bridge) -> bool:
    """Whether web accepts a post. It only finds out that its connection has ended when it is sent one."""
    post = Traffic(people=1).batch()
    address = f"{started.run['http']}/webhooks/healthkit"
    answer = httpx.post(address, content=post.body, headers=Secrets().headers(post), trust_env=False)
    return answer.status_code == ACCEPTED


def preloaded(address: str) -> bool:
    with suppress(psycopg.OperationalError), psycopg.connect(address, connect_timeout=1) as database:
        return bool(one(database, "SHOW shared_preload_libraries")[0])
    return False


def prepare(loaded: Bridge, people: int, token_seconds: int) -> None:
    """The people, and vendors as slow as the real ones whose tokens do not last."""
    with RemoteSandbox(loaded.sandbox) as sandbox:
        sandbox.set_vendor("oura", access_token_seconds=token_seconds)
        sandbox.set_vendor("whoop", access_token_seconds=token_seconds)
        print(f"Seeding {people:,} people ...", flush=True)
        print(loaded.manage("seed_load", "--people", str(people), "--token-seconds", str(token_seconds)), flush=True)
        sandbox.set_vendor("oura", latency_ms=OURA_MS)
        sandbox.set_vendor("whoop", latency_ms=WHOOP_MS)


def measure(rig: Rig, wanted: list[Phase]) -> Iterator[Seen]:
    """Rounds in turns, so that what else the machine does falls on all of their phases; then the long ones."""
    turns = range(max(phase.rounds for phase in wanted))
    every = [(turn, phase) for turn in turns for phase in wanted if turn < phase.rounds]
    with tempfile.TemporaryDirectory(prefix="auren-load-") as name:
        for turn, phase in sorted(every, key=lambda each: each[1].rounds == 1):
            print(f"{phase.name}, round {turn + 1} of {phase.rounds}: {phase.seconds} s ...", flush=True)
            seen = rig.measure(phase, Path(name))
            print(f"  {said(seen)}", flush=True)
            yield seen


def said(seen: Seen) -> str:
    every = seen.answered["all"]
    return (
        f"{seen.rate:.1f}/s, P50 {every['p50']:.1f} ms, P99 {every['p99']:.1f} ms, {seen.failed} failed, "
        f"{seen.left} under way at the end; promises {'kept' if seen.verdict.kept else f'BROKEN: {seen.verdict}'}; "
        f"load average {seen.load_average:.1f}"
    )


def about(rig: Rig, options: argparse.Namespace) -> dict[str, str]:
    with psycopg.connect(rig.database) as database:
        postgresql = str(one(database, "SHOW server_version")[0])
    locust = subprocess.run([str(rig.locust), "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    return machine() | {
        "PostgreSQL": f"{postgresql}, fsync {'on' if fsync(rig) else '**off**'}",
        "embedded": ", ".join(rig.bridge.run["embedded"]) or "nothing",
        "commit": revision(),
        "load generator": f"Locust {locust.split()[1]}, on the same machine",
        "users": "40/40/20 Oura, WHOOP, HealthKit; 0.5 to 2 s between posts; signed",
        "people": f"{options.people:,}",
        "vendors": f"{OURA_MS} and {WHOOP_MS} ms; access tokens good for {options.token_seconds} s; limits raised",
        "load average at the end": f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
    }


def fsync(rig: Rig) -> bool:
    with psycopg.connect(rig.database) as database:
        return bool(one(database, "SHOW fsync")[0] == "on")


def main() -> None:
    options = parsed()
    wanted = chosen(options)
    check_locust(options.locust)
    started_at = datetime.now(UTC)
    with running(options.beside) as loaded:
        if not options.beside:
            count_statements(loaded)
        prepare(loaded, options.people, options.token_seconds)
        rig = Rig(loaded, options.locust, options.people)
        rounds: list[Seen] = []
        for seen in measure(rig, wanted):  # written down each time: the whole takes an hour and more
            rounds.append(seen)
            page = report.write(options.results, f"{started_at:%Y-%m-%d}-load", about(rig, options), rounds)
    print(f"\n{page.read_text()}\nWritten to {page}.")
    if not all(seen.verdict.kept for seen in rounds):
        raise SystemExit("A promise was broken.")


if __name__ == "__main__":
    main()
