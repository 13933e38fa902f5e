"""The web process as it is started in production."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
import psycopg
from prometheus_client.parser import text_string_to_metric_families

from auren.embedded.server import BASE_DIR, free_port

BODY = b'{"type": "sleep.updated", "user_id": "user_7", "trace_id": "%d"}'
PATIENCE_SECONDS = 30.0


class Gunicorn:
    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.log = log

    def post(self, number: int = 0) -> int:
        """The status of the answer on a connection of its own, 0 for none."""
        try:
            headers = {"content-type": "application/json", "connection": "close"}
            return httpx.post(f"{self.url}/webhooks/whoop", content=BODY % number, headers=headers).status_code
        except httpx.TransportError:
            return 0

    def is_live(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/live").status_code == 200
        except httpx.TransportError:
            return False

    def answered(self) -> float:
        """Webhooks answered with 202, by whichever process."""
        families = text_string_to_metric_families(httpx.get(f"{self.url}/metrics").text)
        wanted = {"vendor": "whoop", "status": "202"}
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "auren_webhooks_answered_total" and sample.labels == wanted
        )

    def workers(self) -> set[int]:
        return {child.pid for child in psutil.Process(self.process.pid).children()}


@contextmanager
def gunicorn(folder: Path, **environment: str) -> Iterator[Gunicorn]:
    port = free_port()
    log = folder / "gunicorn.log"
    given = {"PORT": str(port), "AUREN_VAR": str(folder), "REDIS_URL": "", "WEB_CONCURRENCY": "1"} | environment
    inherited = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    command = [sys.executable, "-m", "gunicorn", "auren.asgi:application", "-c", "auren/gunicorn.py"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=BASE_DIR, env=inherited | given, stdout=output, stderr=output)
    try:
        yield Gunicorn(process, port, log)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
            process.wait()


def test_a_web_process_that_cannot_reach_postgresql_ends_and_never_serves(tmp_path: Path) -> None:
    with gunicorn(tmp_path, DATABASE_URL="postgresql://auren:secret@127.0.0.1:1/auren") as web:
        deadline = time.monotonic() + PATIENCE_SECONDS
        answers = set()
        while web.process.poll() is None and time.monotonic() < deadline:
            answers.add(web.post())
        said = web.log.read_text()
    assert web.process.returncode not in (None, 0, -signal.SIGTERM), said
    assert answers == {0}
    assert "the web process cannot start" in said
    assert "secret" not in said


def test_all_processes_of_a_node_are_in_one_page_and_a_killed_one_is_replaced(database: str, tmp_path: Path) -> None:
    stale = tmp_path / "metrics" / "counter_1.db"
    stale.parent.mkdir()
    stale.write_bytes(b"left by a run before")
    with gunicorn(tmp_path, WEB_CONCURRENCY="2") as web:
        until(web.is_live, web)  # a post that gives up on a process that starts is answered and counted all the same
        first = web.workers()
        promised = sum(web.post(number) == 202 for number in range(30))
        until(lambda: web.answered() == promised, web)
        killed = min(first)
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(web.workers() - first) == 1 and web.post(promised) == 202, web)
        until(lambda: web.answered() > promised, web)  # what the killed one counted still counts
        assert not list(stale.parent.glob(f"gauge_live*_{killed}.db"))
        with psycopg.connect(database) as connection:
            assert connection.execute("SELECT count(*) FROM webhooks_delivery").fetchone() == (31,)
    assert not stale.exists()
    assert web.process.returncode == 0, web.log.read_text()


def until(happened: Callable[[], bool], web: Gunicorn) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert web.process.poll() is None, web.log.read_text()
        assert time.monotonic() < deadline, web.log.read_text()
        time.sleep(0.02)
