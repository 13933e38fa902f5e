"""The newest results of every part as a table in README.md, and a spike and an outage as a picture in docs/load.svg."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from auren.embedded.server import BASE_DIR
from bench.goals import Results, add_results
from bench.measuring import Seen
from bench.picture import Panel, draw
from bench.report import peak, spikes
from bench.table import REPORTS, Part, parts

BEGIN, END = "<!-- load test: begin -->", "<!-- load test: end -->"
OUTAGE = "postgresql"  # the one that is drawn
PICTURE = "docs/load.svg"


def block(every: Sequence[Part]) -> Iterator[str]:
    """What stands between the markers."""
    rows = [row for part in every for row in part.rows()]
    met = sum(row.met for row in rows)
    machines = " and ".join(dict.fromkeys(part.machine for part in every))
    yield f"{met} of {len(rows)} targets met on one machine that carried everything, the load too ({machines})."
    yield f"{', '.join(measured(every)).capitalize()}."
    yield f"\n![Median and P99 of the answers, second by second, through a spike and an outage]({PICTURE})\n"
    yield "| | The replaced system | Target | Ours | |\n|---|---|---|---|---|"
    yield from (f"| {row.what} | {row.replaced} | {row.target} | {row.figure} | {row.verdict} |" for row in rows)


def measured(every: Sequence[Part]) -> Iterator[str]:
    """Which parts were measured together."""
    for date, commit in dict.fromkeys((part.date, part.commit) for part in every):
        names = [part.name for part in every if (part.date, part.commit) == (date, commit)]
        yield f"{', '.join(names)}: {date}, commit {commit}"


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
    every = parts(results)
    kept = {part.name: part.results for part in every}
    for name in REPORTS:
        if name not in kept:
            raise SystemExit(f"No results named <date>-{name}.json in {results}: run `make bench-{name}` first.")
    readme = root / "README.md"
    page = between_markers(readme.read_text(), "\n".join(block(every)))
    drawn = picture(kept["load"], kept["faults"])
    (root / PICTURE).write_text(drawn)
    readme.write_text(page)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.readme", description=__doc__)
    add_results(parser)
    parser.add_argument("--root", type=Path, default=BASE_DIR, help="the folder of README.md and docs/ (this checkout)")
    options = parser.parse_args()
    write(options.results, options.root)
    print(f"Written to README.md and {PICTURE} in {options.root}.")


if __name__ == "__main__":
    main()
