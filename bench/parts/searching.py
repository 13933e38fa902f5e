"""Support's search for samples as the browser asks for it: patient, metric and range, among other people's rows.

The whole page is made, signed in, through Django's middleware; only the socket is left out. How many rows PostgreSQL
looked at says more than the clock: it must not grow with the table.
"""

import random
import re
import statistics
import time
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import NamedTuple

from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from auren.biometrics.models import Source
from auren.console.admin.samples import PAGE, SampleSearch
from bench.parts import reading
from bench.parts.reading import HEART_RATE, PATIENT, YEAR_ROWS, parsed
from bench.parts.telling import tell
from devices.models import Patient

SEARCHES = 60
LIMIT_MS = 200
ADDRESS = "/admin/biometrics/sample/"
RANGES = {"a day": timedelta(days=1), "a week": timedelta(days=7), "a year": timedelta(days=365)}


def people(patients: int) -> None:
    for number in range(PATIENT, PATIENT + patients):
        Patient.objects.get_or_create(pk=number, defaults={"external_id": f"user_{number}"})
        Source.objects.get_or_create(pk=number, defaults={"link_id": number, "name": "Apple Watch", "kind": "watch"})


def support() -> Client:
    user, _ = User.objects.get_or_create(username="support", defaults={"is_staff": True, "is_superuser": True})
    client = Client(SERVER_NAME="localhost")
    client.force_login(user)
    return client


def searches(patients: int, length: timedelta) -> list[dict[str, str]]:
    """The same ones each time, spread over people and the year."""
    chance = random.Random(5)  # noqa: S311 - nothing is kept secret by it
    first = reading.months(datetime.now(UTC).date())[0]
    begins = datetime(first.year, first.month, 1, tzinfo=UTC)
    found = []
    for _ in range(SEARCHES):
        start_at = begins + chance.random() * (timedelta(days=365) - length)
        found.append(
            {
                "patient": f"user_{PATIENT + chance.randrange(patients)}",
                "metric": str(HEART_RATE.number),
                "start_at": f"{start_at:%Y-%m-%dT%H:%M}",
                "end_at": f"{start_at + length:%Y-%m-%dT%H:%M}",
            }
        )
    return found


class Taken(NamedTuple):
    """Milliseconds: by the clock, of this process's CPU, and within PostgreSQL as the client waits for it."""

    clock: float
    python: float
    postgresql: float


def page(client: Client, address: str, query: dict[str, str] | None = None) -> tuple[Taken, str]:
    """What it took, and the address of the page behind it."""
    connection.queries_log.clear()
    started = time.perf_counter(), time.process_time()
    answer = client.get(address, query)
    clock, python = time.perf_counter() - started[0], time.process_time() - started[1]
    asked = sum(float(each["time"]) for each in connection.queries)
    taken = Taken(clock * 1000, python * 1000, asked * 1000)
    body = answer.content.decode()
    assert body.count('<td class="amount">') == PAGE, body[:2000]
    (behind,) = re.findall(r'href="(\?[^"]+)">Older ones', body)
    return taken, ADDRESS + unescape(behind)


def measure(patients: int) -> list[float]:
    """Milliseconds of each first page, by the clock."""
    every: list[float] = []
    client = support()
    connection.force_debug_cursor = True  # notes how long each statement took
    for name, length in RANGES.items():
        first, second = [], []
        for query in searches(patients, length):
            taken, behind = page(client, ADDRESS, query)
            first.append(taken)
            second.append(page(client, behind)[0])
        every += [taken.clock for taken in first]
        for what, times in (("first page", first), ("page behind it", second)):
            print(f"  {name}, {what}: {summary(times)}", flush=True)
    return every


def summary(times: list[Taken]) -> str:
    clock, python, postgresql = (statistics.median(column) for column in zip(*times, strict=True))
    worst = max(each.clock for each in times)
    parts = f"{python:.0f} ms of Python's CPU, {postgresql:.0f} ms waiting for PostgreSQL"
    return f"median {clock:.0f} ms (wanted: {LIMIT_MS}), worst {worst:.0f} ms; {parts}"


def print_plan(patients: int) -> None:
    form = SampleSearch(searches(patients, RANGES["a year"])[0])
    assert form.is_valid(), form.errors
    print(form.samples()[: PAGE + 1].explain(analyze=True, buffers=True, costs=False))
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM biometrics_sample")
        print(f"  of {cursor.fetchone()[0]:,} rows altogether", flush=True)


def main() -> None:
    others, into = parsed("searching", __doc__)
    figures = {}
    for name, patients in (("alone", 1), ("among others", 1 + -(-others // YEAR_ROWS))):
        people(patients)
        reading.load(patients)
        print(f" {YEAR_ROWS:,} rows of one, {(patients - 1) * YEAR_ROWS:,} of {patients - 1} others", flush=True)
        figures[name] = measure(patients)
        print_plan(patients)
    tell(into, figures)


if __name__ == "__main__":
    main()
