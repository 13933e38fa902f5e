"""The whole bridge as `make run` starts it, with a few demo people, and what happens to it from outside."""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg

from auren.biometrics.metrics import BY_NAME
from auren.embedded.server import BASE_DIR, free_port
from auren.sandbox.remote import RemoteSandbox
from tests.embedded.conftest import Running

PEOPLE, DAYS = 3, 35  # enough days for a usual range
PATIENCE_SECONDS = 60.0
HISTORY_SECONDS = 300.0


class Bridge:
    def __init__(self, var: Path) -> None:
        run = json.loads((var / "run.json").read_text())
        told = dict(line.split("=", 1) for line in (var / "up.env").read_text().splitlines())
        self.http: str = run["http"]
        self.logins: dict[str, str] = run["logins"]
        self.database_url: str = run["database_url"]
        self.sandbox = RemoteSandbox(told["OURA_API_URL"].removesuffix("/oura"))

    def row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query.encode(), values).fetchone()

    def patient(self, user: str) -> int:
        found = self.row("SELECT id FROM devices_patient WHERE external_id = %s", user)
        assert found, f"{user} is no demo person"
        return int(found[0])

    def metric(self, name: str) -> int:
        return BY_NAME[name].number

    def state(self, delivery: int) -> str:
        found = self.row("SELECT state FROM webhooks_delivery WHERE id = %s", delivery)
        assert found
        return str(found[0])

    def announce(self, vendor: str, **body: object) -> int:
        """An unsigned webhook, as the sandbox takes them from this machine; the delivery it made."""
        return self._promised(f"/webhooks/{vendor}", body, {})

    def phone(self, user: str, samples: Sequence[dict[str, Any]]) -> int:
        """A batch that a phone posts; the delivery it made."""
        body = {"user_id": user, "samples": list(samples)}
        return self._promised("/webhooks/healthkit", body, {"Authorization": "Bearer test_api_key"})

    def _promised(self, path: str, body: object, headers: dict[str, str]) -> int:
        reply = httpx.post(self.http + path, json=body, headers=headers)
        assert reply.status_code == 202, reply.text
        return int(reply.json()["delivery"])

    def until_stored(self, delivery: int) -> None:
        until(lambda: self.state(delivery) in {"stored", "published"}, f"delivery {delivery} is stored")


def heart_rate(at: datetime, value: float, source: str = "Apple Watch") -> dict[str, Any]:
    return {
        "type": "heart_rate",
        "value": value,
        "unit": "bpm",
        "timestamp": at.isoformat(),
        "uuid": str(uuid.uuid4()),
        "source": source,
    }


def until(happened: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Look again and again, because it happens in another process."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"it never came to this: {what}"
        time.sleep(0.05)


@contextmanager
def running_bridge(var: Path, people: int = PEOPLE) -> Iterator[Bridge]:
    """Until the history that the demo people bring along is stored."""
    few = ("--people", str(people), "--days", str(DAYS), "--trickle", "0")
    with Running(str(BASE_DIR / "manage.py"), "up", *few, AUREN_VAR=str(var), PORT=str(free_port())) as up:
        up.until("Ctrl-C stops everything.")
        bridge = Bridge(var)
        until(lambda: not bridge.row(WAITING), "the demo people's history is stored", HISTORY_SECONDS)
        yield bridge
        bridge.sandbox.close()
        up.process.terminate()
        assert up.end() == 0, up.said


WAITING = "SELECT 1 FROM webhooks_delivery WHERE state = 'received' OR state = 'retrying' AND NOT planned_wait LIMIT 1"
