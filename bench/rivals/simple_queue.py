"""What the claim loop is measured beside: a queue as most write their first, a transaction for each delivery."""

import time
from collections.abc import Callable
from typing import Any

import psycopg

TAKE = """
SELECT d.id, d.event_type, d.attempts, l.id, l.patient_id FROM webhooks_delivery d
LEFT JOIN devices_link l USING (vendor, vendor_user_id)
WHERE d.state IN ('received', 'retrying') AND d.background = false AND d.next_attempt_at <= now()
ORDER BY d.next_attempt_at
LIMIT 1
FOR UPDATE OF d SKIP LOCKED
"""
DONE = """
UPDATE webhooks_delivery SET state = 'ignored', error = %s, attempts = attempts + 1, link_id = %s, patient_id = %s
WHERE id = %s
"""
TRIED = """
INSERT INTO webhooks_attempt (delivery_id, number, stage, started_at, duration_ms, outcome, message)
VALUES (%s, %s, 'read', now(), 0, 'ignored', %s)
"""

Connection = psycopg.Connection[tuple[Any, ...]]


def work(address: str, look_at: Callable[[str], str], seconds: float) -> None:
    """Until nothing is due any more or `seconds` are over. `look_at` an event type says why it is ignored."""
    with psycopg.connect(address, autocommit=True, prepare_threshold=1) as connection:
        until = time.monotonic() + seconds
        while time.monotonic() < until and take_one(connection, look_at):
            pass


def take_one(connection: Connection, look_at: Callable[[str], str]) -> bool:
    with connection.transaction():
        row = connection.execute(TAKE).fetchone()
        if row is None:
            return False
        delivery, event_type, attempts, link, patient = row
        reason = look_at(event_type)
        connection.execute(DONE, [reason, link, patient, delivery])
        connection.execute(TRIED, [delivery, attempts + 1, reason])
    return True
