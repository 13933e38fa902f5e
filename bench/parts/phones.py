"""Deliveries as phones post them: about a thousand samples a body, a watch and a phone that do not agree on steps."""

import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg

PEOPLE = 20
BEATS = 850  # a body holds as many heart rates of the watch, one every five seconds
MINUTES = 75  # and as many minutes of steps by the watch, and again by the phone
SAMPLES = BEATS + 2 * MINUTES
SPAN = timedelta(minutes=MINUTES)

PATIENTS = """
INSERT INTO devices_patient (external_id, display_name, timezone)
SELECT 'bench_' || n, 'Bench ' || n, 'Europe/Berlin' FROM generate_series(1, %s) AS n ON CONFLICT DO NOTHING
"""
FILE = """
INSERT INTO webhooks_delivery (vendor, dedup_key, event_type, vendor_user_id, body, received_at)
SELECT 'healthkit', key, 'batch.posted', who, body, clock_timestamp()
FROM unnest(%b::text[], %b::text[], %b::bytea[]) AS given (key, who, body)
"""

Sample = dict[str, Any]


class Phones:
    """Each call to `post` carries on where the last one ended, a body after the other for each person."""

    def __init__(self) -> None:
        self.random = random.Random(4)  # noqa: S311 - the same bodies in each run
        self.number = 0
        self.first_at = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=60)

    def post(self, database: psycopg.Connection[Any], count: int) -> None:
        """File `count` deliveries, as ingest does."""
        bodies = [self.body() for _ in range(count)]
        keys = [uuid.uuid4().hex for _ in bodies]
        database.execute(FILE, [keys, [who for who, _ in bodies], [body for _, body in bodies]])

    def body(self) -> tuple[str, bytes]:
        turn, person = divmod(self.number, PEOPLE)
        self.number += 1
        who, start_at = f"bench_{person + 1}", self.first_at + turn * SPAN
        return who, msgspec.json.encode({"user_id": who, "samples": self.samples(start_at)})

    def samples(self, start_at: datetime) -> list[Sample]:
        beats = [
            self.sample("HeartRate", "count/min", 55 + self.random.randrange(60), start_at + timedelta(seconds=5 * n))
            for n in range(BEATS)
        ]
        steps = [
            self.sample("StepCount", "count", most + self.random.randrange(40), start_at + timedelta(minutes=n), source)
            for source, most in (("Apple Watch", 60), ("iPhone", 10))
            for n in range(MINUTES)
        ]
        return beats + steps

    def sample(self, kind: str, unit: str, value: int, at: datetime, source: str = "Apple Watch") -> Sample:
        length = timedelta(minutes=1) if kind == "StepCount" else timedelta()
        return {
            "type": f"HKQuantityTypeIdentifier{kind}",
            "value": value,
            "unit": unit,
            "startDate": at.isoformat(),
            "endDate": (at + length).isoformat(),
            "uuid": str(uuid.UUID(int=self.random.getrandbits(128), version=4)).upper(),
            "source": source,
        }
