"""Storing samples: COPY into a temporary table, then a fixed number of statements whatever the batch holds.

Everything here runs inside the caller's transaction, which has locked the timelines of its patients first
(`lock_timelines`). Under that lock what `biometrics_record` says cannot change, so deciding which revision stands
and acting on it are two statements without a race between them.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any

import msgspec
import psycopg

from auren.biometrics.conflicts import Change, settle
from auren.biometrics.metrics import METRICS

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

EVERY_METRIC = [metric.number for metric in METRICS]


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """One sample on its way in. `place` is its position in its delivery: of two with one key the later one counts.

    `announced_at` is when the vendor said the record exists; a record withdrawn at or after that stays withdrawn.
    `adds` to what the record held before, where another sample replaces it.
    """

    delivery_id: int
    patient_id: int
    link_id: int
    source_id: int
    metric: int
    start_at: datetime
    end_at: datetime
    value: float
    utc_offset_minutes: int | None
    record: str
    revised_at: datetime
    announced_at: datetime | None
    place: int
    adds: bool = False


class Withdrawal(msgspec.Struct, frozen=True):
    """A record gone at the vendor since `withdrawn_at`. `final`: its id never comes back (HealthKit)."""

    delivery_id: int
    patient_id: int
    link_id: int
    record: str
    withdrawn_at: datetime
    final: bool


Revision = tuple[int, str, datetime]


class Stored(msgspec.Struct):
    """What a batch did.

    `counts` are the rows standing per delivery, `lost` the revisions (delivery, record, time) that a newer one or a
    withdrawal kept out, `gone` the (link, record) pairs of its withdrawals that hold, `conflicts` those that changed.
    """

    counts: dict[int, int]
    lost: set[Revision]
    gone: set[tuple[int, str]]
    conflicts: list[Change]


# Planning a statement over 65 partitions takes as long as running it, and the plans do not differ: plan once.
# Temporary tables live as long as the connection and are emptied by each commit. No announcement at all
# (`announced_at` null) means that the record's id is never used again after a withdrawal.
#
# No just-in-time compilation: 65 partitions make a statement look dear, and where PostgreSQL was built with LLVM, as
# Debian's 15 is, settling a batch took five to seven seconds, nearly all of it compiling.
PREPARE = """
SET plan_cache_mode = force_generic_plan;
SET jit = off;
CREATE TEMPORARY TABLE IF NOT EXISTS incoming (
    delivery_id bigint, patient_id bigint, link_id bigint, source_id bigint, metric smallint,
    start_at timestamptz, end_at timestamptz, value double precision, utc_offset_minutes smallint,
    record text, revised_at timestamptz, announced_at timestamptz, place integer, adds boolean
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS standing (
    patient_id bigint, link_id bigint, record text, delivery_id bigint, revised_at timestamptz, replaces boolean,
    start_at timestamptz, end_at timestamptz, old_start_at timestamptz, old_end_at timestamptz
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS touched (
    patient_id bigint, metric smallint, start_at timestamptz, end_at timestamptz
) ON COMMIT DELETE ROWS;
"""
COPY = "COPY incoming FROM STDIN (FORMAT BINARY)"
COPY_TYPES = [
    "int8",
    "int8",
    "int8",
    "int8",
    "int2",
    "timestamptz",
    "timestamptz",
    "float8",
    "int2",
    "text",
    "timestamptz",
    "timestamptz",
    "int4",
    "bool",
]

# Of several deliveries in the batch that carry one record, the newest revision counts, then the later delivery.
STAND = """
WITH given AS (
    SELECT DISTINCT ON (patient_id, link_id, record) *
    FROM (
        SELECT patient_id, link_id, record, delivery_id, revised_at, count(*) AS rows, bool_or(adds) AS adds,
               min(announced_at) AS announced_at, min(start_at) AS start_at, max(end_at) AS end_at
        FROM incoming
        GROUP BY patient_id, link_id, record, delivery_id, revised_at
    ) AS revision
    ORDER BY patient_id, link_id, record, revised_at DESC, delivery_id DESC
), decided AS (
    SELECT given.*, old.start_at AS old_start_at, old.end_at AS old_end_at
    FROM given
    LEFT JOIN biometrics_record old USING (patient_id, link_id, record)
    WHERE (old.revised_at IS NULL OR old.revised_at <= given.revised_at)
      AND (old.withdrawn_at IS NULL
           OR old.withdrawn_at < least(given.revised_at, coalesce(given.announced_at, '-infinity')))
), written AS (
    INSERT INTO biometrics_record AS r (patient_id, link_id, record, revised_at, start_at, end_at)
    SELECT patient_id, link_id, record, revised_at,
           CASE WHEN adds THEN least(start_at, old_start_at) ELSE start_at END,
           CASE WHEN adds THEN greatest(end_at, old_end_at) ELSE end_at END
    FROM decided
    ON CONFLICT (patient_id, link_id, record) DO UPDATE
    SET revised_at = excluded.revised_at, withdrawn_at = NULL, start_at = excluded.start_at, end_at = excluded.end_at
)
INSERT INTO standing
SELECT patient_id, link_id, record, delivery_id, revised_at,
       old_start_at IS NOT NULL AND NOT adds
       AND NOT (announced_at IS NULL AND rows = 1 AND (start_at, end_at) = (old_start_at, old_end_at)),
       start_at, end_at, old_start_at, old_end_at
FROM decided
"""
LOST = """
SELECT DISTINCT i.delivery_id, i.record, i.revised_at FROM incoming i
WHERE NOT EXISTS (
    SELECT FROM standing s
    WHERE s.delivery_id = i.delivery_id AND s.patient_id = i.patient_id AND s.link_id = i.link_id
      AND s.record = i.record AND s.revised_at = i.revised_at
)
"""
# What stood of a record may be more than what comes. Only a phone's sample, one of its uuid, that has not moved is
# sure to be overwritten by the upsert.
REPLACED = "SELECT EXISTS (SELECT FROM standing WHERE replaces)"
DELETE_REPLACED = """
WITH gone AS (
    DELETE FROM biometrics_sample s
    USING standing t
    WHERE t.replaces AND s.patient_id = t.patient_id AND s.metric = ANY(%s) AND s.record = t.record
      AND s.start_at >= t.old_start_at AND s.start_at <= t.old_end_at
      AND s.source_id IN (SELECT id FROM biometrics_source WHERE link_id = t.link_id)
      AND NOT EXISTS (
        SELECT FROM incoming i
        WHERE i.delivery_id = t.delivery_id AND i.revised_at = t.revised_at AND i.patient_id = s.patient_id
          AND i.metric = s.metric AND i.start_at = s.start_at AND i.source_id = s.source_id AND i.record = s.record
      )
    RETURNING s.patient_id, s.metric, s.start_at, s.end_at
)
INSERT INTO touched SELECT * FROM gone
"""
UPSERT = """
WITH written AS (
    INSERT INTO biometrics_sample AS s
        (patient_id, metric, start_at, source_id, record, end_at, value, utc_offset_minutes, revised_at, delivery_id)
    SELECT DISTINCT ON (i.patient_id, i.metric, i.start_at, i.source_id, i.record)
        i.patient_id, i.metric, i.start_at, i.source_id, i.record, i.end_at, i.value, i.utc_offset_minutes,
        i.revised_at, i.delivery_id
    FROM incoming i
    JOIN standing t USING (patient_id, link_id, record, delivery_id, revised_at)
    ORDER BY i.patient_id, i.metric, i.start_at, i.source_id, i.record, i.place DESC
    ON CONFLICT (patient_id, metric, start_at, source_id, record) DO UPDATE
    SET end_at = excluded.end_at, value = excluded.value, utc_offset_minutes = excluded.utc_offset_minutes,
        revised_at = excluded.revised_at, delivery_id = excluded.delivery_id
    WHERE (s.end_at, s.value, s.utc_offset_minutes, s.revised_at)
        IS DISTINCT FROM (excluded.end_at, excluded.value, excluded.utc_offset_minutes, excluded.revised_at)
    RETURNING patient_id, metric, start_at, end_at, record
)
INSERT INTO touched
SELECT w.patient_id, w.metric, w.start_at, greatest(w.end_at, t.old_end_at)
FROM written w
LEFT JOIN standing t ON t.patient_id = w.patient_id AND t.record = w.record AND t.old_end_at > w.end_at
"""

# A withdrawal older than the revision that stands changes nothing, unless it is final. One that finds no record
# leaves its mark all the same: its sample may still be on the way.
WITHDRAW = """
WITH given AS (
    SELECT patient_id, link_id, record, max(withdrawn_at) AS withdrawn_at, bool_or(final) AS final
    FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::timestamptz[], %s::boolean[])
        AS w (patient_id, link_id, record, withdrawn_at, final)
    GROUP BY patient_id, link_id, record
), effective AS (
    SELECT given.*, old.start_at, old.end_at
    FROM given LEFT JOIN biometrics_record old USING (patient_id, link_id, record)
    WHERE given.final OR old.revised_at IS NULL OR old.revised_at <= given.withdrawn_at
), marked AS (
    INSERT INTO biometrics_record AS r (patient_id, link_id, record, revised_at, withdrawn_at)
    SELECT patient_id, link_id, record, withdrawn_at, withdrawn_at FROM effective
    ON CONFLICT (patient_id, link_id, record) DO UPDATE
    SET revised_at = greatest(r.revised_at, excluded.revised_at), withdrawn_at = excluded.withdrawn_at,
        start_at = NULL, end_at = NULL
), gone AS (
    DELETE FROM biometrics_sample s
    USING effective e
    WHERE s.patient_id = e.patient_id AND s.metric = ANY(%s) AND s.record = e.record
      AND s.start_at >= e.start_at AND s.start_at <= e.end_at
      AND s.source_id IN (SELECT id FROM biometrics_source WHERE link_id = e.link_id)
    RETURNING s.patient_id, s.metric, s.start_at, s.end_at
)
INSERT INTO touched SELECT * FROM gone
"""
GONE = """
SELECT link_id, record FROM biometrics_record
JOIN unnest(%s::bigint[], %s::bigint[], %s::text[]) AS w (patient_id, link_id, record)
    USING (patient_id, link_id, record)
WHERE withdrawn_at IS NOT NULL
"""

LOCK = """
INSERT INTO biometrics_timeline (patient_id) SELECT unnest(%s::bigint[]) ORDER BY 1 ON CONFLICT DO NOTHING
"""
LOCKED = "SELECT patient_id FROM biometrics_timeline WHERE patient_id = ANY(%s) ORDER BY patient_id FOR UPDATE"
ADVANCE = """
UPDATE biometrics_timeline t SET version = version + given.steps
FROM unnest(%s::bigint[], %s::bigint[]) AS given (patient_id, steps)
WHERE t.patient_id = given.patient_id
RETURNING t.patient_id, t.version
"""
SOURCES = """
INSERT INTO biometrics_source (link_id, name, kind)
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[]) ORDER BY 1, 2
ON CONFLICT (link_id, name) DO NOTHING
"""
SOURCE_IDS = """
SELECT s.link_id, s.name, s.id FROM biometrics_source s
JOIN unnest(%s::bigint[], %s::text[]) AS given (link_id, name) USING (link_id, name)
"""


async def prepare(connection: Connection) -> None:
    """Make the connection ready to store: once after it was opened."""
    await connection.execute(PREPARE)


async def lock_timelines(connection: Connection, patient_ids: Iterable[int]) -> None:
    """Lock the patients' timelines in ascending order, in statements of their own: the transaction's first act.

    Whoever stores for one of them waits here, and then sees what the one before wrote (READ COMMITTED).
    """
    ordered = sorted(set(patient_ids))
    await connection.execute(LOCK, [ordered])
    await connection.execute(LOCKED, [ordered])


async def advance(connection: Connection, steps: Mapping[int, int]) -> dict[int, int]:
    """Raise each patient's version by `steps`; returns the new versions."""
    cursor = await connection.execute(ADVANCE, [list(steps), list(steps.values())])
    return dict(await cursor.fetchall())


