"""What a load test saw, as Markdown for people and JSON for programs: beside the replaced system's figures and our
targets, with what was missed said first."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

import msgspec

from bench.goals import Goal, Row, short
from bench.measuring import SLOW_MS, Seen, total
from bench.picture import Band, Panel, draw
from bench.watching import Figures

VENDORS = (("oura", "Oura"), ("whoop", "WHOOP"), ("healthkit", "HealthKit"))
MOST_SLOW = 20  # seconds that a report lists
PROCESSES = ("web", "worker", "publisher", "scheduler", "exports")


@dataclass(frozen=True)
class Target(Goal):
    """A goal, and where its figure is found in a round."""

    figure: Callable[[Seen], float]


def p99(vendor: str) -> Callable[[Seen], float]:
    return lambda seen: seen.answered.get(vendor, {}).get("p99", float("nan"))


def average(vendor: str) -> Callable[[Seen], float]:
    return lambda seen: seen.answered.get(vendor, {}).get("mean", float("nan"))


def failed(seen: Seen) -> float:
    return 100 * seen.failed / (seen.rate * seen.seconds)


def lost(seen: Seen) -> float:
    return seen.verdict.missing + seen.verdict.samples_missing


def largest(seen: Seen) -> float:
    """Of one process of ours; web's workers and master count apart."""
    return max(seen.memory.get(name, {}).get("peak", 0) for name in PROCESSES)


def growing(seen: Seen) -> float:
    return max((value for name, value in seen.growth.items() if name in PROCESSES), default=float("nan"))


def statement(seen: Seen) -> float:
    number = seen.counts.get("statements")
    return seen.counts["statement_ms"] / number if number else float("nan")


# The replaced system's figures are its own load test's, on three machines of four cores.
TARGETS = (
    Target("baseline", "answered, P99", "87 ms", "ms", 25, p99("all")),
    Target("baseline", "failed", "0.03 %", "%", 0, failed),
    *(
        Target("baseline", f"{title} answered, {what}", f"{was} ms", "ms", limit, figure(vendor))
        for (vendor, title), rows in zip(
            VENDORS,
            (((43, 10), (87, 25)), ((52, 10), (93, 25)), ((156, 20), (342, 60))),
            strict=True,
        )
        for (was, limit), what, figure in zip(rows, ("mean", "P99"), (average, p99), strict=True)
    ),
    Target("baseline", "PostgreSQL, a statement on average", "2.3 ms", "ms", 1, statement),
    Target("stress", "answered, P99", "2,341 ms", "ms", 100, p99("all")),
    Target("stress", "failed", "0.88 %", "%", 0, failed),
    Target("spike", "answered, P99", "3,421 ms", "ms", 150, p99("all")),
    Target("spike", "back to calm", "47 s", "s", 2, lambda seen: seen.recovery or 0),
    Target("spike", "lost", "0", "", 0, lost),
    Target("sustained", "posts a minute", "7,000 on 4 nodes", "", 7_000, lambda seen: 60 * seen.rate, at_least=True),
    Target("sustained", "failed", "", "%", 0, failed),
    Target("sustained", "waiting at its end, in seconds of load", "", "s", 2, lambda seen: seen.left / seen.rate),
    Target("soak", "memory, growth after warm-up", "5.1 % in 4 h", "%", 1, growing),
    Target("soak", "failed", "", "%", 0, failed),
    Target("soak", "memory of the largest process", "2,100 MB a node", "MiB", 150, largest),
    Target("soak", "Redis", "234 MB", "MiB", 100, lambda seen: seen.redis_memory),
    Target("soak", "deadlocks", "0", "", 0, lambda seen: seen.counts.get("deadlocks", 0)),
)


