"""An answer is a promise: what was answered 202 is stored and published, whatever is killed meanwhile."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.conf import settings
from django.db.models.functions import Now

from auren.biometrics.models import Record
from auren.embedded.server import BASE_DIR, free_port
from auren.sandbox.grants import Vendor
from auren.sandbox.server import RunningSandbox
from devices.models import ApiKey
from devices.vendors.registry import VENDORS
from tests.devices.conftest import running_sandbox, sandbox
from tests.webhooks.conftest import vendors
from tests.webhooks.living import NOON, connect, heart_rate, patient, samples, until
from tests.webhooks.reading import read
from webhooks.events import SAMPLES
from webhooks.models import Delivery, Lease

__all__ = ["running_sandbox", "sandbox", "vendors"]

CONNECTIONS = 8
PHONES = 4
BATCHES = 120  # of all phones together
A_BATCH = 10  # samples
DAYS = 12  # of announcements, for each vendor
KILLED_AFTER = 60  # answers
ANSWERED_WITHIN = 60.0  # seconds, the outage included
SETTINGS = {
    "DELIVERY_LEASE": "2",
    "PUBLISHER_LEASE": "1",
    "POLL_INTERVAL": "0.1",
    "OURA_RATE_LIMIT": "0",
    "WHOOP_RATE_LIMIT": "0",
    "REDIS_URL": "",
    "PYTHONWARNINGS": "error",
    "LOG_LEVEL": "WARNING",
}


class Bridge:
    """The web process, a worker and a publisher as they run in production, each in a session of its own."""

    def __init__(self, var: Path, port: int, environment: Mapping[str, str]) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.log = var / "log"
        kept = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
        self.environment = kept | SETTINGS | dict(environment) | {"AUREN_VAR": str(var), "PORT": str(port)}
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        web = ["-m", "gunicorn", "auren.asgi:application", "-c", str(BASE_DIR / "auren" / "gunicorn.py")]
        manage = str(BASE_DIR / "manage.py")
        with self.log.open("ab") as log:
            self.processes = [
                subprocess.Popen(
                    [sys.executable, *arguments],
                    cwd=BASE_DIR,
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                for arguments in (web, [manage, "process_deliveries"], [manage, "publish_deliveries"])
            ]

    def kill(self) -> None:
        """Every process at once, gunicorn's workers too: nobody gets to say goodbye."""
        for process in self.processes:
            os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()

    def is_whole(self) -> bool:
        return all(process.poll() is None for process in self.processes)

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4_000:]


@pytest.fixture
def bridge(vendors: RunningSandbox, kafka: str, tmp_path: Path) -> Iterator[Bridge]:
    (tmp_path / "static").mkdir()
    with ExitStack() as after:
        whole = Bridge(tmp_path, free_port(), vendors.settings | {"KAFKA_BOOTSTRAP_SERVERS": kafka})
        after.callback(whole.kill)
        whole.start()
        yield whole


@dataclass(frozen=True)
class Post:
    """A webhook, which is sent until it is answered 202. `records` are what it is about."""

    vendor: str
    who: str
    body: bytes
    records: tuple[str, ...]
    key: str = ""

    def headers(self) -> dict[str, str]:
        """Signed when it is sent."""
        now = int(time.time())
        if self.vendor == "healthkit":
            proof = {"authorization": f"Bearer {self.key}"}
        elif self.vendor == "oura":
            signed = hmac.new(settings.OURA_CLIENT_SECRET.encode(), f"{now}".encode() + self.body, hashlib.sha256)
            proof = {"x-oura-signature": signed.hexdigest().upper(), "x-oura-timestamp": f"{now}"}
        else:
            signed = hmac.new(settings.WHOOP_CLIENT_SECRET.encode(), f"{now}000".encode() + self.body, hashlib.sha256)
            signature = base64.b64encode(signed.digest()).decode()
            proof = {"x-whoop-signature": signature, "x-whoop-signature-timestamp": f"{now}000"}
        return proof | {"content-type": "application/json"}


def batches(names: list[str], key: str) -> Iterator[Post]:
    for number in range(BATCHES):
        who = names[number % len(names)]
        records = tuple(f"{number}-{place}" for place in range(A_BATCH))
        moments = [NOON + timedelta(hours=number, seconds=place) for place in range(A_BATCH)]
        given = [heart_rate(60 + n % 40, at, uuid=record) for n, (record, at) in enumerate(zip(records, moments))]  # noqa: B905
        yield Post("healthkit", who, json.dumps({"user_id": who, "samples": given}).encode(), records, key)