async def source_ids(connection: Connection, wanted: Mapping[tuple[int, str], str]) -> dict[tuple[int, str], int]:
    """Ids of the sources named by (link, name), created with their kind where they are new. Needs no transaction."""
    links, names = [link for link, _ in wanted], [name for _, name in wanted]
    await connection.execute(SOURCES, [links, names, list(wanted.values())])
    cursor = await connection.execute(SOURCE_IDS, [links, names])
    return {(link, name): id_ for link, name, id_ in await cursor.fetchall()}


async def store(
    connection: Connection, samples: Sequence[Incoming], withdrawals: Sequence[Withdrawal], zones: Mapping[int, str]
) -> Stored:
    """Store a batch: newer revisions replace, older ones change nothing, what was withdrawn stays away.

    `zones` gives every patient's IANA zone, for conflicts over local days. The timelines must be locked.
    """
    counts: dict[int, int] = {}
    lost: set[Revision] = set()
    gone: set[tuple[int, str]] = set()
    if withdrawals:
        await _withdraw(connection, withdrawals)
    if samples:
        await _copy(connection, samples)
        stand = await connection.execute(STAND)
        if stand.rowcount < count_revisions(samples):
            lost = set(await (await connection.execute(LOST)).fetchall())
        await _delete_replaced(connection)
        await connection.execute(UPSERT)
        counts = count_standing(samples, lost)
    if withdrawals:  # a record may have been withdrawn and come back within the batch
        gone = set(await (await connection.execute(GONE, _named(withdrawals))).fetchall())
    return Stored(counts, lost, gone, await settle(connection, zones))


