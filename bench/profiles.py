"""Where the CPU time of ingest, the worker, the publisher and a timeline goes: flame graphs by py-spy, an SVG each.

Ingest is one web process under wrk, as in `bench.sides`. Worker and publisher are those of a bridge that 200 users post
to, as in `bench.load`. The timeline is a week of a heart rate every 5 seconds, read again and again as its page reads
it, with nothing cached. An open SVG tells each function's share, and finds one by its name (Ctrl+F).
"""

import argparse
import itertools
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]

from auren.embedded.server import BASE_DIR
from bench.bridge import WEB, serving
from bench.load import HIGH, add_common, check_locust, prepare, running
from bench.measuring import Phase, Rig
from bench.parts.clinic import PASSWORD, PATIENT
from bench.sides import SECRET, fire, need_wrk, write_bodies, write_script
from bench.store import database, run

A_SECOND = 200  # samples
WARM_SECONDS = 5
PEOPLE = 5_000
WEEK = timedelta(days=7)
BODIES_A_SECOND = 20_000
TITLE = re.compile(r'(id="title"[^>]*>)[^<]*<')
MADE = Path(__file__).parent / "profiles"


@contextmanager
def recorded(pids: Sequence[int], seconds: int, into: Path) -> Iterator[None]:
    """A picture of each process, for so long from here on: `into`, with a number where there are several."""
    py_spy = BASE_DIR / ".venv-bench" / "bin" / "py-spy"
    names = [into] if len(pids) == 1 else [into.with_stem(f"{into.stem}-{place}") for place, _ in enumerate(pids)]
    made = [
        subprocess.Popen(  # noqa: S603 - our own command
            [str(py_spy), "record", f"--pid={pid}", f"--duration={seconds}", f"--rate={A_SECOND}", f"--output={name}"],
            stdout=subprocess.DEVNULL,
        )
        for pid, name in zip(pids, names, strict=True)
    ]
    try:
        yield
    finally:
        codes = [each.wait() for each in made]
    if any(codes):
        raise SystemExit("py-spy failed: it has to be allowed to look at other processes (root, or SYS_PTRACE).")
    for name in names:  # py-spy writes its own command there, with this machine's folders
        name.write_text(TITLE.sub(rf"\g<1>{name.stem}<", name.read_text()))


def web() -> int:
    """The web process that `serving` has started: the child of its master, which is ours."""
    masters = [child for child in psutil.Process().children() if "gunicorn" in child.cmdline()]
    return int(masters[0].children()[0].pid)


def ingest(seconds: int, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="auren-profiles-") as name, database(None, {}) as settings:
        script, bodies = write_script(Path(name)), Path(name) / "bodies"
        with serving(WEB, settings | {"OURA_CLIENT_SECRET": SECRET}) as address:
            write_bodies(bodies, BODIES_A_SECOND * (seconds + 2))
            fire(address, bodies, script, 1)
            write_bodies(bodies, BODIES_A_SECOND * (seconds + 2))
            with recorded([web()], seconds, folder / "ingest.svg"):
                fire(address, bodies, script, seconds + 1)


def under_load(seconds: int, folder: Path, options: argparse.Namespace) -> None:
    check_locust(options.locust)
    with running(options.beside) as loaded, tempfile.TemporaryDirectory(prefix="auren-profiles-") as name:
        prepare(loaded, options.people, options.token_seconds)
        pids = loaded.run["pids"]

        def look() -> None:
            time.sleep(WARM_SECONDS)
            worker = recorded(pids["worker"], seconds, folder / "worker.svg")
            with worker, recorded(pids["publisher"], seconds, folder / "publisher.svg"):
                pass  # each ends by itself

        rig = Rig(loaded, options.locust, options.people)
        rig.measure(Phase("stress", ((HIGH, seconds + 2 * WARM_SECONDS),)), Path(name), during=look)


def timeline(seconds: int, folder: Path) -> None:
    with database(None, {}) as settings:
        run(settings, "-m", "bench.parts.clinic", "30")
        with serving(WEB, settings) as address, httpx.Client(base_url=address, timeout=30) as clinician:
            sign_in(clinician)
            read(clinician, WARM_SECONDS)
            with recorded([web()], seconds, folder / "timeline.svg"):
                read(clinician, seconds)


def sign_in(clinician: httpx.Client) -> None:
    clinician.get("/sign-in/").raise_for_status()
    form = {"username": "clara", "password": PASSWORD, "csrfmiddlewaretoken": clinician.cookies["csrftoken"]}
    if "sessionid" not in clinician.post("/sign-in/", data=form).cookies:
        raise SystemExit("The clinician could not sign in.")


def read(clinician: httpx.Client, seconds: float) -> None:
    """Weeks that begin a minute apart."""
    ends = time.monotonic() + seconds
    first = datetime.now(UTC) - 2 * WEEK
    for minutes in itertools.count():
        begin = first + timedelta(minutes=minutes % 10_000)
        asked = {"from": f"{begin:%Y-%m-%dT%H:%M:%SZ}", "to": f"{begin + WEEK:%Y-%m-%dT%H:%M:%SZ}"}
        clinician.get(f"/patients/{PATIENT}/timeline.json", params=asked).raise_for_status()
        if time.monotonic() > ends:
            return


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.profiles", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="of each (20)")
    parser.add_argument("--only", choices=["ingest", "load", "timeline"], action="append", help="may be given again")
    parser.add_argument("--into", type=Path, default=MADE, help="a folder (bench/profiles)")
    add_common(parser)
    parser.set_defaults(people=PEOPLE)
    options = parser.parse_args()
    parts = options.only or ["ingest", "load", "timeline"]
    options.into.mkdir(parents=True, exist_ok=True)
    if "ingest" in parts:
        need_wrk(parser)
        ingest(options.seconds, options.into)
    if "load" in parts:
        under_load(options.seconds, options.into, options)
    if "timeline" in parts:
        timeline(options.seconds, options.into)
    print(f"Load average {os.getloadavg()[0]:.1f} at the end. Written to {options.into}.")


if __name__ == "__main__":
    main()
