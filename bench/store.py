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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from auren.embedded.postgres import Postgres
from auren.embedded.server import BASE_DIR

# What is loaded for reading goes past the WAL; the parts that write have PostgreSQL as it is.
PARTS: dict[str, dict[str, str]] = {
    "storing": {},
    "settling": {},
    "reading": {"wal_level": "minimal", "max_wal_senders": "0"},
    "searching": {"wal_level": "minimal", "max_wal_senders": "0"},
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


def rates_of(part: str, settings: dict[str, str], *arguments: str) -> dict[str, list[float]]:
    """What a part that takes turns with others has seen: of each its rounds, by how many a second."""
    with tempfile.TemporaryDirectory(prefix="auren-bench-") as folder:
        found = Path(folder) / "rates.json"
        run(settings | {"LOG_LEVEL": "ERROR"}, "-m", f"bench.parts.{part}", "--into", str(found), *arguments)
        rates: dict[str, list[float]] = json.loads(found.read_text())
    return rates


def run(settings: dict[str, str], *arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], env=os.environ | settings, cwd=BASE_DIR, check=True)  # noqa: S603


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.store", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of storing, each with both ways (5)")
    parser.add_argument("--others", type=int, default=10, metavar="MILLIONS", help="rows of other people (10)")
    parser.add_argument("--only", choices=list(PARTS), action="append", help="one part; may be given again")
    parser.add_argument("--folder", type=Path, help="where the data lie meanwhile: 100 million rows take 25 GB")
    options = parser.parse_args()
    others = [str(options.others)]
    arguments = {"storing": ["--rounds", str(options.rounds)], "reading": others, "searching": others}
    for part in options.only or PARTS:
        print(f"\n{part}; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
        with database(options.folder, PARTS[part]) as settings:
            run(settings, "-m", f"bench.parts.{part}", *arguments.get(part, []))


if __name__ == "__main__":
    main()
