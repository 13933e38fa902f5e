"""What waits for whom when claims are measured: deliveries for the worker, jobs for a queue, and what a job does."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import timedelta
from itertools import count
from typing import Any, Protocol

import msgspec
import psycopg

from auren.biometrics.metrics import BY_NAME
from auren.biometrics.store import SESSION, Incoming, advance, lock_timelines, source_ids, store
from auren.postgres import Connection, pool
from bench.parts.phones import FILE as FILE_BODIES
from bench.parts.phones import PATIENTS, Phones
from devices.vendors.normalised import Sample
from devices.vendors.registry import VENDORS
from webhooks.claims import LinkRow, find_links

PEOPLE = 1_000
EVENT = "daily_resilience.update"
BODY = b"""{"event_type": "update", "data_type": "daily_resilience", "event_time": "2026-11-25T06:31:04+00:00"}"""
SAMPLES = 10  # a batch
JOBS = 4  # at once, of procrastinate's: more made it no faster

LINKS = """
INSERT INTO devices_link (patient_id, vendor, vendor_user_id)
SELECT id, vendor, external_id FROM devices_patient, unnest(ARRAY['oura', 'healthkit']) AS vendor
ON CONFLICT DO NOTHING
"""
FILE = """
INSERT INTO webhooks_delivery
    (vendor, dedup_key, event_type, vendor_user_id, object_id, body, received_at, next_attempt_at)
SELECT 'oura', md5(object), %s, 'bench_' || 1 + n %% %s, object, %s, clock_timestamp(), clock_timestamp()
FROM (SELECT n, gen_random_uuid()::text AS object FROM generate_series(1, %s) AS n) AS numbered
"""

Database = psycopg.Connection[Any]
Job = dict[str, Any]
Take = Callable[..., Awaitable[Any]]


class Waiting(Protocol):
    most: int  # a second that there have to be
    finished: str  # counts the deliveries that are done
    samples: int  # of each

    def file(self, database: Database, number: int) -> None:
        """As deliveries."""

    def jobs(self, number: int) -> Sequence[Job]: ...

    def doing(self) -> AbstractAsyncContextManager[Take]:
        """What a job does, for as long as it is open."""


def make_people(database: Database) -> None:
    database.execute(PATIENTS, [PEOPLE])
    database.execute(LINKS)


def look_at(event_type: str) -> str:
    """Why an announcement is ignored."""
    assert VENDORS["oura"].webhook.interest_in(event_type) == "ignored"
    return f"{event_type} is of no interest"


async def looking(event_type: str, user: str, object_id: str) -> str:  # noqa: ARG001 - what a job is told
    return look_at(event_type)


class Announcements:
    """Of a kind of no interest: a look says so, no vendor is asked, nothing is stored."""

    most = 60_000
    samples = 0
    finished = """
    SELECT count(*) FROM webhooks_delivery d JOIN webhooks_attempt a ON a.delivery_id = d.id
    WHERE d.state = 'ignored' AND d.error = a.message AND d.lease_token IS NULL AND d.link_id IS NOT NULL
    """

    def file(self, database: Database, number: int) -> None:
        database.execute(FILE, [EVENT, PEOPLE, BODY, number])

    def jobs(self, number: int) -> Sequence[Job]:
        return [{"event_type": EVENT, "user": who(each), "object_id": str(uuid.uuid4())} for each in range(number)]

    def doing(self) -> AbstractAsyncContextManager[Take]:
        return nullcontext(looking)


class Batches:
    """Of a phone, ten heart rates each, to be read, normalised and stored: one after the other for each person.

    Each call carries on where the last one ended, for a batch that is stored already would be less to do.
    """

    most = 6_000
    samples = SAMPLES
    finished = f"""
    SELECT count(*) FROM webhooks_delivery d JOIN webhooks_attempt a ON a.delivery_id = d.id
    WHERE d.state = 'stored' AND d.sample_count = {SAMPLES} AND d.outbox IS NOT NULL AND d.lease_token IS NULL
    """  # noqa: S608 - a number of ours

    def __init__(self) -> None:
        self.phones = Phones()
        self.numbers = count()

    def file(self, database: Database, number: int) -> None:
        jobs = self.jobs(number)
        keys = [uuid.uuid4().hex for _ in jobs]
        database.execute(FILE_BODIES, [keys, [job["user"] for job in jobs], [job["body"].encode() for job in jobs]])

    def jobs(self, number: int) -> Sequence[Job]:
        return [self.job(next(self.numbers)) for _ in range(number)]

    def job(self, number: int) -> Job:
        turn, person = divmod(number, PEOPLE)
        start_at = self.phones.first_at + turn * timedelta(minutes=1)
        beats = [
            self.phones.sample("HeartRate", "count/min", 60 + each, start_at + timedelta(seconds=5 * each))
            for each in range(SAMPLES)
        ]
        body = msgspec.json.encode({"user_id": who(person), "samples": beats}).decode()
        return {"user": who(person), "body": body}

    def doing(self) -> AbstractAsyncContextManager[Take]:
        return keeping()


@asynccontextmanager
async def keeping() -> AsyncIterator[Take]:
    """A job that stores a batch by the bridge's own normaliser and store, in a transaction of its own."""
    sources: dict[tuple[int, str], int] = {}
    async with pool("bench jobs", JOBS, **SESSION) as connections:

        async def take(user: str, body: str) -> None:
            async with connections.connection() as connection:
                await keep(connection, user, body.encode(), sources)

        yield take


async def keep(connection: Connection, user: str, body: bytes, sources: dict[tuple[int, str], int]) -> None:
    link = (await find_links(connection, [("healthkit", user)]))["healthkit", user]
    vendor = VENDORS["healthkit"]
    found = vendor.normalise("batch", vendor.document_of(body, None), link.zone)
    named = {(link.id, sample.source): found.source_kinds.get(sample.source, "other") for sample in found.samples}
    if new := {key: kind for key, kind in named.items() if key not in sources}:
        sources |= await source_ids(connection, new)
    samples = [incoming(link, sources[link.id, sample.source], sample) for sample in found.samples]
    async with connection.transaction():
        await lock_timelines(connection, [link.patient_id])
        await store(connection, samples, [], {link.patient_id: link.zone})
        await advance(connection, {link.patient_id: 1})


def incoming(link: LinkRow, source: int, sample: Sample) -> Incoming:
    """As `webhooks.storing` writes it. Of no delivery: 0."""
    return Incoming(
        0,
        link.patient_id,
        link.id,
        source,
        BY_NAME[sample.metric].number,
        sample.start_at,
        sample.end_at,
        sample.value,
        sample.utc_offset_minutes,
        sample.record,
        sample.end_at,
        None,
        0,
    )


def who(number: int) -> str:
    return f"bench_{1 + number % PEOPLE}"
