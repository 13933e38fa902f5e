"""An answer is a promise: every delivery that was acknowledged is looked up in PostgreSQL, and every sample of it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psycopg

ACCEPTED = 202


class Answer(msgspec.Struct):
    """A line of what bench/locustfile.py writes. `status` 0 is no answer at all; `ms` counts from the first byte."""

    at: float
    vendor: str
    status: int
    ms: float
    key: str
    samples: int
    bytes: int
    delivery: int = 0
    duplicate: bool = False
    problem: str = ""


class Verdict(msgspec.Struct):
    """What became of the promises. Everything but `acknowledged` and `states` should be 0."""

    acknowledged: int
    missing: int  # deliveries that are not there
    doubled: int  # deliveries of one post, beyond its first
    confused: int  # posts that were told another's delivery
    unasked: int  # deliveries that nobody was told of, beyond the posts that got no good answer
    unfinished: int  # deliveries still under way, or dead, when the wait was over
    samples_missing: int
    samples_doubled: int
    states: dict[str, int]
    stored_twice: int = 0  # deliveries that two tries have stored
    tried_again: dict[str, int] = msgspec.field(default_factory=dict)  # why deliveries waited for another try

    @property
    def kept(self) -> bool:
        bad = (self.missing, self.doubled, self.confused, self.unasked, self.unfinished, self.stored_twice)
        return not any((*bad, self.samples_missing, self.samples_doubled))


LOADED = "CREATE TEMPORARY TABLE acknowledged (id bigint, samples integer)"
MISSING = "SELECT count(*) FROM acknowledged LEFT JOIN webhooks_delivery d USING (id) WHERE d.id IS NULL"
FILED = "SELECT count(*) FROM webhooks_delivery WHERE id > %s AND origin = 'webhook'"
STATES = "SELECT d.state, count(*) FROM acknowledged JOIN webhooks_delivery d USING (id) GROUP BY 1 ORDER BY 1"
STORED_TWICE = """
SELECT count(*) FROM (
    SELECT FROM acknowledged a JOIN webhooks_attempt t ON t.delivery_id = a.id
    WHERE t.stage = 'store' AND t.outcome = 'stored' GROUP BY a.id HAVING count(*) > 1
) AS twice
"""
TRIED_AGAIN = """
SELECT CASE t.error_class WHEN '' THEN t.message ELSE t.error_class END, count(*)
FROM acknowledged a JOIN webhooks_attempt t ON t.delivery_id = a.id
WHERE t.outcome IN ('failed', 'pending') GROUP BY 1 ORDER BY 2 DESC
"""
# Each batch's samples have uuids of their own, and the bodies of a run have none in common.
SAMPLES = """
SELECT coalesce(sum(greatest(a.samples - found.distinct_records, 0)), 0),
       coalesce(sum(found.records - found.distinct_records), 0)
FROM acknowledged a CROSS JOIN LATERAL (
    SELECT count(*) AS records, count(DISTINCT s.record) AS distinct_records
    FROM webhooks_delivery d JOIN biometrics_sample s ON s.patient_id = d.patient_id AND s.delivery_id = d.id
    WHERE d.id = a.id
) AS found
WHERE a.samples > 0
"""


def read_answers(path: Path) -> list[Answer]:
    return [msgspec.json.decode(line, type=Answer) for line in path.read_bytes().splitlines()]


def verify(database: psycopg.Connection[Any], answers: Sequence[Answer], *, since: int) -> Verdict:
    """`since` is the last delivery from before these answers."""
    promised = {answer.delivery: answer for answer in answers if answer.status == ACCEPTED}
    new = [number for number in promised if number > since]
    broken = sum(answer.status != ACCEPTED for answer in answers)
    database.execute("DROP TABLE IF EXISTS acknowledged")
    database.execute(LOADED)
    with database.cursor() as cursor, cursor.copy("COPY acknowledged FROM STDIN") as copy:
        for number, answer in promised.items():
            copy.write_row((number, answer.samples))
    database.execute("ANALYZE acknowledged")
    states = dict(database.execute(STATES).fetchall())
    samples_missing, samples_doubled = one(database, SAMPLES)
    return Verdict(
        acknowledged=len(promised),
        missing=one(database, MISSING)[0],
        doubled=more_than_one((answer.key, answer.delivery) for answer in answers if answer.status == ACCEPTED),
        confused=more_than_one((answer.delivery, answer.key) for answer in answers if answer.status == ACCEPTED),
        unasked=max(0, one(database, FILED, since)[0] - len(new) - broken),
        unfinished=sum(count for state, count in states.items() if state not in {"published", "ignored"}),
        samples_missing=int(samples_missing),
        samples_doubled=int(samples_doubled),
        states=states,
        stored_twice=one(database, STORED_TWICE)[0],
        tried_again=dict(database.execute(TRIED_AGAIN).fetchall()),
    )


def one(database: psycopg.Connection[Any], sql: str, *values: Any) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = database.execute(sql, values).fetchone()
    assert row is not None
    return row


def more_than_one(pairs: Iterable[tuple[Any, Any]]) -> int:
    """How many second halves there are beyond one for each first half."""
    seen: dict[Any, set[Any]] = defaultdict(set)
    for first, second in pairs:
        seen[first].add(second)
    return sum(len(each) - 1 for each in seen.values())
