"""All that has a target, one after the other, and then the table of it: bench/results/<date>.md and .json.

The load test alone takes an hour, on a machine that does nothing else. What fails is said, and the rest is measured all
the same.
"""

import argparse
import subprocess
import sys
from datetime import UTC, datetime

from auren.embedded.server import BASE_DIR
from bench import table
from bench.goals import add_results

# What each is told in a run for a glance, whose figures mean little.
PROGRAMS = {
    "load": ["--short"],
    "faults": ["--only", "postgresql"],
    "batches": ["--rounds", "1", "--batches", "30"],
    "sides": ["--rounds", "1", "--seconds", "2"],
    "calls": ["--rounds", "1", "--announcements", "500"],
    "store": ["--rounds", "1", "--others", "1"],
    "pages": ["--rounds", "3", "--days", "8"],
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few rounds of everything")
    parser.add_argument("--only", choices=list(PROGRAMS), action="append", help="one program; may be given again")
    add_results(parser)
    options = parser.parse_args()
    started_at = datetime.now(UTC)
    failed = []
    for name in options.only or PROGRAMS:
        print(f"\n=== bench.{name}, {datetime.now(UTC):%H:%M}", flush=True)
        told = [*(PROGRAMS[name] if options.short else []), "--results", str(options.results)]
        command = [sys.executable, "-m", f"bench.{name}", *told]
        if subprocess.run(command, cwd=BASE_DIR, check=False).returncode:  # noqa: S603 - our own programs
            failed.append(name)
    page = table.write(options.results, f"{started_at:%Y-%m-%d}")
    print(f"\n{page.read_text()}\nWritten to {page}.")
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}. What is kept of them is from before.")


if __name__ == "__main__":
    main()