def count_revisions(samples: Iterable[Incoming]) -> int:
    """How many revisions of records come in the batch. When as many stand, none has lost."""
    return len({(s.delivery_id, s.patient_id, s.link_id, s.record, s.revised_at) for s in samples})


def count_standing(samples: Sequence[Incoming], lost: Set[Revision]) -> dict[int, int]:
    """Rows standing of each delivery: two samples with one key are one row."""
    keys: dict[int, set[tuple[object, ...]]] = {}
    for s in samples:
        if not lost or (s.delivery_id, s.record, s.revised_at) not in lost:
            keys.setdefault(s.delivery_id, set()).add((s.metric, s.start_at, s.source_id, s.record))
    return {delivery_id: len(found) for delivery_id, found in keys.items()}


async def _copy(connection: Connection, samples: Sequence[Incoming]) -> None:
    async with connection.cursor().copy(COPY) as copy:
        copy.set_types(COPY_TYPES)
        for sample in samples:
            await copy.write_row(msgspec.structs.astuple(sample))


async def _delete_replaced(connection: Connection) -> None:
    row = await (await connection.execute(REPLACED)).fetchone()
    if row and row[0]:
        await connection.execute(DELETE_REPLACED, [EVERY_METRIC])


async def _withdraw(connection: Connection, withdrawals: Sequence[Withdrawal]) -> None:
    effects = [w.withdrawn_at for w in withdrawals], [w.final for w in withdrawals]
    await connection.execute(WITHDRAW, [*_named(withdrawals), *effects, EVERY_METRIC])


def _named(withdrawals: Sequence[Withdrawal]) -> list[list[Any]]:
    names = [(w.patient_id, w.link_id, w.record) for w in withdrawals]
    return [list(column) for column in zip(*names, strict=True)]