def write(folder: Path, name: str, about: dict[str, str], rounds: Sequence[Seen]) -> Path:
    """`<name>.md` and `<name>.json`; returns the first."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"about": about, "targets": list(rows_of(rounds)), "rounds": [plain(seen) for seen in rounds]}
    (folder / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    for seen in spikes(rounds):
        (folder / f"{name}-spike.svg").write_text(draw(Panel("Answers through a spike", seen.line, [peak(seen)])))
    page = folder / f"{name}.md"
    page.write_text("\n".join(lines(name, about, rounds)) + "\n")
    return page


def spikes(rounds: Sequence[Seen]) -> list[Seen]:
    """The middle round of the spike by its P99, if there was one."""
    found = sorted((seen for seen in rounds if seen.phase == "spike"), key=p99("all"))
    return found[(len(found) - 1) // 2 :][:1]


def peak(seen: Seen) -> Band:
    """When there were more users than before and after."""
    start = seen.steps[0][1]
    users, seconds = seen.steps[1]
    return start, start + seconds, f"{seen.steps[0][0]} users, then {users}"


def plain(seen: Seen) -> dict[str, Any]:
    verdict = msgspec.to_builtins(seen.verdict) | {"kept": seen.verdict.kept}
    return {name: value for name, value in asdict(seen).items() if name != "verdict"} | {"verdict": verdict}


def rows_of(rounds: Sequence[Seen]) -> Iterable[Row]:
    for target in TARGETS:
        values = [target.figure(seen) for seen in rounds if seen.phase == target.phase]
        if values and not isnan(max(values)):  # too short, or not counted
            yield target.row(values)


def lines(name: str, about: dict[str, str], rounds: Sequence[Seen]) -> Iterable[str]:
    rows = list(rows_of(rounds))
    missed = [row for row in rows if not row["met"]]
    broken = [seen for seen in rounds if not seen.verdict.kept]
    yield f"# Load test, {name.removesuffix('-load')}\n"
    names = "; ".join(f"{row['phase']}: {row['what']}" for row in missed)
    yield f"Targets: {len(rows) - len(missed)} of {len(rows)} met." + (f" **Missed: {names}.**" if missed else "")
    yield promises(rounds, broken)
    yield "\n| About | |\n|---|---|"
    yield from (f"| {key} | {value} |" for key, value in about.items())
    yield "\n| Phase | | The replaced system | Target | Median, or worst where none is allowed | From, to | |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        low, high = min(row["rounds"]), max(row["rounds"])
        between = f"{short(low)}, {short(high)}" if len(row["rounds"]) > 1 else "one round"
        verdict = "met" if row["met"] else "**missed**"
        yield (
            f"| {row['phase']} | {row['what']} | {row['replaced']} | {row['target']} | {short(row['figure'])} "
            f"| {between} | {verdict} |"
        )
    for phase in dict.fromkeys(seen.phase for seen in rounds):
        yield from chapter(name, phase, [seen for seen in rounds if seen.phase == phase])


def promises(rounds: Sequence[Seen], broken: Sequence[Seen]) -> str:
    known = sum(seen.verdict.acknowledged for seen in rounds)
    if broken:
        return f"\n**Promises broken in {', '.join(seen.phase for seen in broken)}**: see there."
    return (
        f"\nAll {known:,} deliveries that were acknowledged, and every sample in them, were looked up: none is "
        "missing, none doubled."
    )


def chapter(report: str, phase: str, rounds: Sequence[Seen]) -> Iterable[str]:
    """Everything seen of a phase: the middle one of its rounds by P99."""
    seen = sorted(rounds, key=p99("all"))[(len(rounds) - 1) // 2]
    verdict = seen.verdict
    yield f"\n## {phase.capitalize()}\n"
    if phase == "spike":
        yield f"![Median and P99 of the answers through the spike, second by second]({report}-spike.svg)\n"
    yield (
        f"{seen.rate:.1f} posts/s for {seen.seconds:.0f} s; load average before it {seen.load_average:.1f}. Answers: "
        + ", ".join(f"{number:,} of {status}" for status, number in sorted(seen.statuses.items()))
        + f"; {seen.duplicates} known already. At the last answer {seen.left} deliveries were under way, "
        f"{seen.drained:.1f} s later none."
    )
    yield from (f"\n{number:,} times {problem}" for problem, number in seen.problems.items())
    yield (
        f"\nLooked up: {verdict.acknowledged:,} deliveries; {verdict.missing} missing, {verdict.doubled} doubled, "
        f"{verdict.confused} confused, {verdict.unasked} that nobody was told of, {verdict.unfinished} unfinished; "
        f"samples: {verdict.samples_missing} missing, {verdict.samples_doubled} doubled. States: "
        + ", ".join(f"{number:,} {state}" for state, number in verdict.states.items())
        + "."
    )
    if verdict.tried_again:
        yield (
            "\nTried again: " + ", ".join(f"{number:,} for {why}" for why, number in verdict.tried_again.items()) + "."
        )
    yield "\n| ms | count | mean | P50 | P95 | P99 |\n|---|---|---|---|---|---|"
    for title, found in (
        ("answered", seen.answered),
        ("received → stored (readable)", seen.stored),
        ("stored → published", seen.published),
    ):
        yield from (time_row(f"{title}, {label}", found[name]) for name, label in named(found))
    yield "\n| | |\n|---|---|"
    yield from (f"| {what} | {value} |" for what, value in facts(seen))
    yield from slow_rows(seen.slow)
    yield "\n| Process | CPU mean, % of a core | peak | Memory mean, MiB | peak | growth after warm-up |"
    yield "|---|---|---|---|---|---|"
    for name, cpu in seen.cpu.items():
        memory = seen.memory.get(name, {})
        yield (
            f"| {name} | {cpu['mean']:.0f} | {cpu['peak']:.0f} "
            f"| {memory.get('mean', 0):.0f} | {memory.get('peak', 0):.0f} "
            f"| {seen.growth.get(name, float('nan')):+.1f} % |"
        )


def slow_rows(slow: Sequence[Figures]) -> Iterable[str]:
    """The slowest seconds, in their order."""
    if not slow:
        return
    shown = sorted(sorted(slow, key=lambda each: -each["p99"])[:MOST_SLOW], key=lambda each: each["second"])
    yield f"\nIn {len(slow)} seconds the P99 was above {SLOW_MS} ms; the slowest of them:"
    yield "\n| Second | P99, ms | Kept by the host, ms | Waited for a disk, ms | Written, MiB | by a checkpoint |"
    yield "|---|---|---|---|---|---|"
    for each in shown:
        host = (f"{each[name]:.0f}" if name in each else "" for name in ("stolen", "waited", "written", "checkpointed"))
        yield f"| {each['second']:.0f} | {each['p99']:.0f} | {' | '.join(host)} |"


def named(found: dict[str, Figures]) -> list[tuple[str, str]]:
    return [(name, label) for name, label in (("all", "all"), *VENDORS) if name in found]


def time_row(label: str, found: Figures) -> str:
    return (
        f"| {label} | {found['count']:,.0f} | "
        + " | ".join(f"{found[each]:,.1f}" for each in ("mean", "p50", "p95", "p99"))
        + " |"
    )


def facts(seen: Seen) -> Iterable[tuple[str, str]]:
    counts = seen.counts
    commits, rows = total(counts, "auren_webhook_commits_total"), total(counts, "auren_webhook_commit_rows_total")
    calls = total(counts, "auren_vendor_calls_total")
    saved, hits = total(counts, "auren_vendor_calls_saved_total"), total(counts, "auren_vendor_cache_hits_total")
    waited = total(counts, "auren_delivery_slot_seconds_count")
    yield "samples a phone's batch", f"mean {seen.batch.get('mean', 0):.0f}, P95 {seen.batch.get('p95', 0):.0f}"
    yield "webhooks a group commit", f"{rows / commits:.1f}" if commits else "none"
    yield "a group commit", milliseconds(counts, "auren_webhook_commit_seconds")
    yield "a store transaction", milliseconds(counts, "auren_store_seconds")
    yield "samples stored", f"{total(counts, 'auren_samples_stored_total'):,.0f}"
    yield "vendor calls", f"{calls:,.0f}, {milliseconds(counts, 'auren_vendor_call_seconds')}"
    share = 100 * (saved + hits) / (calls + saved + hits) if calls else 0
    yield "calls saved", f"{saved:,.0f} shared with one under way, {hits:,.0f} from the cache: {share:.1f} %"
    yield "token refreshes", f"{total(counts, 'auren_token_refreshes_total{outcome=refreshed'):,.0f}"
    yield (
        "refreshes blocked",
        f"{total(counts, 'auren_token_refreshes_reused_total'):,.0f} waited and took the other's token",
    )
    slots = 1000 * total(counts, "auren_delivery_slot_seconds_sum") / waited if waited else 0
    yield "wait for a worker's slot", f"mean {slots:.1f} ms over {waited:,.0f}"
    yield "refused at the bound", f"{seen.statuses.get('503', 0)} of MAX_QUEUED_WEBHOOKS or MAX_BACKLOG (503)"
    yield "messages published", f"{total(counts, 'auren_messages_published_total'):,.0f}"
    if counts.get("statements"):
        yield "PostgreSQL's statements", f"mean {statement(seen):.2f} ms over {counts['statements']:,.0f}"
    yield "deadlocks", f"{counts.get('deadlocks', 0):.0f}"
    yield "bodies received", f"{seen.received / 1e6:.1f} MB ({8 * seen.received / seen.seconds / 1e6:.2f} Mbit/s)"
    yield "loopback, everything on this machine", f"{seen.loopback:.1f} Mbit/s"
    yield "processor, whole machine", f"mean {seen.machine['mean']:.0f} %, peak {seen.machine['peak']:.0f} %"
    if stolen := seen.host.get("stolen"):
        yield "kept by the host, a second", f"mean {stolen['mean']:.0f} ms, peak {stolen['peak']:.0f}"
    if written := seen.host.get("written"):
        yield "written to disks", f"mean {written['mean']:.1f} MiB/s, peak {written['peak']:.0f}"
    if stalled := seen.host.get("waited"):
        yield "waits for a disk, a second", f"mean {stalled['mean']:.0f} ms, peak {stalled['peak']:.0f}"
    if checkpoints := seen.host.get("checkpointed"):
        ended, most = seen.host["checkpoints"]["total"], checkpoints["peak"]
        yield "checkpoints", f"{ended:.0f} ended; {checkpoints['total']:.0f} MiB, at most {most:.0f} a second"
    yield "Redis memory", f"{seen.redis_memory:.1f} MiB"
    for name, found in seen.connections.items():
        yield f"connections: {name}", f"mean {found['mean']:.0f}, peak {found['peak']:.0f}"
    if seen.recovery is not None:
        yield "back to calm after the fall", f"{seen.recovery:.1f} s"


def milliseconds(counts: Figures, name: str) -> str:
    number = total(counts, f"{name}_count")
    return f"mean {1000 * total(counts, f'{name}_sum') / number:.1f} ms over {number:,.0f}" if number else "none"
