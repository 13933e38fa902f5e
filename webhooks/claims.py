"""Claims: deliveries taken under a lease, kept while they are worked on, given back on the way out."""

import uuid
from collections.abc import Iterable
from datetime import datetime
from time import monotonic
from typing import Any

import msgspec
import psycopg

from auren.postgres import array
from webhooks.clock import DatabaseClock

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

CLAIM = """
WITH due AS (
    SELECT id FROM webhooks_delivery
    WHERE state IN ('received', 'retrying') AND background = %(background)s AND next_attempt_at <= now()
      AND (lease_until IS NULL OR lease_until < now())
    ORDER BY next_attempt_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE webhooks_delivery d
SET lease_token = %(token)s, lease_until = now() + make_interval(secs => %(lease)s)
FROM due WHERE d.id = due.id
RETURNING d.id, d.lease_token, d.vendor, d.event_type, d.vendor_user_id, d.object_id, d.event_time, d.body, d.headers,
    d.origin, d.background, d.received_at, d.next_attempt_at, d.attempts, d.failures, d.pending_asks, d.sample_count,
    clock_timestamp()
"""
LINKS = """
SELECT l.vendor, l.vendor_user_id, l.id, l.patient_id, p.external_id, p.timezone,
    l.status IN ('active', 'stale') AND l.paused_at IS NULL
FROM unnest(%b::text[], %b::text[]) AS wanted (vendor, vendor_user_id)
JOIN devices_link l USING (vendor, vendor_user_id)
JOIN devices_patient p ON p.id = l.patient_id
"""
# A phone's key has been checked for its patient at the door: its link needs nobody's consent but that. In the
# sandbox an unknown user_<number> becomes a patient.
SANDBOX_PATIENTS = """
INSERT INTO devices_patient (external_id, display_name)
SELECT name, initcap(replace(name, '_', ' ')) FROM unnest(%s::text[]) AS name WHERE name ~ '^user_[0-9]+$'
ORDER BY name ON CONFLICT (external_id) DO NOTHING
"""
PHONE_LINKS = """
INSERT INTO devices_link (patient_id, vendor, vendor_user_id)
SELECT id, 'healthkit', external_id FROM devices_patient WHERE external_id = ANY(%s)
ORDER BY id ON CONFLICT (vendor, vendor_user_id) DO NOTHING
"""
# What is being written at this moment is left out: nobody else can take it, and waiting for its lock while others are
# held is one half of a deadlock.
RENEW = """
WITH mine AS (
    SELECT d.id FROM webhooks_delivery d
    JOIN unnest(%s::bigint[], %s::uuid[]) AS held (id, lease_token) USING (id, lease_token)
    FOR UPDATE OF d SKIP LOCKED
)
UPDATE webhooks_delivery d SET lease_until = now() + make_interval(secs => %s) FROM mine WHERE d.id = mine.id
"""
# In the order in which outcomes are written.
RELEASE = """
WITH mine AS (
    SELECT d.id FROM webhooks_delivery d
    JOIN unnest(%s::bigint[], %s::uuid[]) AS held (id, lease_token) USING (id, lease_token)
    ORDER BY d.id FOR UPDATE OF d
)
UPDATE webhooks_delivery d SET lease_token = NULL, lease_until = NULL FROM mine WHERE d.id = mine.id
"""


class LinkRow(msgspec.Struct, frozen=True):
    """A link as the worker needs it; `usable` is false while it is expired, revoked or paused."""

    id: int
    patient_id: int
    external_id: str
    zone: str
    usable: bool


class Claimed(msgspec.Struct):
    """A delivery under this worker's lease. `due_at` is when it came, or was to be tried once more."""

    id: int
    lease_token: uuid.UUID
    vendor: str
    event_type: str
    vendor_user_id: str
    object_id: str
    event_time: datetime | None
    body: bytes | None
    headers: dict[str, str] | None
    origin: str
    background: bool
    received_at: datetime
    due_at: datetime
    attempts: int
    failures: int
    pending_asks: int
    sample_count: int
    link: LinkRow | None = None


async def claim(
    connection: Connection, limit: int, lease: float, clock: DatabaseClock, *, background: int = 0
) -> list[Claimed]:
    """Take up to `limit` due deliveries, up to `background` of them such as can wait, and set `clock`.

    The oldest first, and what can wait last. No transaction stays open.
    """
    asked_at = monotonic()
    names = {"token": uuid.uuid4(), "lease": lease}
    # Binary, for a body written as hexadecimal digits is twice its size, and has to be made and read.
    cursor = await connection.execute(CLAIM, names | {"limit": limit, "background": False}, binary=True)
    rows = await cursor.fetchall()
    if room := min(limit - len(rows), background):
        cursor = await connection.execute(CLAIM, names | {"limit": room, "background": True}, binary=True)
        rows += await cursor.fetchall()
    if not rows:
        return []
    clock.set(rows[0][-1], asked_at=asked_at)
    # What UPDATE returns comes in its plan's order.
    claimed = sorted((Claimed(*row[:-1]) for row in rows), key=lambda each: (each.background, each.due_at, each.id))
    links = await find_links(connection, {(c.vendor, c.vendor_user_id) for c in claimed})
    for delivery in claimed:
        delivery.link = links.get((delivery.vendor, delivery.vendor_user_id))
    return claimed


async def find_links(connection: Connection, users: Iterable[tuple[str, str]]) -> dict[tuple[str, str], LinkRow]:
    wanted = list(users)
    cursor = await connection.execute(LINKS, [[vendor for vendor, _ in wanted], [user for _, user in wanted]])
    return {(row[0], row[1]): LinkRow(*row[2:]) for row in await cursor.fetchall()}


async def link_phones(connection: Connection, claimed: Iterable[Claimed], *, sandbox: bool) -> None:
    """Give HealthKit deliveries whose patient has no phone link yet their link."""
    unlinked = [c for c in claimed if c.vendor == "healthkit" and c.link is None]
    if not unlinked:
        return
    users = sorted({c.vendor_user_id for c in unlinked})
    if sandbox:
        await connection.execute(SANDBOX_PATIENTS, [users])
    await connection.execute(PHONE_LINKS, [users])
    links = await find_links(connection, {(c.vendor, c.vendor_user_id) for c in unlinked})
    for delivery in unlinked:
        delivery.link = links.get((delivery.vendor, delivery.vendor_user_id))


async def renew(connection: Connection, held: Iterable[Claimed], lease: float) -> None:
    held = list(held)
    await connection.execute(RENEW, [array(c.id for c in held), array(c.lease_token for c in held), lease])


async def release(connection: Connection, held: Iterable[Claimed]) -> None:
    """Give back what was not finished: another worker may take it at once."""
    held = list(held)
    await connection.execute(RELEASE, [array(c.id for c in held), array(c.lease_token for c in held)])
