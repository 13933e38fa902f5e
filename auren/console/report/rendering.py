"""From HTML to PDF, in a process of its own that can be stopped at any time."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from auren.console.report import paper
from auren.console.report.libraries import lacking
from auren.embedded import leash

BEAT = 0.5  # seconds between signs of life
MOST_SECONDS = 300.0  # on the clock, where others compute beside it
PROGRAM = (sys.executable, str(Path(paper.__file__)))


class Unmakeable(Exception):
    """The report cannot be made; the text is for whoever asked for it."""


def rendered(html: str) -> Iterator[bytes]:
    """Nothing, again and again, while it is being made; then all of the PDF. Raises `Unmakeable`."""
    if missing := lacking():
        raise Unmakeable(missing)
    started_at = time.monotonic()
    with _start(html.encode()) as child:
        try:
            while (made := _awaited(child)) is None:
                if time.monotonic() - started_at > MOST_SECONDS:
                    raise Unmakeable("The report took too long to lay out. Ask for a shorter range.")
                yield b""
        finally:
            child.kill()
    if child.returncode or not made:
        raise Unmakeable("The report could not be laid out. Ask for a shorter range, or tell support its number.")
    yield made


def _start(html: bytes) -> subprocess.Popen[bytes]:
    """It ends with this process, whatever ends that."""
    leashed = (sys.executable, leash.__file__, str(os.getpid()), str(int(signal.SIGKILL)), "-", *PROGRAM)
    child = subprocess.Popen(leashed, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own program
    # Written beside: `communicate` with a limit of time forgets what it has not written by then (Python 3.11).
    given, child.stdin = child.stdin, None
    assert given is not None, "a pipe was asked for"
    threading.Thread(target=_give, args=(given, html), daemon=True).start()
    return child


def _give(given: IO[bytes], html: bytes) -> None:
    with suppress(BrokenPipeError), given:
        given.write(html)


def _awaited(child: subprocess.Popen[bytes]) -> bytes | None:
    try:
        return child.communicate(timeout=BEAT)[0]
    except subprocess.TimeoutExpired:
        return None
