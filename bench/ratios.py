"""Has ours become slower than what it is measured beside? Ratios only, in short rounds that take turns: CI's bench.

bench/ratios.json says what to expect. Machines differ, and others share them, so a ratio may lose a third of that. One
that has lost more is measured once more, and the better of both counts. What ours is measured beside does not change
with this repository, so a ratio that falls says that ours has become slower; but for its own code one delivery at a
time, which says whether batches still pay.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from bench import sides
from bench.store import database, figures_of

FILE = Path(__file__).with_name("ratios.json")
LEFT = 2 / 3  # of what is expected
RISEN = 1.5  # times what is expected: that holds nothing any more
ADVICE = """
A ratio falls when ours becomes slower: with `make bench-ratios ARGS="--only KIND"` before and after a change you see
whether it was this one. Where it is meant, or something else is measured now, run
`make bench-ratios ARGS="--record --rounds 9"` on a machine that does nothing else, and commit bench/ratios.json with
the reason."""

Ratios = dict[str, float]


def ingest(rounds: int, settings: dict[str, str]) -> Ratios:
    names = [sides.BARE, sides.OURS]
    with tempfile.TemporaryDirectory(prefix="auren-sides-") as folder:
        found = sides.rates(sides.measure(2, rounds, Path(folder), settings, names))
    return {"the bridge beside a bare ASGI reply": sides.ratio(found[sides.OURS], found[sides.BARE])}


def store(rounds: int, settings: dict[str, str]) -> Ratios:
    found = figures_of("storing", settings, "--rounds", str(rounds), "--deliveries", "60")
    ratio = sides.ratio(found["one worker"], found["SQLAlchemy"])
    return {"one worker beside SQLAlchemy's multi-VALUES upsert": ratio}


def claims(rounds: int, settings: dict[str, str]) -> Ratios:
    ours, *others = names = [sides.WORKER, "the same, one each", "a simple queue"]
    chosen = [argument for name in names for argument in ("--side", name)]
    found = figures_of("claiming", settings, "--rounds", str(rounds), "--seconds", "1.5", *chosen)
    return {f"{ours} beside {other}": sides.ratio(found[ours], found[other]) for other in others}


KINDS: dict[str, Callable[[int, dict[str, str]], Ratios]] = {"ingest": ingest, "store": store, "claims": claims}


def measure(kinds: Collection[str], rounds: int) -> Ratios:
    """Ratios by name, which begins with the kind. Each kind has a database of its own."""
    seen: Ratios = {}
    for kind in kinds:
        print(f"\n{kind}; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
        with database(None, {}) as settings:
            seen |= {f"{kind}: {name}": ratio for name, ratio in KINDS[kind](rounds, settings).items()}
    return seen


def kind_of(name: str) -> str:
    return name.partition(":")[0]


def judge(expected: Mapping[str, float], seen: Mapping[str, float], again: Callable[[list[str]], Ratios]) -> None:
    """Print what was seen, and exit with 1 where something is wrong. `again` measures kinds once more."""
    if low := fallen(expected, seen):
        second = again(list(dict.fromkeys(kind_of(name) for name in low)))
        seen = {name: max(ratio, second.get(name, ratio)) for name, ratio in seen.items()}
    print(f"\n{table(expected, seen)}")
    if complaints := [*mismatches(expected, seen), *losses(expected, seen)]:
        raise SystemExit("\n".join(["", *complaints, ADVICE]))


def fallen(expected: Mapping[str, float], seen: Mapping[str, float]) -> list[str]:
    """Those that have lost more than a third."""
    return [name for name, ratio in seen.items() if ratio < LEFT * expected.get(name, 0)]


def mismatches(expected: Mapping[str, float], seen: Mapping[str, float]) -> list[str]:
    new = [f"{name}: {FILE.name} does not say what to expect." for name in seen if name not in expected]
    return new + [f"{name}: expected, and nothing measured it." for name in expected if name not in seen]


def losses(expected: Mapping[str, float], seen: Mapping[str, float]) -> list[str]:
    said = "{}: {:.2f}, and {:.2f} are expected. Twice it lost more than a third, which would be {:.2f}."
    return [said.format(name, seen[name], expected[name], LEFT * expected[name]) for name in fallen(expected, seen)]


def table(expected: Mapping[str, float], seen: Mapping[str, float]) -> str:
    rows = [f"  {'':60} {'expected':>8} {'least':>8} {'seen':>8}"]
    for name, ratio in seen.items():
        wanted = expected.get(name, 0.0)
        hint = "  has risen: record it" if wanted and ratio > RISEN * wanted else ""
        rows.append(f"  {name:60} {wanted:8.2f} {LEFT * wanted:8.2f} {ratio:8.2f}{hint}")
    return "\n".join(rows)


def of(kinds: Collection[str], ratios: Mapping[str, float]) -> Ratios:
    return {name: ratio for name, ratio in ratios.items() if kind_of(name) in kinds}


def record(path: Path, kinds: Collection[str], seen: Mapping[str, float]) -> None:
    """Expect what was seen of these kinds; what was expected of others stays."""
    expected: Ratios = json.loads(path.read_text())
    others = of(set(KINDS) - set(kinds), expected)
    known = others | {name: round(ratio, 2) for name, ratio in seen.items()}
    path.write_text(json.dumps(dict(sorted(known.items())), indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ratios", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=list(KINDS), action="append", help="one kind; may be given again")
    parser.add_argument("--record", action="store_true", help=f"expect from now on what is seen: writes {FILE.name}")
    options = parser.parse_args()
    kinds = options.only or list(KINDS)
    if "ingest" in kinds:
        sides.need_wrk(parser)
    expected = of(kinds, json.loads(FILE.read_text()))
    seen = measure(kinds, options.rounds)
    if options.record:
        print(f"\n{table(expected, seen)}")
        record(FILE, kinds, seen)
    else:
        judge(expected, seen, lambda kinds: measure(kinds, options.rounds))


if __name__ == "__main__":
    main()
