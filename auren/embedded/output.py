"""What children say: all of it in files of bounded size, and what went wrong on the terminal too."""

import logging
import re
import sys
import threading
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

FILE_BYTES = 5_000_000
FILES = 3
# A log line of some weight, or the last line of a traceback that nobody caught.
LOUD = re.compile(rb"\b(WARNING|ERROR|CRITICAL|FATAL|PANIC)\b|^[A-Za-z_][\w.]*(Error|Exception): ")
LOUD_LINES, LOUD_SECONDS = 10, 60.0


class Terminal:
    """Lines on standard output, whole, from several threads."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self.quiet = False

    def say(self, line: str) -> None:
        with self._turn:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def repeat(self, name: str, line: bytes) -> None:
        """A child's own line, unless everything is ending and every connection breaks."""
        if not self.quiet:
            self.say(f"{name:>9} | {line.decode(errors='replace').rstrip()}")


class Output:
    """One child's output, read from a pipe by a thread until the child's last descendant is gone."""

    def __init__(self, name: str, folder: Path, terminal: Terminal) -> None:
        self.name = name
        self.terminal = terminal
        self.reader: threading.Thread | None = None
        self._minute_began_at, self._shown = 0.0, 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.file = RotatingFileHandler(folder / f"{name}.log", maxBytes=FILE_BYTES, backupCount=FILES - 1)

    def follow(self, pipe: IO[bytes]) -> None:
        self.reader = threading.Thread(target=self._read, args=(pipe,), name=f"output of {self.name}", daemon=True)
        self.reader.start()

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._keep(line)
                if LOUD.search(line):
                    self._show(line)

    def _show(self, line: bytes) -> None:
        """A few lines a minute: a child in trouble must not drown the others."""
        if time.monotonic() - self._minute_began_at > LOUD_SECONDS:
            self._minute_began_at, self._shown = time.monotonic(), 0
        self._shown += 1
        if self._shown <= LOUD_LINES:
            self.terminal.repeat(self.name, line)
        if self._shown == LOUD_LINES:
            self.terminal.repeat(self.name, f"… and what more there is: {self.file.baseFilename}".encode())

    def _keep(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\n")
        self.file.emit(logging.LogRecord(self.name, logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        if self.reader:
            self.reader.join(1)
        self.file.close()
