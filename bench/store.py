"""Does the store keep up? Samples a second, settling, one day out of a year, support's search for samples, and sizes.

A PostgreSQL of its own, embedded, as `manage.py up` runs it (fsync on). The parts run one after the other, each in a
process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from auren.embedded.postgres import Postgres
from auren.embedded.server import BASE_DIR
from bench.goals import Goal, Row, add_results, keep

# What is loaded for reading goes past the WAL; the parts that write have PostgreSQL as it is.
PARTS: dict[str, dict[str, str]] = {
    "storing": {},
    "settling": {},
    "reading": {"wal_level": "minimal", "max_wal_senders": "0"},
    "searching": {"wal_level": "minimal", "max_wal_senders": "0"},
}
DAY = "a day out of a year of 5-second heart rate to JSON"
GOALS = {
    "storing": {
        "one worker": Goal("one worker", "samples stored a second", "", "", 30_000, at_least=True),
        "ratio": Goal("one worker", "beside SQLAlchemy's multi-VALUES upsert", "", "x", 10, at_least=True),
    },
    "settling": {"settled": Goal("conflicts", "a 1,000-sample batch settled", "45 ms", "ms", 10)},
    "reading": {
        "alone": Goal("timeline", DAY, "", "ms", 100),
        "among others": Goal("timeline", f"{DAY}, {{others}} million rows of others", "", "ms", 100),
    },
    "searching": {"among others": Goal("samples", "support's search, {others} million rows of others", "", "ms", 200)},
}


@contextmanager
def database(parent: Path | None, server_settings: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A migrated database that is gone afterwards, and the environment that leads to it."""
    with (
        tempfile.TemporaryDirectory(prefix="auren-bench-", dir=parent) as name,
        Postgres(folder := opened(name), "only-for-measurements", settings=server_settings) as server,
    ):
        settings = {
            "AUREN_VAR": str(folder),
            "AUREN_ENV_FILE": os.devnull,
            "AUREN_SANDBOX": "1",
            "DATABASE_URL": server.url,
            "REDIS_URL": "",
            "SECRET_KEY": "signs-nothing-outside-this-measurement-0123456789",
            "DJANGO_SETTINGS_MODULE": "auren.settings",
        }
        run(settings, str(BASE_DIR / "manage.py"), "migrate", "--verbosity", "0")
        yield settings


def opened(name: str) -> Path:
    """The folder, such that PostgreSQL's user passes through."""
    folder = Path(name)
    folder.chmod(0o711)
    (folder / "static").mkdir()  # whose absence Django would mention
    return folder


def figures_of(part: str, settings: dict[str, str], *arguments: str) -> dict[str, list[float]]:
    """What a part has seen: each figure's rounds, by what was measured."""
    with tempfile.TemporaryDirectory(prefix="auren-bench-") as folder:
        found = Path(folder) / "figures.json"
        run(settings | {"LOG_LEVEL": "ERROR"}, "-m", f"bench.parts.{part}", "--into", str(found), *arguments)
        figures: dict[str, list[float]] = json.loads(found.read_text())
    return figures


def rows_of(part: str, figures: Mapping[str, Sequence[float]]) -> list[Row]:
    """Those of its figures that have a goal."""
    seen = {**figures}
    if part == "storing":
        seen["ratio"] = [ours / theirs for ours, theirs in zip(seen["one worker"], seen["SQLAlchemy"], strict=True)]
    return [goal.row(seen[name]) for name, goal in GOALS[part].items()]


def run(settings: dict[str, str], *arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], env=os.environ | settings, cwd=BASE_DIR, check=True)  # noqa: S603


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.store", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of storing, each with both ways (5)")
    parser.add_argument("--others", type=int, default=10, metavar="MILLIONS", help="rows of other people (10)")
    parser.add_argument("--only", choices=list(PARTS), action="append", help="one part; may be given again")
    parser.add_argument("--folder", type=Path, help="where the data lie meanwhile: 100 million rows take 25 GB")
    add_results(parser)
    options = parser.parse_args()
    others = [str(options.others)]
    arguments = {"storing": ["--rounds", str(options.rounds)], "reading": others, "searching": others}
    for part in options.only or PARTS:
        print(f"\n{part}; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
        with database(options.folder, PARTS[part]) as settings:
            figures = figures_of(part, settings, *arguments.get(part, []))
        rows = rows_of(part, figures)
        for row in rows:
            row["what"] = row["what"].format(others=options.others)
        keep(options.results, part, rows)


if __name__ == "__main__":
    main()
