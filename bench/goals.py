"""Figures to reach, and what was seen of them, kept as files.

Each program of this folder that measures some of them keeps them apart, as `<date>-<part>.json` in one folder, so that
a part can be measured anew without the others. `bench.table` puts them together.
"""

import argparse
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench.measuring import machine, revision

RESULTS = Path(__file__).parent / "results"
DATE = r"\d{4}-\d{2}-\d{2}"

Results = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """A figure of each round of `phase`. It is met where the median is below `limit`, or at least that; where the limit
    is none at all, the worst round decides. `was` is the replaced system's, as it reported it."""

    phase: str
    what: str
    was: str
    unit: str
    limit: float
    at_least: bool = field(default=False, kw_only=True)

    def of(self, rounds: Sequence[float]) -> float:
        return median(rounds) if self.limit else max(rounds)

    def met(self, value: float) -> bool:
        if self.at_least:
            return value >= self.limit
        return value < self.limit if self.limit else value == 0

    @property
    def wanted(self) -> str:
        sign = "≥" if self.at_least else "<" if self.limit else ""
        return f"{sign} {self.limit:,g} {self.unit}".strip()

    def row(self, rounds: Sequence[float]) -> Row:
        """What was seen of it, as it is kept."""
        figure = self.of(rounds)
        return {
            "phase": self.phase,
            "what": self.what,
            "replaced": self.was,
            "target": self.wanted,
            "unit": self.unit,
            "figure": figure,
            "rounds": list(rounds),
            "met": self.met(figure),
        }


def add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="(bench/results)")


def keep(folder: Path, part: str, rows: Sequence[Row]) -> None:
    """Write `<date>-<part>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    about = machine() | {"commit": revision(), "load average at the end": f"{os.getloadavg()[0]:.1f}"}
    path = folder / f"{datetime.now(UTC):%Y-%m-%d}-{part}.json"
    path.write_text(json.dumps({"about": about, "targets": list(rows)}, indent=1) + "\n")
    print(f"  Written to {path}.", flush=True)


def newest(folder: Path, part: str) -> tuple[str, Results] | None:
    """The date of the last results of a part, and what is in them."""
    found = sorted(each for each in folder.glob("*.json") if re.fullmatch(f"{DATE}-{part}", each.stem))
    return (found[-1].stem.removesuffix(f"-{part}"), json.loads(found[-1].read_text())) if found else None


def short(value: float) -> str:
    if 0 < abs(value) < 1:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:,.1f}"
