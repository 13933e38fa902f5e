"""Children that are kept running: one that ends is started again, and that is said."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

import psutil  # type: ignore[import-untyped]
from prometheus_client import multiprocess

from auren.embedded.output import Output, Terminal
from auren.embedded.server import Program, Server, StartError, wait_for_exit
from auren.embedded.var import Var

LOOK_SECONDS = 0.2
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 30.0
CHILDREN_SECONDS = 12.0


class Interrupted(BaseException):
    """SIGINT or SIGTERM: unwinds whatever is going on."""


class Child(Program):
    """One of our own processes.

    A `door` lets work in, so it has ended before the others are asked to. It has processes of its own, which the
    leash does not reach: when we are killed it is asked to stop, and stops them.
    """

    def __init__(self, name: str, argv: Sequence[str], var: Var, terminal: Terminal, *, door: bool = False) -> None:
        super().__init__(name, var.folder, var.folder / "pids" / name)
        self.argv = argv
        self.door = door
        self.leash_signal = signal.SIGTERM if door else signal.SIGKILL
        self.output = Output(name, var.folder / "log", terminal)

    def start(self, environment: Mapping[str, str]) -> None:
        self.end_leftover()
        process = self.launch(self.argv, subprocess.PIPE, environment=environment)
        if process.stdout:
            self.output.follow(process.stdout)

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait() if self.process else 0

    def close(self) -> None:
        """End it if it still runs, and its log."""
        self.kill()
        self.output.close()


class Pause:
    """How long to wait before the next start: twice as long each time, short again after a steady while."""

    def __init__(self) -> None:
        self.seconds = FIRST_PAUSE_SECONDS
        self.started_at = 0.0
        self.until = 0.0

    def started(self, now: float) -> None:
        self.started_at = now

    def ended(self, now: float) -> float:
        if now - self.started_at >= STEADY_SECONDS:
            self.seconds = FIRST_PAUSE_SECONDS
        pause, self.seconds = self.seconds, min(self.seconds * 2, LONGEST_PAUSE_SECONDS)
        self.until = now + pause
        return pause


def describe_end(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"


class Supervisor:
    """Keeps servers and children running in a var folder until it is told to stop.

    `environment` is what children get on top of ours; `changed` is called when pids changed.
    """

    def __init__(self, var: Var, terminal: Terminal) -> None:
        self.var = var
        self.terminal = terminal
        self.servers: list[Server] = []
        self.children: list[Child] = []
        self.environment: dict[str, str] = {}
        self.changed: Callable[[], None] = lambda: None
        self._pauses: dict[str, Pause] = {}
        self._pids: dict[str, list[int]] = {}

    @property
    def pids(self) -> dict[str, list[int]]:
        """Each program's process, and the processes of that: name to list, the first of which is ours."""
        return dict(self._pids)

    def add_server(self, server: Server) -> None:
        """Start it, and look after it from now on. Raises `StartError`."""
        self.servers.append(server)
        self._pause(server).started(time.monotonic())
        server.start()

    def add_child(self, child: Child) -> None:
        self.children.append(child)
        self._start_child(child)

    def run(self) -> None:
        """Look after them for ever; `Interrupted` is the way out."""
        while True:
            self.look()
            time.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """One round: start again what has ended and has waited long enough."""
        for server in self.servers:
            if self._due(server):
                self._restart_server(server)
        for child in self.children:
            if self._due(child):
                self._start_child(child)
        self._look_at_pids()

    def _pause(self, program: Program) -> Pause:
        return self._pauses.setdefault(program.name, Pause())

    def _due(self, program: Program) -> bool:
        """Whether it has ended and its pause is over. Its end is noticed, and said, once."""
        if program.running:
            return False
        if program.process is not None:
            self._notice_end(program)
        return time.monotonic() >= self._pause(program).until

    def _notice_end(self, program: Program) -> None:
        how = describe_end(program.returncode)
        seconds = self._pause(program).ended(time.monotonic())
        self._bury(program)
        self.terminal.say(f"{program.name} {how}: starting it again in {seconds:g} s.")

    def _bury(self, program: Program) -> None:
        """Whatever it had started ends with it, and its gauges are not counted any more."""
        pids = {*self._pids.get(program.name, ()), *filter(None, [program.pid])}
        program.kill()
        program.process = None
        for pid in pids:
            multiprocess.mark_process_dead(pid, str(self.var.metrics))  # type: ignore[no-untyped-call]

    def _restart_server(self, server: Server) -> None:
        self._pause(server).started(time.monotonic())
        try:
            server.start()
        except StartError as error:
            server.process = None
            seconds = self._pause(server).ended(time.monotonic())
            self.terminal.say(f"{error} Trying again in {seconds:g} s.")

    def _start_child(self, child: Child) -> None:
        self._pause(child).started(time.monotonic())
        child.start(self.environment)

    def _look_at_pids(self) -> None:
        pids = {program.name: family(program) for program in (*self.servers, *self.children) if program.running}
        if pids != self._pids:
            self._pids = pids
            self.changed()

    def stop(self) -> None:
        """The front door closes first, then everybody else leaves, then the servers: in about 20 s at the worst."""
        self.terminal.quiet = True
        try:
            self._ask_everybody_to_stop()
        except BaseException:  # a second signal has struck them all: note their ends
            self.kill()
            raise

    def _ask_everybody_to_stop(self) -> None:
        deadline = time.monotonic() + CHILDREN_SECONDS
        for door in (child for child in self.children if child.door):
            door.ask_to_stop()
            if door.process:
                wait_for_exit(door.process, CHILDREN_SECONDS / 2)
        for child in self.children:
            child.ask_to_stop()
        for child in self.children:
            if child.process:
                wait_for_exit(child.process, max(0.0, deadline - time.monotonic()))
            child.close()
        for server in reversed(self.servers):
            server.stop()

    def strike(self) -> None:
        """End them all, and wait for nothing: see `Program.strike`."""
        for program in (*self.children, *self.servers):
            program.strike()

    def kill(self) -> None:
        """End them all, and take note of it."""
        self.strike()
        for program in (*self.children, *self.servers):
            program.kill()


def family(program: Program) -> list[int]:
    """The pids of a program and its descendants. A server's own are its business: they come and go."""
    if program.pid is None or isinstance(program, Server):
        return [program.pid] if program.pid else []
    return [program.pid, *sorted(descendants(program.pid))]


def descendants(pid: int) -> set[int]:
    """As the kernel lists them (proc(5), `children`). psutil would read every process of the machine five times a
    second for each program, a tenth of a core (measured with py-spy): it is for kernels without that list."""
    try:
        found = {int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in listed(task)}
    except OSError:  # it ends at this moment, or there is no such list
        return by_psutil(pid)
    return found.union(*map(descendants, found))


def listed(task: Path) -> list[str]:
    return (task / "children").read_text().split()


def by_psutil(pid: int) -> set[int]:
    try:
        return {child.pid for child in psutil.Process(pid).children(recursive=True)}
    except psutil.Error:
        return set()


def heed_signals(supervisor: Supervisor) -> None:
    """The first SIGINT or SIGTERM raises `Interrupted`; a second one kills everything at once."""

    def insist(number: int, _: FrameType | None) -> None:
        supervisor.strike()
        sys.exit(128 + number)

    def stop(*_: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, insist)
        raise Interrupted

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
