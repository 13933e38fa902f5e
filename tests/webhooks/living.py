"""A delivery's life from outside: put one in, let the real worker and publisher run, look at what became of it."""

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from django.db import connection
from django.db.models.functions import Now

from auren.biometrics.metrics import BY_NAME, BY_NUMBER
from auren.biometrics.models import Sample
from auren.embedded.server import BASE_DIR
from auren.sandbox.grants import Vendor
from auren.sandbox.server import RunningSandbox
from devices.models import Link, Patient
from tests.devices.conftest import new_link
from webhooks.management.commands.process_deliveries import process
from webhooks.management.commands.publish_deliveries import publish
from webhooks.models import Attempt, Delivery

NOON = datetime(2026, 11, 13, 12, tzinfo=UTC)
Document = dict[str, Any]


def work() -> None:
    """Run a worker until nothing is due."""
    asyncio.run(process(asyncio.Event(), until_idle=True))


def send_out() -> None:
    """Run a publisher until nothing waits."""
    asyncio.run(publish(asyncio.Event(), until_idle=True))


def announce(
    vendor: str,
    event_type: str,
    object_id: str = "",
    *,
    user: str = "user_1",
    event_time: datetime | None = None,
    **fields: Any,
) -> Delivery:
    """A delivery as ingest writes it."""
    return Delivery.objects.create(
        vendor=vendor,
        event_type=event_type,
        vendor_user_id=user,
        object_id=object_id,
        event_time=event_time,
        dedup_key=uuid.uuid4().hex,
        body=b"{}",
        **fields,
    )


def push(*samples: Document, user: str = "user_1", deleted: Sequence[str] = (), **fields: Any) -> Delivery:
    """A HealthKit batch as ingest writes it."""
    body = msgspec.json.encode({"user_id": user, "samples": samples, "deleted": list(deleted)})
    return Delivery.objects.create(
        vendor="healthkit",
        event_type="batch.posted",
        vendor_user_id=user,
        dedup_key=uuid.uuid4().hex,
        body=body,
        **fields,
    )


def heart_rate(
    value: float, at: datetime = NOON, *, uuid: str = "", source: str | Mapping[str, str] = "Apple Watch"
) -> Document:
    sample: Document = {"type": "heart_rate", "value": value, "unit": "bpm", "timestamp": at.isoformat()}
    return sample | {"source": source} | ({"uuid": uuid} if uuid else {})


def patient(user: str = "user_1") -> Patient:
    return Patient.objects.get_or_create(external_id=user, defaults={"display_name": user})[0]


def connect(sandbox: RunningSandbox, vendor: Vendor, user: str = "user_1") -> Link:
    """A link with a grant that the stand-in vendor gave."""
    granted = sandbox.grant(vendor, user)
    assert granted.refresh_token, "the sandbox gives the offline scope unless it is told otherwise"
    return new_link(
        vendor,
        user=user,
        access_token=granted.access_token,
        refresh_token=granted.refresh_token,
        expires_in=3600,
        issued_by=sandbox.settings[f"{vendor.upper()}_TOKEN_URL"],
    )


def again(delivery: Delivery) -> Delivery:
    """The row as it is now."""
    return Delivery.objects.get(pk=delivery.pk)


def let_pass(delivery: Delivery) -> None:
    """The planned wait is over."""
    Delivery.objects.filter(pk=delivery.pk).update(next_attempt_at=Now())


def age(delivery: Delivery, by: timedelta) -> None:
    """It was received so much earlier."""
    Delivery.objects.filter(pk=delivery.pk).update(received_at=Now() - by)


def wait_of(delivery: Delivery) -> float:
    """Seconds until the next try, by PostgreSQL's clock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM next_attempt_at - now()) FROM webhooks_delivery WHERE id = %s", [delivery.pk]
        )
        return float(cursor.fetchone()[0])


def tries(delivery: Delivery) -> list[tuple[str, str]]:
    """Stage and outcome of every attempt, in order. Their numbers and count are what the delivery says, always."""
    attempts = list(Attempt.objects.filter(delivery=delivery).order_by("number", "id"))
    assert [attempt.number for attempt in attempts] == list(range(1, again(delivery).attempts + 1))
    return [(attempt.stage, attempt.outcome) for attempt in attempts]


def samples(user: str = "user_1", metric: str = "") -> list[Sample]:
    chosen = Sample.objects.filter(patient_id=patient(user).pk).order_by("metric", "start_at", "source_id", "record")
    return list(chosen.filter(metric=BY_NAME[metric].number) if metric else chosen)


def values(user: str = "user_1", metric: str = "heart_rate") -> list[float]:
    return [sample.value for sample in samples(user, metric)]


def stored_metrics(user: str = "user_1") -> set[str]:
    return {BY_NUMBER[sample.metric].name for sample in samples(user)}


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Look again and again whether another process has come so far."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


@contextmanager
def running(
    command: str, vendors: RunningSandbox | None = None, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """`manage.py command` in a process of its own, which is killed at the end if it still runs."""
    alone = {"REDIS_URL": "", "OURA_RATE_LIMIT": "0", "WHOOP_RATE_LIMIT": "0", "PYTHONWARNINGS": "error"}
    addresses = vendors.settings if vendors else {}
    process = subprocess.Popen(
        [sys.executable, str(BASE_DIR / "manage.py"), command],
        env=os.environ | alone | addresses | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def held() -> bool:
    return Delivery.objects.filter(lease_token__isnull=False).exists()
