"""One phase of load: who posts for how long, and what was seen of it afterwards."""

import math
import os
import platform
import subprocess
import time
import timeit
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import httpx
import psycopg
import redis
from prometheus_client.parser import text_string_to_metric_families

from auren.embedded.server import BASE_DIR
from bench.bridge import Bridge
from bench.verifying import ACCEPTED, Answer, Verdict, one, read_answers, verify
from bench.watching import MIB, Figures, Look, Watch, growth, span

FOLDER = Path(__file__).parent
ANSWERS = "answers.jsonl"
DRAIN_SECONDS = 180.0
LINES_OF_A_DEADLOCK = 30
SLOW_MS = 200
NEAR_SECONDS = 2  # a look tells of the second before it
LAST = "SELECT coalesce(max(id), 0) FROM webhooks_delivery"
# What waits for a score on purpose is no backlog.
WAITING = """
SELECT count(*) FROM webhooks_delivery
WHERE origin = 'webhook' AND (state IN ('received', 'stored') OR state = 'retrying' AND pending_asks = 0)
"""
# From the database's own clock: a sample can be read in the timeline from `stored_at` on.
TIMES = """
SELECT vendor, count(*), avg(ms), percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY ms) FROM (
    SELECT d.vendor, 1000 * extract(epoch FROM {0}) AS ms FROM webhooks_delivery d
    WHERE d.id > %s AND d.origin = 'webhook' AND {0} IS NOT NULL
) AS taken GROUP BY vendor ORDER BY vendor
"""
STORED, PUBLISHED = "d.stored_at - d.received_at", "d.published_at - d.stored_at"
COUNTS_STATEMENTS = "SELECT count(*) FROM pg_extension WHERE extname = 'pg_stat_statements'"
STATEMENTS = """
SELECT coalesce(sum(calls), 0)::float, coalesce(sum(total_exec_time), 0)::float FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@dataclass(frozen=True)
class Phase:
    """`steps` are users and seconds, one after the other. A phase is measured `rounds` times."""

    name: str
    steps: tuple[tuple[int, int], ...]
    rounds: int = 1

    @property
    def seconds(self) -> int:
        return sum(seconds for _, seconds in self.steps)


@dataclass
class Seen:
    """A round of a phase. Times are in ms, memory in MiB, processor time in percent of one core."""

    phase: str
    steps: tuple[tuple[int, int], ...]
    load_average: float
    seconds: float
    rate: float
    failed: int
    statuses: dict[str, int]
    problems: dict[str, int]
    duplicates: int
    answered: dict[str, Figures]
    stored: dict[str, Figures]
    published: dict[str, Figures]
    batch: Figures
    counts: Figures
    left: int  # deliveries not yet published when the last answer came
    drained: float  # seconds until there were none
    verdict: Verdict
    cpu: dict[str, Figures]
    memory: dict[str, Figures]
    growth: Figures
    connections: dict[str, Figures]
    machine: Figures
    loopback: float  # Mbit/s, of everything on this machine
    received: float  # bytes of bodies
    redis_memory: float
    recovery: float | None
    line: list[list[float]] = field(default_factory=list)  # second, answers, P50, P99
    host: dict[str, Figures] = field(default_factory=dict)
    slow: list[Figures] = field(default_factory=list)  # seconds whose P99 was above SLOW_MS, and what the host did


@dataclass
class Rig:
    """What every phase needs."""

    bridge: Bridge
    locust: Path
    people: int

    @property
    def database(self) -> str:
        return str(self.bridge.run["database_url"])

    def measure(self, phase: Phase, folder: Path, during: Callable[[], None] | None = None) -> Seen:
        """Run a phase, with `during` beside it, wait until all of it is published, and look every promise up."""
        answers_file = folder / ANSWERS
        answers_file.unlink(missing_ok=True)
        load_average = os.getloadavg()[0]
        with psycopg.connect(self.database, autocommit=True) as database:
            since, deadlocks = one(database, LAST)[0], one(database, DEADLOCKS)[0]
            asked = statements(database)
        before = self.metrics()
        with self.posting(phase, answers_file) as posting, Watch(self.bridge, {"load": posting.pid}) as watch:
            if during:
                during()
            posting.wait()
        with psycopg.connect(self.database, autocommit=True) as database:
            left = one(database, WAITING)[0]
            drained = self.drain(database)
            answers = read_answers(answers_file)
            if not answers:
                raise SystemExit(f"{phase.name}: Locust posted nothing; see {folder / 'locust.log'}.")
            verdict = verify(database, answers, since=since)
            counts = changes(before, self.metrics())
            counts["deadlocks"] = one(database, DEADLOCKS)[0] - deadlocks
            if counts["deadlocks"]:
                print(deadlocks_told(self.bridge.var / "log" / "postgresql.log"), flush=True)
            counts |= changes(asked, statements(database))
            stored, published = times(database, STORED, since), times(database, PUBLISHED, since)
        looks = watch.looks
        first, last = min(each.at for each in answers), max(each.at for each in answers)
        seconds = max(last - first, 1)
        by_second = line(answers, first)
        return Seen(
            phase=phase.name,
            steps=phase.steps,
            load_average=load_average,
            seconds=seconds,
            rate=len(answers) / seconds,
            failed=sum(each.status != ACCEPTED for each in answers),
            statuses=count(str(each.status) for each in answers),
            problems=count(each.problem for each in answers if each.problem),
            duplicates=sum(each.duplicate for each in answers),
            answered=by_vendor(answers),
            stored=stored,
            published=published,
            batch=spread([each.samples for each in answers if each.samples]),
            counts=counts,
            left=left,
            drained=drained,
            verdict=verdict,
            cpu=span([look.cpu for look in looks]),
            memory=span([look.memory for look in looks]),
            growth=growth(looks),
            connections=span([look.connections for look in looks]),
            machine=span([{"cpu": look.machine} for look in looks])["cpu"],
            loopback=8 * mean(look.loopback for look in looks) / 1e6,
            received=sum(each.bytes for each in answers),
            redis_memory=self.redis_memory(),
            recovery=recovery(answers, phase, first),
            line=by_second,
            host=span([look.host for look in looks]),
            slow=slow(by_second, looks, first),
        )

    @contextmanager
    def posting(self, phase: Phase, answers: Path) -> "Iterator[subprocess.Popen[bytes]]":
        """Locust at work."""
        run = self.bridge.run
        steps = ",".join(f"{users}:{seconds}" for users, seconds in phase.steps)
        command = [str(self.locust), "-f", f"{FOLDER / 'locustfile.py'},{FOLDER / 'steps.py'}", "--host", run["http"]]
        command += ["--headless", "--only-summary", "--stop-timeout", "30", "--steps", steps]
        command += ["--people", str(self.people), "--answers", str(answers)]
        secrets = {"OURA_CLIENT_SECRET": run["oura_client_secret"], "WHOOP_CLIENT_SECRET": run["whoop_client_secret"]}
        with (answers.parent / "locust.log").open("ab") as log:
            process = subprocess.Popen(command, env=os.environ | secrets, stdout=log, stderr=log)  # noqa: S603
        try:
            yield process
        finally:
            process.terminate()
            process.wait()

    def drain(self, database: psycopg.Connection[Any]) -> float:
        """Seconds until nothing waits any more, or DRAIN_SECONDS."""
        started = time.monotonic()
        while one(database, WAITING)[0] and time.monotonic() - started < DRAIN_SECONDS:
            time.sleep(0.1)
        return time.monotonic() - started

    def metrics(self) -> Figures:
        """Of all nodes together."""
        found: Figures = defaultdict(float)
        for web in self.bridge.webs:
            page = httpx.get(f"{web}/metrics", timeout=30, trust_env=False).text
            for name, value in samples_in(page):
                found[name] += value
        return dict(found)

    def redis_memory(self) -> float:
        with redis.Redis.from_url(str(self.bridge.run["redis_url"])) as cache:
            return float(cache.info("memory")["used_memory"]) / MIB


def samples_in(page: str) -> Iterator[tuple[str, float]]:
    """Our own metrics, name and labels together."""
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name.startswith("auren_") and not sample.name.endswith("_bucket"):
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                yield f"{sample.name}{{{labels}}}", sample.value


def statements(database: psycopg.Connection[Any]) -> Figures:
    """How many statements PostgreSQL has executed, and for how many ms; nothing where it does not count them."""
    if not one(database, COUNTS_STATEMENTS)[0]:
        return {}
    return dict(zip(("statements", "statement_ms"), one(database, STATEMENTS), strict=True))


def changes(before: Figures, after: Figures) -> Figures:
    return {name: change for name, value in after.items() if (change := value - before.get(name, 0))}


def total(counts: Figures, name: str) -> float:
    """A metric over those of its labels that `name` does not give: `auren_vendor_calls_total{outcome=ok`."""
    name, _, wanted = name.partition("{")
    return sum(value for key, value in counts.items() if key.partition("{")[0] == name and wanted in key)


def count(values: Iterator[str]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for value in values:
        found[value] += 1
    return dict(found)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> Figures:
    if not values:
        return {}
    ordered = sorted(values)
    named = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {"count": len(ordered), "mean": mean(ordered)} | {
        name: percentile(ordered, each) for name, each in named.items()
    }


def deadlocks_told(log: Path) -> str:
    """What PostgreSQL's log says of deadlocks: who waited for whom, in which statements."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    found = [place for place, line in enumerate(lines) if "deadlock detected" in line]
    return "\n".join(line for place in found for line in lines[place : place + LINES_OF_A_DEADLOCK])


