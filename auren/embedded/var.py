"""The var folder: what `manage.py up` keeps between runs, and what it tells others about the run at hand."""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from cryptography.fernet import Fernet

from auren.embedded.server import StartError, free_port, wait_for_exit, write_private

# Made once and kept: with another TOKEN_KEYS no stored token could be read, with another password no table.
SECRETS: dict[str, Callable[[], str]] = {
    "SECRET_KEY": lambda: secrets.token_urlsafe(48),
    "TOKEN_KEYS": lambda: Fernet.generate_key().decode(),
    "OURA_CLIENT_ID": lambda: "sandbox-oura",
    "OURA_CLIENT_SECRET": lambda: secrets.token_urlsafe(32),
    "OURA_VERIFICATION_TOKEN": lambda: secrets.token_urlsafe(24),
    "WHOOP_CLIENT_ID": lambda: "sandbox-whoop",
    "WHOOP_CLIENT_SECRET": lambda: secrets.token_urlsafe(32),
    "database_password": lambda: secrets.token_urlsafe(24),
    "redis_password": lambda: secrets.token_urlsafe(24),
    "support": lambda: secrets.token_urlsafe(12),
    "clinician": lambda: secrets.token_urlsafe(12),
    "admin": lambda: secrets.token_urlsafe(12),
    # The sandbox's tokens name the address that refreshes them, so it stays at home.
    "sandbox_port": lambda: str(free_port()),
}
LEFTOVER_SECONDS = 5.0


class Var:
    """One folder, one `up` at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secrets_file = folder / "secrets.json"
        self.environment_file = folder / "up.env"
        self.run_file = folder / "run.json"
        self.metrics = folder / "metrics"

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the folder. The kernel gives it back when the process ends, however it ends. Raises `StartError`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise StartError(
                    f"Already running in {self.folder} as process {lock.read().strip() or '?'}: "
                    "stop that one, or choose another folder with AUREN_VAR."
                ) from None
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            yield

    def keep_secrets(self) -> dict[str, str]:
        """The secrets of this folder, made if they are not there yet."""
        kept: dict[str, str] = {}
        with contextlib.suppress(FileNotFoundError):
            kept = json.loads(self.secrets_file.read_text(encoding="utf-8"))
        kept = {name: kept.get(name) or make() for name, make in SECRETS.items()}
        self.write_secrets(kept)
        return kept

    def write_secrets(self, kept: Mapping[str, str]) -> None:
        write_private(self.secrets_file, json.dumps(kept, indent=1) + "\n")

    def write_environment(self, names: Mapping[str, str]) -> None:
        """`up.env`, from which a command typed beside `up` takes the same settings."""
        write_private(self.environment_file, "".join(f"{name}={value}\n" for name, value in sorted(names.items())))

    def write_run(self, run: Mapping[str, Any]) -> None:
        write_private(self.run_file, json.dumps(run, indent=1) + "\n")

    def forget_run(self) -> None:
        self.run_file.unlink(missing_ok=True)
        self.environment_file.unlink(missing_ok=True)

    def empty_metrics(self) -> None:
        shutil.rmtree(self.metrics, ignore_errors=True)
        self.metrics.mkdir(mode=0o700)

    def end_leftovers(self) -> None:
        """End what an earlier run left: what it wrote down, if it still works in this folder."""
        left = [process for pid in self._written_pids() if (process := self._ours(pid))]
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        for process in left:
            with contextlib.suppress(psutil.Error):
                if not wait_for_exit(process, LEFTOVER_SECONDS):
                    process.kill()

    def _written_pids(self) -> list[int]:
        try:
            pids: dict[str, list[int]] = json.loads(self.run_file.read_text(encoding="utf-8"))["pids"]
        except (OSError, ValueError, KeyError):
            return []
        return [pid for some in pids.values() for pid in some]

    def _ours(self, pid: int) -> psutil.Process | None:
        try:
            process = psutil.Process(pid)
            return process if Path(process.cwd()).is_relative_to(self.folder.resolve()) else None
        except (psutil.Error, OSError):
            return None


def without_up(given: Mapping[str, str], written: str) -> dict[str, str]:
    """This process's environment without what an `up.env` from an earlier run (its text) has put into it.

    `given` is what the process was started with: what it named itself stays.
    """
    names = {line.partition("=")[0] for line in written.splitlines()}
    return {name: value for name, value in os.environ.items() if name in given or name not in names}
