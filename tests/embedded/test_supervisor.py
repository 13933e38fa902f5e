import json
import os
import signal
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from auren.embedded.output import LOUD_LINES, Output, Terminal
from auren.embedded.supervisor import LONGEST_PAUSE_SECONDS, STEADY_SECONDS, Pause, describe_end
from tests.embedded.conftest import Running, Watched
from tests.webhooks.living import until

# A supervisor with two children: one answers SIGTERM, one has a child of its own and heeds nothing but SIGKILL.
FAMILY = """
import sys
from pathlib import Path
from auren.embedded.output import Terminal
from auren.embedded.server import StartError
from auren.embedded.supervisor import Child, Interrupted, Supervisor, heed_signals
from auren.embedded.var import Var

MEEK = "import signal; print('meek is here', flush=True); signal.pause()"
STUBBORN = '''
import signal, subprocess, sys
for each in (signal.SIGTERM, signal.SIGINT):
    signal.signal(each, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import signal; signal.alarm(600); signal.pause()"])  # outlives some tests
print("WARNING stubborn is here", flush=True)
signal.pause()
'''
var, terminal = Var(Path(sys.argv[1])), Terminal()
supervisor = Supervisor(var, terminal)

def tell():
    var.write_run({"pids": supervisor.pids})
    terminal.say(f"pids written: {sorted(supervisor.pids)}")

try:
    with var.claim():
        var.end_leftovers()
        var.empty_metrics()
        heed_signals(supervisor)
        supervisor.changed = tell
        for name, code in (("meek", MEEK), ("stubborn", STUBBORN)):
            supervisor.add_child(Child(name, [sys.executable, "-c", code], var, terminal))
        supervisor.run()
except Interrupted:
    supervisor.stop()
    terminal.say("all stopped")
except StartError as error:
    sys.exit(str(error))
"""


# A signal that comes while subprocess waits for a child and holds the lock that every other look at the child takes.
IN_THE_MIDDLE = """
import os, signal
from auren.embedded.supervisor import Supervisor
stop, waitpid = Supervisor.stop, os.waitpid

def interrupted(pid, flags):
    os.waitpid = waitpid
    signal.raise_signal(signal.SIGTERM)
    return waitpid(pid, flags)

def interrupted_stop(supervisor):
    os.waitpid = interrupted
    stop(supervisor)

Supervisor.stop = interrupted_stop
"""


def family(var: Path, before: str = "") -> Running:
    return Running("-c", before + FAMILY, str(var))


def pids(var: Path) -> dict[str, list[int]]:
    written: dict[str, list[int]] = json.loads((var / "run.json").read_text())["pids"]
    return written


def everybody(running: Running) -> list[int]:
    return [child.pid for child in psutil.Process(running.process.pid).children(recursive=True)]


def test_a_child_that_dies_is_started_again_and_that_is_said(var: Path) -> None:
    with family(var) as running:
        running.until("pids written")
        first = pids(var)["meek"][0]
        os.kill(first, signal.SIGKILL)
        running.until("meek was ended by SIGKILL: starting it again in 0.5 s.")
        running.until(f"pids written: {['meek', 'stubborn']}", after="starting it again")
        assert pids(var)["meek"][0] != first


def test_what_a_dead_child_had_started_ends_with_it(var: Path) -> None:
    with family(var) as running:
        running.until("stubborn is here")
        orphan = Watched(child.pid for child in psutil.Process(int((var / "pids" / "stubborn").read_text())).children())
        os.kill(int((var / "pids" / "stubborn").read_text()), signal.SIGKILL)
        assert orphan.all_end()
        running.until("stubborn was ended by SIGKILL")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everybody_and_a_second_one_does_not_wait(var: Path, number: signal.Signals) -> None:
    with family(var) as running:
        running.until("stubborn is here")
        running.until("pids written")
        children = Watched(everybody(running))
        meek = Watched([int((var / "pids" / "meek").read_text())])
        running.process.send_signal(number)
        assert meek.all_end()
        running.process.send_signal(number)  # stubborn would hold the first one up for seconds
        assert running.end() == 128 + number
        assert children.all_end()


def test_a_second_signal_in_the_middle_of_a_look_at_a_child_is_heeded_too(var: Path) -> None:
    with family(var, IN_THE_MIDDLE) as running:
        running.until("stubborn is here")
        running.until("pids written")
        children = Watched(everybody(running))
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == 128 + signal.SIGTERM
        assert children.all_end()
        assert not list((var / "pids").iterdir())


def test_the_sigkill_of_the_supervisor_ends_its_children_and_the_next_one_starts(var: Path) -> None:
    with family(var) as running:
        running.until("stubborn is here")
        children = Watched(int(file.read_text()) for file in (var / "pids").iterdir())
        running.process.kill()
        assert children.all_end()
    with family(var) as running:
        running.until("stubborn is here")


def test_a_second_one_in_the_same_folder_says_so_in_one_line(var: Path) -> None:
    with family(var) as running:
        running.until("pids written")
        with family(var) as second:
            assert second.end() == 1
            assert second.said == (
                f"Already running in {var} as process {running.process.pid}: "
                "stop that one, or choose another folder with AUREN_VAR.\n"
            )


def test_the_file_has_everything_and_the_terminal_only_what_went_wrong(var: Path) -> None:
    with family(var) as running:
        running.until("WARNING stubborn is here")
        running.until("pids written")
        assert "meek is here" not in running.said
        until(lambda: (var / "log" / "meek.log").read_text() == "meek is here\n")


def test_pauses_double_up_to_a_limit_and_start_over_after_a_steady_while() -> None:
    pause = Pause()
    pause.started(0.0)
    assert [pause.ended(1.0) for _ in range(7)] == [
        0.5,
        1.0,
        2.0,
        4.0,
        8.0,
        LONGEST_PAUSE_SECONDS,
        LONGEST_PAUSE_SECONDS,
    ]
    pause.started(100.0)
    assert pause.ended(100.0 + STEADY_SECONDS) == 0.5
    assert pause.until == 100.0 + STEADY_SECONDS + 0.5


def test_an_end_is_described_by_its_signal_or_its_code() -> None:
    assert describe_end(-signal.SIGSEGV) == "was ended by SIGSEGV"
    assert describe_end(3) == "ended with code 3"


def test_a_child_in_trouble_does_not_drown_the_others(var: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = Output("worker", var / "log", Terminal())
    lines = [b"2026-01-01 ERROR again\n", b"  a detail\n"] * 50
    (var / "said").write_bytes(b"".join(lines))
    output.follow((var / "said").open("rb"))
    output.close()
    shown = capsys.readouterr().out.splitlines()
    assert shown[:LOUD_LINES] == ["   worker | 2026-01-01 ERROR again"] * LOUD_LINES
    assert shown[LOUD_LINES:] == [f"   worker | … and what more there is: {var / 'log' / 'worker.log'}"]
    assert (var / "log" / "worker.log").read_bytes() == b"".join(lines)


def test_the_last_line_of_a_traceback_nobody_caught_is_shown(var: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = Output("web", var / "log", Terminal())
    (var / "said").write_bytes(b'Traceback (most recent call last):\n  File "x"\nValueError: no such thing\n')
    output.follow((var / "said").open("rb"))
    output.close()
    assert capsys.readouterr().out == "      web | ValueError: no such thing\n"
