"""The newest results of every part as one table: the replaced system's figure, the target, ours, whether it is met."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.goals import Results, Row, newest, short

# By the command that measures them; the load test and the outages are reports of their own as well.
PARTS = {
    "load": "bench.load",
    "faults": "bench.faults",
    "batches": "bench.batches",
    "ingest": "bench.sides",
    "claims": "bench.sides",
    "calls": "bench.calls",
    "storing": "bench.store",
    "settling": "bench.store",
    "reading": "bench.store",
    "searching": "bench.store",
    "pages": "bench.pages",
}
REPORTS = ("load", "faults")


@dataclass(frozen=True)
class Part:
    name: str
    date: str
    results: Results

    @property
    def commit(self) -> str:
        return str(self.results["about"]["commit"])

    @property
    def machine(self) -> str:
        return f"{self.results['about']['processor']}, {self.results['about']['memory']}"

    def rows(self) -> Iterator["Line"]:
        for row in self.results.get("targets", ()):
            yield line_of(row)
        for fault in self.results.get("faults", ()):
            # What the replaced system was put through, and whatever went wrong.
            if fault["replaced"] or fault["missed"]:
                missed = ", ".join(fault["missed"])
                yield Line(fault["what"], fault["replaced"], fault["target"], seen_of(fault), "", not missed, missed)


@dataclass(frozen=True)
class Line:
    """One row for people. `between` are its lowest and highest round, `why` says what of several was missed."""

    what: str
    replaced: str
    target: str
    figure: str
    between: str
    met: bool
    why: str = ""

    @property
    def verdict(self) -> str:
        return "met" if self.met else f"**missed**{f': {self.why}' if self.why else ''}"


def line_of(row: Row) -> Line:
    figure, low, high = (f"{short(each)} {row['unit']}".strip() for each in (row["figure"], *span(row["rounds"])))
    between = f"{low} to {high}" if len(row["rounds"]) > 1 else "one round"
    return Line(f"{row['phase']}: {row['what']}", row["replaced"], row["target"], figure, between, row["met"])


def span(rounds: Sequence[float]) -> tuple[float, float]:
    return min(rounds), max(rounds)


def seen_of(fault: Results) -> str:
    verdict = fault["seen"]["verdict"]
    noticed = "never noticed" if fault["noticed"] is None else f"noticed after {fault['noticed']:.1f} s"
    return (
        f"{verdict['missing'] + verdict['samples_missing']} lost, {sum(fault['refused'].values()):,} not accepted, "
        f"slowest answer {fault['slowest']:,.0f} ms, "
        f"median {fault['before']['p50']:.1f} ms before and {fault['during']['p50']:.1f} ms meanwhile, {noticed}"
    )


def parts(folder: Path) -> list[Part]:
    """Those of which there are results, in the order of PARTS."""
    found = ((name, newest(folder, name)) for name in PARTS)
    return [Part(name, *kept) for name, kept in found if kept]


def write(folder: Path, date: str) -> Path:
    """`<date>.md` and `<date>.json`, out of the newest results of every part; returns the first."""
    every = parts(folder)
    kept = [
        {"part": part.name, "date": part.date, "commit": part.commit, "what": row.what, "replaced": row.replaced}
        | {"target": row.target, "figure": row.figure, "rounds": row.between, "met": row.met, "missed": row.why}
        for part in every
        for row in part.rows()
    ]
    (folder / f"{date}.json").write_text(json.dumps(kept, indent=1) + "\n")
    page = folder / f"{date}.md"
    page.write_text("\n".join(lines(date, every)) + "\n")
    return page


def lines(date: str, every: Sequence[Part]) -> Iterator[str]:
    rows = [row for part in every for row in part.rows()]
    missed = [row.what for row in rows if not row.met]
    yield f"# Every target, {date}\n"
    yield f"{len(rows) - len(missed)} of {len(rows)} met." + (f" **Missed: {'; '.join(missed)}.**" if missed else "")
    if absent := [name for name in PARTS if name not in {part.name for part in every}]:
        yield f"\nNot measured: {', '.join(absent)}."
    yield "\n| | The replaced system | Target | Ours: median, or worst where none is allowed | From, to | |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        yield f"| {row.what} | {row.replaced} | {row.target} | {row.figure} | {row.between} | {row.verdict} |"
    yield "\n| Part | Measured by | On | Commit | Machine |\n|---|---|---|---|---|"
    for part in every:
        name = f"[{part.name}]({part.date}-{part.name}.md)" if part.name in REPORTS else part.name
        yield f"| {name} | `python -m {PARTS[part.name]}` | {part.date} | {part.commit} | {part.machine} |"
