"""The newest results of `bench.load` and `bench.faults` as a table in README.md, and as a picture in docs/load.svg."""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from auren.embedded.server import BASE_DIR
from bench.measuring import Seen
from bench.picture import Panel, draw
from bench.report import peak, short, spikes

BEGIN, END = "<!-- load test: begin -->", "<!-- load test: end -->"
RESULTS = Path(__file__).parent / "results"
OUTAGE = "postgresql"  # the one that is drawn
PICTURE = "docs/load.svg"
DATE = r"\d{4}-\d{2}-\d{2}"

Results = dict[str, Any]


def newest(folder: Path, suffix: str, command: str) -> tuple[str, Results]:
    """The date of the last results whose file is named <date><suffix>.json, and what is in it."""
    found = sorted(each for each in folder.glob("*.json") if re.fullmatch(DATE + suffix, each.stem))
    if not found:
        raise SystemExit(f"No results named <date>{suffix}.json in {folder}: run `make {command}` first.")
    return found[-1].stem.removesuffix(suffix), json.loads(found[-1].read_text())


def block(load: tuple[str, Results], faults: tuple[str, Results]) -> Iterator[str]:
    """What stands between the markers."""
    rows = [*load_rows(load[1]), *fault_rows(faults[1])]
    met = sum(row[-1] == "met" for row in rows)
    machine = f"{load[1]['about']['processor']}, {load[1]['about']['memory']}"
    yield f"{met} of {len(rows)} targets met on one machine that carried everything, the load too ({machine})."
    yield f"Load {measured(*load)}; outages {measured(*faults)}."
    yield f"\n![Median and P99 of the answers, second by second, through a spike and an outage]({PICTURE})\n"
    yield "| | The replaced system | Target | Ours | |\n|---|---|---|---|---|"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def measured(date: str, results: Results) -> str:
    return f"{date}, commit {results['about']['commit']}"


def load_rows(results: Results) -> Iterator[Sequence[str]]:
    for row in results["targets"]:
        unit = row["target"].rpartition(" ")[2]
        figure = f"{short(row['figure'])} {'' if unit.replace(',', '').isdigit() else unit}".strip()
        verdict = "met" if row["met"] else "**missed**"
        yield f"{row['phase']}: {row['what']}", row["replaced"], row["target"], figure, verdict


def fault_rows(results: Results) -> Iterator[Sequence[str]]:
    """Of those that the replaced system was put through."""
    for fault in results["faults"]:
        if fault["replaced"]:
            missed = f"**missed**: {', '.join(fault['missed'])}" if fault["missed"] else "met"
            yield fault["what"], fault["replaced"], fault["target"], seen_of(fault), missed


def seen_of(fault: Results) -> str:
    verdict = fault["seen"]["verdict"]
    noticed = "never noticed" if fault["noticed"] is None else f"noticed after {fault['noticed']:.1f} s"
    return (
        f"{verdict['missing'] + verdict['samples_missing']} lost, {sum(fault['refused'].values()):,} not accepted, "
        f"slowest answer {fault['slowest']:,.0f} ms, "
        f"median {fault['before']['p50']:.1f} ms before and {fault['during']['p50']:.1f} ms meanwhile, {noticed}"
    )


def picture(load: Results, faults: Results) -> str:
    """Latency through the middle spike and through an outage, one above the other."""
    middle = spikes([msgspec.convert(each, Seen) for each in load["rounds"]])
    panels = [Panel("Answers through a spike", each.line, [peak(each)]) for each in middle]
    panels += [
        Panel(f"Answers while {each['what']}", each["seen"]["line"], [(each["gone"], each["back"], "outage")])
        for each in faults["faults"]
        if each["name"] == OUTAGE
    ]
    if len(panels) < 2:
        raise SystemExit(f"The picture needs a spike and the fault {OUTAGE}: run both without --only.")
    return draw(*panels)


def between_markers(page: str, text: str) -> str:
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"The README lacks the lines {BEGIN} and {END}: put them where the table belongs.")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def write(results: Path, root: Path) -> None:
    """README.md and the picture in `root`."""
    load, faults = newest(results, "", "bench"), newest(results, "-faults", "bench-faults")
    readme = root / "README.md"
    page = between_markers(readme.read_text(), "\n".join(block(load, faults)))
    drawn = picture(load[1], faults[1])
    (root / PICTURE).write_text(drawn)
    readme.write_text(page)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.readme", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="(bench/results)")
    parser.add_argument("--root", type=Path, default=BASE_DIR, help="the folder of README.md and docs/ (this checkout)")
    options = parser.parse_args()
    write(options.results, options.root)
    print(f"Written to README.md and {PICTURE} in {options.root}.")


if __name__ == "__main__":
    main()