def by_vendor(answers: Sequence[Answer]) -> dict[str, Figures]:
    """Times of every answer, refusals too, and of all of them together under `all`."""
    vendors = sorted({each.vendor for each in answers})
    found = {vendor: spread([each.ms for each in answers if each.vendor == vendor]) for vendor in vendors}
    return {"all": spread([each.ms for each in answers])} | found


def times(database: psycopg.Connection[Any], taken: str, since: int) -> dict[str, Figures]:
    rows = database.execute(TIMES.format(taken), [since]).fetchall()
    return {
        vendor: {"count": number, "mean": float(average), "p50": p50, "p95": p95, "p99": p99}
        for vendor, number, average, (p50, p95, p99) in rows
    }


def line(answers: Sequence[Answer], first: float) -> list[list[float]]:
    """Second by second, by when the answer came."""
    seconds: dict[int, list[float]] = defaultdict(list)
    for each in answers:
        seconds[int(each.at + each.ms / 1000 - first)].append(each.ms)
    ordered = ((second, sorted(seconds[second])) for second in sorted(seconds))
    return [[second, len(ms), percentile(ms, 0.5), percentile(ms, 0.99)] for second, ms in ordered]


def slow(line: Sequence[Sequence[float]], looks: Sequence[Look], first: float) -> list[Figures]:
    """The seconds in which answers were slow, with what the host did then: the most that two looks say."""
    found = []
    for second, _, _, p99 in line:
        if p99 > SLOW_MS:
            near = [look.host for look in looks if second <= look.at - first < second + NEAR_SECONDS]
            found.append({"second": second, "p99": p99} | {name: of["peak"] for name, of in span(near).items()})
    return found


