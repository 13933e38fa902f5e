"""The whole bridge for a measurement: `manage.py up` in a folder of its own, gone afterwards."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auren.embedded.server import BASE_DIR, free_port

START_SECONDS, STOP_SECONDS = 300.0, 60.0
WEB = ("gunicorn", "auren.asgi:application", "-c", "auren/gunicorn.py", "--log-level", "error")
SERVERS = ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS")  # its own, never one that happens to be named


@dataclass(frozen=True)
class Bridge:
    """A running one. `settings` are what its processes are told, as `up.env` has them."""

    var: Path
    settings: dict[str, str]

    @property
    def run(self) -> dict[str, Any]:
        """`run.json` as it is now: processes that were started anew have another pid there."""
        found: dict[str, Any] = json.loads((self.var / "run.json").read_text())
        return found

    @property
    def webs(self) -> list[str]:
        """The addresses of web on every node."""
        return [str(self.run["http"])]

    @property
    def sandbox(self) -> str:
        return self.settings["WHOOP_API_URL"].partition("/whoop")[0]

    def manage(self, *arguments: str) -> str:
        """A management command beside it, to its end; what it said."""
        told = {"AUREN_VAR": str(self.var), "AUREN_ENV_FILE": os.devnull}
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, str(BASE_DIR / "manage.py"), *arguments],
            env=os.environ | told,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"manage.py {' '.join(arguments)} failed:\n{done.stderr}")
        return done.stdout


def found_at(var: Path) -> Bridge:
    """One that somebody else has started, with its data in `var`."""
    try:
        lines = (var / "up.env").read_text().splitlines()
    except FileNotFoundError:
        raise SystemExit(f"No `manage.py up` runs in {var}: there is no up.env.") from None
    return Bridge(var, dict(line.split("=", 1) for line in lines if "=" in line))


@contextmanager
def bridge(*, people: int, days: int, settings: Mapping[str, str] | None = None) -> Iterator[Bridge]:
    with tempfile.TemporaryDirectory(prefix="auren-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL's user passes through
        var = folder / "var"
        told = {"AUREN_VAR": str(var), "PORT": str(free_port()), "AUREN_ENV_FILE": os.devnull}
        told |= dict.fromkeys(SERVERS, "") | dict(settings or {})
        arguments = ["up", "--people", str(people), "--days", str(days), "--trickle", "0"]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, str(BASE_DIR / "manage.py"), *arguments], env=os.environ | told, stdout=log, stderr=log
            )
        try:
            wait_for(lambda: (var / "run.json").exists() or process.poll() is not None, START_SECONDS)
            if process.poll() is not None:
                raise SystemExit((folder / "log").read_text())
            yield found_at(var)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_SECONDS)


@contextmanager
def serving(command: Sequence[str], settings: Mapping[str, str]) -> Iterator[str]:
    """One web process at work, such as WEB; its address. `settings` are its environment, PORT is chosen here."""
    port = free_port()
    environment = os.environ | settings | {"PORT": str(port), "WEB_CONCURRENCY": "1", "LOG_LEVEL": "ERROR"}
    process = subprocess.Popen(  # noqa: S603 - our own commands
        [sys.executable, "-m", *(each.format(port=port) for each in command)], env=environment, cwd=BASE_DIR
    )
    try:
        wait_for(lambda: listens(port) or process.poll() is not None, START_SECONDS)
        if process.poll() is not None:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}.")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"It took longer than {seconds:g} s.")
        time.sleep(0.1)
