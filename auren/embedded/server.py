"""What every program that we start has in common: a folder, a log, a pid on file, a leash, and a way to end."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

import psutil  # type: ignore[import-untyped]

from auren.embedded import leash
from auren.embedded.account import Account

BASE_DIR = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.05
# Below the range the kernel takes outgoing connections' ports from, so that one of ours stays free until it is used.
PORTS = range(20_000, 32_000)
LOG_TAIL = 600


class StartError(Exception):
    """A server ended, or did not answer in time, with the end of what it said."""


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on right now."""
    for port in random.sample(PORTS, 200):
        if not port_taken(port):
            return port
    raise StartError(f"No free port between {PORTS.start} and {PORTS.stop}.")


def port_taken(port: int) -> bool:
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def write_private(path: Path, text: str) -> None:
    """Replace the file in one step, readable by its owner only: a reader sees the old text or the new."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(0o600, exist_ok=True)
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def wait_for_exit(process: psutil.Process | subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
        return False
    return True


class Program:
    """One child process, in a session of its own so that a Ctrl-C in the terminal reaches only us, who pass it on.

    Start it from the main thread: the leash pulls when the thread that started the child ends.
    """

    stop_signal = signal.SIGTERM
    leash_signal = signal.SIGKILL
    stop_seconds = 10.0

    def __init__(self, name: str, folder: Path, pid_file: Path) -> None:
        self.name = name
        self.folder = folder
        self.pid_file = pid_file
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    @property
    def returncode(self) -> int | None:
        return self.process.poll() if self.process else None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def launch(
        self,
        program: Sequence[str],
        output: int | IO[bytes],
        *,
        account: Account | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start `program` (argv, the first an absolute path) in the folder, on the leash."""
        argv = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), str(int(self.leash_signal))]
        self.process = subprocess.Popen(  # noqa: S603 - our own programs
            [*argv, str(account or "-"), *program],
            cwd=self.folder,
            env=self.environment() | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        write_private(self.pid_file, f"{self.process.pid}\n")
        return self.process

    @staticmethod
    def environment() -> dict[str, str]:
        """Ours, with this checkout importable from any folder."""
        path = [str(BASE_DIR), *filter(None, [os.environ.get("PYTHONPATH")])]
        return os.environ | {"PYTHONPATH": os.pathsep.join(path)}

    def end_leftover(self) -> None:
        """End what an earlier start left behind, by us or by an `up` that was killed."""
        self.kill()
        with contextlib.suppress(OSError, ValueError):
            self.end_if_ours(int(self.pid_file.read_text()))
        self.pid_file.unlink(missing_ok=True)

    def end_if_ours(self, pid: int) -> None:
        """End a process only if it works in our folder: by now the pid may be anybody's."""
        with contextlib.suppress(OSError, psutil.Error):
            left = psutil.Process(pid)
            if Path(left.cwd()) != self.folder.resolve():
                return
            left.send_signal(self.stop_signal)
            if not wait_for_exit(left, self.stop_seconds):
                left.kill()
                left.wait(5)

    def ask_to_stop(self) -> None:
        if self.process and self.running:
            self.process.send_signal(self.stop_signal)

    def stop(self) -> None:
        """Ask, wait, insist. Whatever the child started ends with it."""
        if not self.process:
            return
        self.ask_to_stop()
        wait_for_exit(self.process, self.stop_seconds)
        self.kill()

    def strike(self) -> None:
        """End the child's whole session at once, and wait for nothing: for signal handlers, which may interrupt a
        look at the child that holds the lock every other look waits for.
        """
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End the child's whole session at once, and take note of its end."""
        if not self.process:
            return
        self.strike()
        self.process.wait()
        self.pid_file.unlink(missing_ok=True)


class Server(Program):
    """A program that others connect to: `with Valkey(var, password) as valkey: valkey.url`."""

    start_seconds = 30.0
    account: Account | None = None

    def __init__(self, name: str, var: Path, folder: str = "") -> None:
        super().__init__(name, var / (folder or name), var / "pids" / name)
        self.log = var / "log" / f"{name}.log"

    @property
    def url(self) -> str:
        """Where clients find it."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Lay out the folder."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def command(self) -> list[str]:
        """The program and its arguments."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether a client gets an answer."""
        raise NotImplementedError

    def welcome(self) -> None:
        """What is left to do once it answers."""

    def start(self) -> None:
        """Return once it can be used. Raises `StartError`, and leaves nothing running then."""
        self.end_leftover()
        self.prepare()
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.launch(self.command(), log, account=self.account)
        try:
            self.wait_until_it_answers()
            self.welcome()
        except BaseException:
            self.stop()
            raise

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + self.start_seconds
        while not self.answers():
            if not self.running:
                raise StartError(f"{self.name} ended with code {self.returncode}: {self.last_words()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} gave no answer in {self.start_seconds:g} s: {self.last_words()}")
            time.sleep(POLL_SECONDS)

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL:].strip() or f"see {self.log}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
