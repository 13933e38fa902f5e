"""A folder with a space in its name, and a look at processes that are not ours to wait for."""

import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from auren.embedded.server import BASE_DIR

PATIENCE_SECONDS = 60.0
EMBEDDED = ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS")


@pytest.fixture
def var() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="auren embedded "))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


class Watched:
    """Processes by pid, held so that their end is seen even where nobody reaps them."""

    def __init__(self, pids: Iterable[int]) -> None:
        self.handles = [os.pidfd_open(pid) for pid in pids]

    def all_end(self) -> bool:
        """Wait for it; False when one still runs after a while."""
        try:
            return all(select.select([handle], [], [], PATIENCE_SECONDS)[0] for handle in self.handles)
        finally:
            for handle in self.handles:
                os.close(handle)


class Running:
    """A Python program of this checkout in a process of its own, whose output is read as it comes."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in EMBEDDED}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", *arguments],
            env=kept | {"PYTHONPATH": str(BASE_DIR), "PYTHONUNBUFFERED": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.said = ""

    def until(self, text: str, *, after: str = "") -> str:
        """What it has said by the time it says `text`, after `after`. Fails when it ends or falls silent before."""
        pipe = self.process.stdout
        assert pipe
        while text not in self.said[self.said.find(after) if after in self.said else len(self.said) :]:
            assert select.select([pipe], [], [], PATIENCE_SECONDS)[0], f"never said {text!r}, but: {self.said}"
            more = os.read(pipe.fileno(), 65_536).decode()
            assert more, f"ended without saying {text!r}: {self.said}"
            self.said += more
        return self.said

    def end(self) -> int:
        """Its exit code, once it has ended by itself."""
        code = self.process.wait(PATIENCE_SECONDS)
        assert self.process.stdout
        with self.process.stdout as pipe:
            self.said += pipe.read().decode()
        return code

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
