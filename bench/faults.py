"""What callers notice while PostgreSQL, Redis, Kafka or one of three nodes is away, under the baseline load, and what
is lost: nothing.

It is killed, so that connections are refused; or it is held still, so that they hang. Every acknowledged delivery is
looked up afterwards, as in `bench.load`.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import mean

from bench.breaking import Breaking, Moments, without_node, without_server
from bench.bridge import Bridge
from bench.load import CALM, about, add_common, check_locust, prepare, running
from bench.measuring import ANSWERS, Phase, Rig, Seen, count, percentile
from bench.nodes import check_haproxy
from bench.picture import Panel, draw
from bench.report import plain
from bench.verifying import ACCEPTED, Answer, read_answers

TITLES = (
    *("Away", "Replaced system", "Target", "Noticed by /health/ready, or the balancer", "Callers got"),
    *("Slowest answer while away", "Median before, while away", "P99 before, while away"),
    *("First 202 after it is back", "Well again", "Leases taken over after", "Drained after", "Tried again"),
    *("Lost", "Doubled", "Load average"),
)
BEFORE, AWAY, AFTER = 20, 15, 25  # seconds
NODE_AWAY = 40  # until others have its deliveries, whose leases are of 30 s


@dataclass
class Outcome:
    """Times in ms and seconds; `before` and `during` are of the answers to posts sent in those times."""

    fault: str
    gone: float  # from the first post, as `back`
    back: float
    noticed: float | None
    refused: dict[str, int]
    first_refusal: float | None
    last_refusal: float | None
    slowest: float
    before: dict[str, float]
    during: dict[str, float]
    first_accepted: float | None
    well: float | None
    taken_over: dict[str, float]
    seen: Seen

    @property
    def slower(self) -> float:
        """Percent, of the median answer."""
        return 100 * (self.during["p50"] / self.before["p50"] - 1)


# What an outcome may miss, in words; nothing where it does not.


def kept(outcome: Outcome) -> str:
    return "" if outcome.seen.verdict.kept else "a promise was broken"


def unrefused(outcome: Outcome) -> str:
    return f"{sum(outcome.refused.values())} refused" if outcome.refused else ""


def hardly_slower(outcome: Outcome) -> str:
    return f"{outcome.slower:.0f} % slower" if outcome.slower >= 5 else ""


def quick(outcome: Outcome) -> str:
    return f"an answer took {outcome.slowest:.0f} ms" if outcome.slowest >= 1000 else ""


def back_at_once(outcome: Outcome) -> str:
    late = outcome.first_accepted is None or outcome.first_accepted >= 1
    return "back after more than 1 s" if late else ""


def left_out(outcome: Outcome) -> str:
    return "" if outcome.noticed is not None and outcome.noticed < 2 else "in the balancer for more than 2 s"


def failed_over(outcome: Outcome) -> str:
    late = outcome.last_refusal is not None and outcome.last_refusal >= 2
    return f"posts failed for {outcome.last_refusal:.1f} s" if late else ""


Check = Callable[[Outcome], str]


@dataclass(frozen=True)
class Fault:
    """`scene` sets it up beside a bridge; `what` is for people; `away` is in seconds."""

    name: str
    what: str
    scene: Callable[[Bridge], AbstractContextManager[Breaking]]
    replaced: str
    target: str
    checks: tuple[Check, ...]
    away: int = AWAY

    @property
    def seconds(self) -> int:
        return BEFORE + self.away + AFTER


def server(name: str, title: str, replaced: str, target: str, *checks: Check, called: str = "") -> tuple[Fault, Fault]:
    """Killed, and hanging; `called` where the report has another name than the process."""
    gone, still = (partial(without_server, server=name, hangs=hangs) for hangs in (False, True))
    return (
        Fault(called or name, f"{title} is away", gone, replaced, target, checks),
        Fault(f"{called or name}-hangs", f"{title} hangs", still, "", target, checks),
    )


FAULTS = (
    *server("postgresql", "PostgreSQL", "503 in < 1 s, 0 lost", "the same, and < 1 s back", quick, back_at_once),
    *server("valkey", "Redis", "15 % slower", "< 5 % slower, no error", unrefused, hardly_slower, called="redis"),
    *server("kafka", "Kafka", "503 after 12 s", "0 refused, 0 lost", unrefused),
    Fault(
        "node",
        "one of three nodes is killed",
        partial(without_node, hangs=False),
        "4 s, 0 lost",
        "< 2 s, 0 lost, nothing stored twice",
        (left_out, failed_over),
        NODE_AWAY,
    ),
    Fault(
        "node-hangs",
        "one of three nodes hangs",
        partial(without_node, hangs=True),
        "",
        "0 lost, nothing stored twice",
        (),
        NODE_AWAY,
    ),
)


def outcome_of(fault: Fault, moments: Moments, answers: Sequence[Answer], seen: Seen) -> Outcome:
    gone, back = moments.gone, moments.back or moments.gone + fault.away
    before = [each for each in answers if each.at + each.ms / 1000 < gone]
    during = [each for each in answers if gone <= each.at < gone + fault.away]
    refusals = sorted(each.at + each.ms / 1000 - gone for each in answers if each.status != ACCEPTED)
    accepted = [each.at + each.ms / 1000 for each in answers if each.status == ACCEPTED]
    first = min(each.at for each in answers)
    return Outcome(
        fault=fault.name,
        gone=gone - first,
        back=back - first,
        noticed=since(moments.noticed, gone),
        refused=count(str(each.status) for each in answers if each.status != ACCEPTED),
        first_refusal=refusals[0] if refusals else None,
        last_refusal=refusals[-1] if refusals else None,
        slowest=max(each.ms for each in during),
        before=times_of(before),
        during=times_of(during),
        first_accepted=min((at - back for at in accepted if at >= back), default=None),
        well=since(moments.well, back),
        taken_over={kind: moment - gone for kind, moment in moments.taken_over.items()},
        seen=seen,
    )


def since(moment: float, start: float) -> float | None:
    return max(0.0, moment - start) if moment else None


def times_of(answers: Sequence[Answer]) -> dict[str, float]:
    ordered = sorted(each.ms for each in answers)
    return {"mean": mean(ordered), "p50": percentile(ordered, 0.5), "p99": percentile(ordered, 0.99)}


def missed(fault: Fault, outcome: Outcome) -> list[str]:
    """The targets that this outcome misses, in words."""
    return [words for check in (kept, *fault.checks) if (words := check(outcome))]


def lines(about: dict[str, str], outcomes: Sequence[tuple[Fault, Outcome]]) -> Iterable[str]:
    broken = [(fault.name, missed(fault, outcome)) for fault, outcome in outcomes]
    words = "; ".join(f"{name}: {', '.join(wrong)}" for name, wrong in broken if wrong)
    yield "# Faults under the baseline load\n"
    yield f"**Missed: {words}.**" if words else "Every target was met."
    yield (
        f"\n{CALM} users; each server away for {AWAY} s, a node for {NODE_AWAY} s, after {BEFORE} s of calm. "
        "Every promise was looked up."
    )
    yield "\n| About | |\n|---|---|"
    yield from (f"| {key} | {value} |" for key, value in about.items())
    yield f"\n| {' | '.join(TITLES)} |"
    yield "|---" * len(TITLES) + "|"
    yield from (row(fault, outcome) for fault, outcome in outcomes)


def picture(fault: Fault, outcome: Outcome) -> str:
    return draw(Panel(f"Answers while {fault.what}", outcome.seen.line, [(outcome.gone, outcome.back, "outage")]))


def row(fault: Fault, outcome: Outcome) -> str:
    verdict, before, during = outcome.seen.verdict, outcome.before, outcome.during
    cells = (
        fault.name,
        fault.replaced,
        fault.target,
        seconds(outcome.noticed, "never"),
        got(outcome),
        f"{outcome.slowest:,.0f} ms",
        f"{before['p50']:.1f}, {during['p50']:.1f} ms ({outcome.slower:+.0f} %)",
        f"{before['p99']:.1f}, {during['p99']:.1f} ms",
        seconds(outcome.first_accepted, "never"),
        seconds(outcome.well, "never"),
        ", ".join(f"{kind} {taken:.1f} s" for kind, taken in sorted(outcome.taken_over.items())),
        f"{outcome.seen.drained:.1f} s",
        ", ".join(f"{number}: {why}" for why, number in verdict.tried_again.items()),
        str(verdict.missing + verdict.samples_missing),
        str(verdict.doubled + verdict.samples_doubled + verdict.stored_twice),
        f"{outcome.seen.load_average:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def got(outcome: Outcome) -> str:
    """0 is no answer at all."""
    if not outcome.refused:
        return "202"
    refused = ", ".join(f"{number} of {status}" for status, number in sorted(outcome.refused.items()))
    return f"202; {refused}, the first after {outcome.first_refusal:.2f} s, the last after {outcome.last_refusal:.2f} s"


def seconds(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value:.2f} s"


def break_one(rig: Rig, fault: Fault, folder: Path) -> Outcome:
    phase = Phase(fault.name, ((CALM, fault.seconds),))
    with fault.scene(rig.bridge) as breaking:
        loaded = replace(rig, bridge=breaking.bridge)
        seen = loaded.measure(phase, folder, lambda: breaking.run(folder / ANSWERS, BEFORE, fault.away))
    return outcome_of(fault, breaking.moments, read_answers(folder / ANSWERS), seen)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    names = [fault.name for fault in FAULTS]
    parser.add_argument("--only", action="append", choices=names, help="one fault; may be repeated")
    add_common(parser)
    options = parser.parse_args()
    check_locust(options.locust)
    wanted = [fault for fault in FAULTS if fault.name in (options.only or names)]
    if any(fault.name.startswith("node") for fault in wanted):
        check_haproxy()
    started_at = datetime.now(UTC)
    outcomes: list[tuple[Fault, Outcome]] = []
    with running(options.beside) as loaded, tempfile.TemporaryDirectory(prefix="auren-faults-") as name:
        prepare(loaded, options.people, options.token_seconds)
        rig = Rig(loaded, options.locust, options.people)
        for fault in wanted:
            print(f"{fault.name}: {fault.seconds} s; load average {os.getloadavg()[0]:.1f} ...", flush=True)
            outcome = break_one(rig, fault, Path(name))
            outcomes.append((fault, outcome))
            print(f"  {row(fault, outcome)}\n  {outcome.seen.verdict}", flush=True)
        facts = about(rig, options)
    write(options.results, f"{started_at:%Y-%m-%d}-faults", facts, outcomes)
    if not all(outcome.seen.verdict.kept for _, outcome in outcomes):
        raise SystemExit("A promise was broken.")


def write(folder: Path, name: str, about: dict[str, str], outcomes: Sequence[tuple[Fault, Outcome]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = [
        {"name": fault.name, "what": fault.what, "replaced": fault.replaced, "target": fault.target}
        | {"missed": missed(fault, outcome)}
        | {key: value for key, value in vars(outcome).items() if key != "seen"}
        | {"seen": plain(outcome.seen)}
        for fault, outcome in outcomes
    ]
    (folder / f"{name}.json").write_text(json.dumps({"about": about, "faults": found}, indent=1) + "\n")
    for fault, outcome in outcomes:
        (folder / f"{name}-{fault.name}.svg").write_text(picture(fault, outcome))
    page = folder / f"{name}.md"
    page.write_text("\n".join(lines(about, outcomes)) + "\n")
    print(f"\n{page.read_text()}\nWritten to {page}.")


if __name__ == "__main__":
    main()
