"""A process that stands still while it is answered."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    """What is done inside happens while `process` is stopped, which it is for so long at least."""
    process.send_signal(signal.SIGSTOP)
    over_at = time.monotonic() + seconds
    try:
        yield
        while time.monotonic() < over_at:
            pass
    finally:
        process.send_signal(signal.SIGCONT)