def recovery(answers: Sequence[Answer], phase: Phase, first: float) -> float | None:
    """Of a spike: seconds after the fall until 95 in 100 of a second's answers came within the P99 from before it."""
    if len(phase.steps) != 3:
        return None
    rise = phase.steps[0][1]
    fall = rise + phase.steps[1][1]
    calm = percentile(sorted(each.ms for each in answers if each.at - first < rise), 0.99)
    after = [each for each in answers if each.at - first >= fall]
    for tenth in range(10 * phase.steps[2][1]):
        begin = first + fall + tenth / 10
        window = [each.ms for each in after if begin <= each.at < begin + 1]
        if window and percentile(sorted(window), 0.95) <= calm:
            return tenth / 10
    return float(phase.steps[2][1])


def machine() -> dict[str, str]:
    model = next(
        (
            row.partition(":")[2].strip()
            for row in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in row
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / MIB / 1024
    return {
        "processor": f"{os.cpu_count()} cores, {model}",
        "memory": f"{memory:.0f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
        "a million additions": took("sum += 1", "sum = 0"),
        "a million system calls": took("getppid()", "from os import getppid"),
    }


def took(statement: str, setup: str) -> str:
    """How quick this machine is at this moment: a million times in Python, nine times over."""
    each = f"for _ in range(100_000): {statement}"
    times = sorted(10 * seconds for seconds in timeit.repeat(each, setup, number=1, repeat=9))
    low, middle, high = (1000 * times[place] for place in (0, 4, -1))
    return f"{middle:.0f} ms ({low:.0f} to {high:.0f})"


def revision() -> str:
    """The commit that was measured, and whether something else than results was changed since."""
    git = ["git", "-C", str(BASE_DIR)]
    asked = [*git, "describe", "--always"], [*git, "status", "--porcelain", "--", ".", ":!bench/results"]
    commit, changed = (subprocess.run(each, capture_output=True, text=True, check=False).stdout for each in asked)  # noqa: S603
    return (commit.strip() or "unknown") + ("-dirty" if changed else "")