def announcements(vendors: RunningSandbox, vendor: Vendor, who: str) -> Iterator[Post]:
    kind = {"oura": "daily_activity", "whoop": "sleep"}[vendor]
    worn = [each for each in vendors.documents(vendor, who, kind) if VENDORS[vendor].normalise(kind, each).samples]
    for document in worn[-DAYS - 1 : -1]:
        record = str(document["id"])
        event: dict[str, Any] = {"user_id": who, "object_id": record, "event_type": "update", "data_type": kind}
        event |= {"event_time": document.get("timestamp")}
        if vendor == "whoop":
            event = {"user_id": who, "id": record, "type": f"{kind}.updated", "trace_id": uuid4().hex}
        yield Post(vendor, who, json.dumps(event).encode(), (record,))


@dataclass
class Burst:
    """Posts over several connections; `promised` are the answers, by the delivery they named."""

    address: str
    posts: list[Post]
    promised: dict[int, Post] = field(default_factory=dict)
    refused: Counter[int] = field(default_factory=Counter)

    async def run(self) -> None:
        waiting = iter(self.posts)
        async with asyncio.timeout(ANSWERED_WITHIN), asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._send(waiting))

    async def _send(self, waiting: Iterator[Post]) -> None:
        async with httpx.AsyncClient(base_url=self.address, trust_env=False, timeout=10) as client:
            for post in waiting:
                while not await self._answered(client, post):
                    await asyncio.sleep(0.02)

    async def _answered(self, client: httpx.AsyncClient, post: Post) -> bool:
        try:
            answer = await client.post(f"/webhooks/{post.vendor}", content=post.body, headers=post.headers())
        except httpx.TransportError:
            return False
        if answer.status_code != 202:
            assert answer.status_code == 503, answer.text
            self.refused[answer.status_code] += 1
            return False
        self.promised[answer.json()["delivery"]] = post
        return True


async def interrupted(burst: Burst, bridge: Bridge) -> None:
    """Everything is killed in the middle of the burst and started again."""
    sending = asyncio.create_task(burst.run())
    while len(burst.promised) < KILLED_AFTER and not sending.done():
        await asyncio.sleep(0)
    assert not sending.done(), "it was over before anything was killed"
    await asyncio.to_thread(bridge.kill)
    bridge.start()
    await sending


def leases_run_out() -> None:
    """Those of the killed: they would in a second or two."""
    Delivery.objects.filter(lease_until__isnull=False).update(lease_until=Now() - timedelta(seconds=1))
    Lease.objects.update(until=Now() - timedelta(seconds=1))


def unfinished() -> list[tuple[int, str, str]]:
    return list(Delivery.objects.exclude(state="published").values_list("id", "state", "error"))


def test_what_was_answered_202_is_stored_and_published_once_though_everything_is_killed(
    vendors: RunningSandbox, bridge: Bridge, kafka: str
) -> None:
    run = uuid4().hex[:12]
    phones = [patient(f"promise-{run}-{number}") for number in range(PHONES)]
    _, key = ApiKey.issue("phones", *phones)
    names = [phone.external_id for phone in phones]
    posts = list(batches(names, key))
    for vendor, who in (("oura", f"promise-{run}-ring"), ("whoop", f"promise-{run}-band")):
        connect(vendors, vendor, who)  # type: ignore[arg-type]
        names.append(who)
        posts[10:10] = announcements(vendors, vendor, who)  # type: ignore[arg-type]
    assert len(posts) == BATCHES + 2 * DAYS
    burst = Burst(bridge.address, posts)
    asyncio.run(interrupted(burst, bridge))
    leases_run_out()

    # Everything that was promised is there, once, and nothing else.
    assert len(burst.promised) == len(posts), burst.refused
    assert Counter(map(id, burst.promised.values())) == Counter(map(id, posts))
    assert set(Delivery.objects.values_list("id", flat=True)) == set(burst.promised)
    with suppress(AssertionError):
        until(lambda: not bridge.is_whole() or not unfinished())
    assert (unfinished(), bridge.is_whole()) == ([], True), bridge.said()

    # Stored once.
    for post in posts:
        about = Record.objects.filter(patient_id=patient(post.who).pk, record__in=post.records)
        assert sorted(about.values_list("record", flat=True)) == sorted(post.records)
    for phone in phones:
        mine = [post for post in posts if post.who == phone.external_id]
        assert sorted(sample.record for sample in samples(phone.external_id)) == sorted(
            record for post in mine for record in post.records
        )

    # Published once to whoever drops repeats, and of each patient in order.
    messages = [message for message in read(kafka, *names) if message.topic == SAMPLES]
    once = {message.id: message for message in messages}
    assert all(once[message.id].value == message.value for message in messages)
    assert sorted(message.body["delivery"] for message in once.values()) == sorted(burst.promised)
    for message in once.values():
        post = burst.promised[message.body["delivery"]]
        assert {sample["record"] for sample in message.body["samples"]} == set(post.records)
        assert message.key == post.who
    for who in names:
        first_seen = dict.fromkeys(message.sequence for message in messages if message.key == who)
        assert list(first_seen) == list(range(1, sum(post.who == who for post in posts) + 1))
