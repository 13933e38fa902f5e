"""Storing samples: one question says what stands, Python decides, and few statements write whatever the batch holds.

Everything here runs inside the caller's transaction, which has locked the timelines of its patients first
(`lock_timelines`). Under that lock what `biometrics_record` says cannot change, so asking which revision stands and
acting on the answer leave no room for a race. What nobody has seen before, which is nearly everything, is copied
straight into the tables; only records that are known already have their older samples read and compared.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import psycopg

from auren.biometrics.conflicts import Change, Touched, settle
from auren.biometrics.metrics import METRICS
from auren.postgres import array

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

EVERY_METRIC = [metric.number for metric in METRICS]


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """One sample on its way in. `place` is its position in its delivery: of two with one key the later one counts.

    `announced_at` is when the vendor said the record exists; a record withdrawn at or after that stays withdrawn. It is
    null where a record's id is never used again after a withdrawal. `adds` to what the record held before, where
    another sample replaces it.
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


Record = tuple[int, int, str]  # patient, link, the vendor's id
Revision = list[Incoming]  # what one delivery says of a record as of one time: it stands or falls as a whole
Name = tuple[int, str, datetime]  # a revision's: delivery, record, time


class Known(NamedTuple):
    """What is stored about a record. Without samples it has no start and no end."""

    revised_at: datetime
    withdrawn_at: datetime | None
    start_at: datetime | None
    end_at: datetime | None


class Stored(msgspec.Struct):
    """What a batch did.

    `counts` are the rows standing per delivery, `lost` the revisions (delivery, record, time) that a newer one or a
    withdrawal kept out or that another delivery has stored already, `gone` the (link, record) pairs of its withdrawals
    that hold, `conflicts` those that changed.
    """

    counts: dict[int, int]
    lost: set[Name]
    gone: set[tuple[int, str]]
    conflicts: list[Change]


# How a connection that stores has to be set. Planning a statement over 65 partitions takes as long as running it, and
# the plans do not differ: plan once. No just-in-time compilation: 65 partitions make a statement look dear, and where
# PostgreSQL was built with LLVM, as Debian's 15 is, settling a batch took five to seven seconds, nearly all of it
# compiling.
SESSION = {"plan_cache_mode": "force_generic_plan", "jit": "off"}

# PostgreSQL takes a list of thousands for ten rows, so whatever is joined with one is looked up row by row (LATERAL
# and OFFSET 0), which leaves nothing but the index. Lists go binary (%b): the other way each text in them is searched
# for what has to be quoted.
KNOWN = """
SELECT given.patient_id, given.link_id, name, r.revised_at, r.withdrawn_at, r.start_at, r.end_at
FROM unnest(%s::bigint[], %s::bigint[], %b::text[]) AS given (patient_id, link_id, records)
CROSS JOIN LATERAL json_array_elements_text(given.records::json) AS name
CROSS JOIN LATERAL (
    SELECT * FROM biometrics_record r
    WHERE r.patient_id = given.patient_id AND r.link_id = given.link_id AND r.record = name OFFSET 0
) AS r
"""
# A record's samples lie between its first start and its last end. Where the metric is known, only that is looked for.
OF_RECORDS = """
SELECT s.patient_id, s.metric, s.start_at, s.source_id, s.record,
       s.end_at, s.value, s.utc_offset_minutes, s.revised_at, s.delivery_id, given.link_id
FROM unnest(%b::bigint[], %b::bigint[], %b::text[], %b::timestamptz[], %b::timestamptz[], %b::smallint[])
    AS given (patient_id, link_id, record, start_at, end_at, metric)
CROSS JOIN LATERAL (
    SELECT * FROM biometrics_sample s
    WHERE s.patient_id = given.patient_id AND s.record = given.record
      AND s.metric = ANY(CASE WHEN given.metric IS NULL THEN %b::smallint[] ELSE ARRAY[given.metric] END)
      AND s.start_at >= given.start_at AND s.start_at <= given.end_at
      AND s.source_id IN (SELECT id FROM biometrics_source WHERE link_id = given.link_id)
    OFFSET 0
) AS s
"""
DELETE = """
DELETE FROM biometrics_sample s
USING unnest(%b::bigint[], %b::smallint[], %b::timestamptz[], %b::bigint[], %b::text[])
    AS given (patient_id, metric, start_at, source_id, record)
WHERE s.patient_id = given.patient_id AND s.metric = given.metric AND s.start_at = given.start_at
  AND s.source_id = given.source_id AND s.record = given.record
"""
UPDATE = """
UPDATE biometrics_sample s
SET end_at = given.end_at, value = given.value, utc_offset_minutes = given.utc_offset_minutes,
    revised_at = given.revised_at, delivery_id = given.delivery_id
FROM unnest(%b::bigint[], %b::smallint[], %b::timestamptz[], %b::bigint[], %b::text[],
            %b::timestamptz[], %b::double precision[], %b::smallint[], %b::timestamptz[], %b::bigint[])
    AS given (patient_id, metric, start_at, source_id, record,
              end_at, value, utc_offset_minutes, revised_at, delivery_id)
WHERE s.patient_id = given.patient_id AND s.metric = given.metric AND s.start_at = given.start_at
  AND s.source_id = given.source_id AND s.record = given.record
"""
UPDATE_RECORDS = """
UPDATE biometrics_record r
SET revised_at = given.revised_at, withdrawn_at = NULL, start_at = given.start_at, end_at = given.end_at
FROM unnest(%b::bigint[], %b::bigint[], %b::text[], %b::timestamptz[], %b::timestamptz[], %b::timestamptz[])
    AS given (patient_id, link_id, record, revised_at, start_at, end_at)
WHERE r.patient_id = given.patient_id AND r.link_id = given.link_id AND r.record = given.record
"""
COPY_RECORDS = """
COPY biometrics_record (patient_id, link_id, record, revised_at, start_at, end_at) FROM STDIN (FORMAT BINARY)
"""
RECORD_TYPES = ["int8", "int8", "text", "timestamptz", "timestamptz", "timestamptz"]
COPY_SAMPLES = """
COPY biometrics_sample
    (patient_id, metric, start_at, source_id, record, end_at, value, utc_offset_minutes, revised_at, delivery_id)
FROM STDIN (FORMAT BINARY)
"""
SAMPLE_TYPES = ["int8", "int2", "timestamptz", "int8", "text", "timestamptz", "float8", "int2", "timestamptz", "int8"]

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
)
DELETE FROM biometrics_sample s
USING effective e
WHERE s.patient_id = e.patient_id AND s.metric = ANY(%s) AND s.record = e.record
  AND s.start_at >= e.start_at AND s.start_at <= e.end_at
  AND s.source_id IN (SELECT id FROM biometrics_source WHERE link_id = e.link_id)
RETURNING s.patient_id, s.metric, s.start_at, s.end_at
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
LOCKED = """
SELECT patient_id FROM biometrics_timeline WHERE patient_id = ANY(%s::bigint[]) ORDER BY patient_id FOR UPDATE
"""
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

KEY = ("patient_id", "metric", "start_at", "source_id", "record")
SAID = ("end_at", "value", "utc_offset_minutes", "revised_at")
key_of, said_by, row_of = attrgetter(*KEY), attrgetter(*SAID), attrgetter(*KEY, *SAID, "delivery_id")
touched_by = attrgetter("patient_id", "metric", "start_at", "end_at")


async def lock_timelines(connection: Connection, patient_ids: Iterable[int]) -> None:
    """Lock the patients' timelines in ascending order, in statements of their own: the transaction's first act.

    Whoever stores for one of them waits here, and then sees what the one before wrote (READ COMMITTED).
    """
    ordered = array(sorted(set(patient_ids)))
    await connection.execute(LOCK, [ordered])
    await connection.execute(LOCKED, [ordered])


async def advance(connection: Connection, steps: Mapping[int, int]) -> dict[int, int]:
    """Raise each patient's version by `steps`; returns the new versions."""
    cursor = await connection.execute(ADVANCE, [array(steps), array(steps.values())])
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
    touched: list[Touched] = []
    standing: dict[Record, Revision] = {}
    gone: set[tuple[int, str]] = set()
    if withdrawals:
        touched += await _withdraw(connection, withdrawals)
    if samples:
        standing = newest_revisions(samples)
        known = await _known(connection, standing)
        for record, before in known.items():
            if not stands(standing[record], before):
                del standing[record]
        touched += await _write(connection, standing, known)
    if withdrawals:  # a record may have been withdrawn and come back within the batch
        gone = set(await (await connection.execute(GONE, _named(withdrawals))).fetchall())
    changes = await settle(connection, touched, zones)
    return Stored(count_standing(standing.values()), lost_revisions(samples, standing.values()), gone, changes)


# What counts


def newest_revisions(samples: Iterable[Incoming]) -> dict[Record, Revision]:
    """Of several deliveries in the batch that carry one record, the newest revision counts, then the later delivery.

    Within it, of two samples with one key the later one.
    """
    newest: dict[Record, Revision] = {}
    for sample in samples:
        record = (sample.patient_id, sample.link_id, sample.record)
        held = newest.get(record)
        if held is None:
            newest[record] = [sample]
            continue
        comes, stood = (sample.revised_at, sample.delivery_id), (held[0].revised_at, held[0].delivery_id)
        if comes == stood:
            held.append(sample)
        elif comes > stood:
            newest[record] = [sample]
    for record, revision in newest.items():
        if len(revision) > 1:
            newest[record] = list({key_of(sample): sample for sample in revision}.values())
    return newest


def stands(revision: Revision, known: Known) -> bool:
    """Whether the revision is at least as new as what is stored, and not of a record that has been withdrawn."""
    first = revision[0]
    if known.revised_at > first.revised_at:
        return False
    if known.withdrawn_at is None:
        return True
    return first.announced_at is not None and known.withdrawn_at < min(first.revised_at, first.announced_at)


def count_standing(standing: Iterable[Revision]) -> dict[int, int]:
    """Rows standing of each delivery."""
    counts: dict[int, int] = {}
    for revision in standing:
        delivery_id = revision[0].delivery_id
        counts[delivery_id] = counts.get(delivery_id, 0) + len(revision)
    return counts


def lost_revisions(samples: Sequence[Incoming], standing: Collection[Revision]) -> set[Name]:
    """The revisions in the batch that do not stand."""
    if sum(map(len, standing)) == len(samples):
        return set()
    return {_name(sample) for sample in samples} - {_name(revision[0]) for revision in standing}


def _name(sample: Incoming) -> Name:
    return sample.delivery_id, sample.record, sample.revised_at


# Reading and writing it


async def _known(connection: Connection, records: Collection[Record]) -> dict[Record, Known]:
    """Asked link by link, each with its records as JSON: lists of thousands cost more to write than to look up."""
    by_link: dict[tuple[int, int], list[str]] = {}
    for patient_id, link_id, record in records:
        by_link.setdefault((patient_id, link_id), []).append(record)
    links = array(patient_id for patient_id, _ in by_link), array(link_id for _, link_id in by_link)
    named = [msgspec.json.encode(each).decode() for each in by_link.values()]
    cursor = await connection.execute(KNOWN, [*links, named])
    return {(row[0], row[1], row[2]): Known(*row[3:]) for row in await cursor.fetchall()}


async def _write(
    connection: Connection, standing: dict[Record, Revision], known: Mapping[Record, Known]
) -> list[Touched]:
    """Write what stands, and leave out of `standing` what is there already. Returns what that touched: where samples
    came, changed or went.
    """
    again = {record: standing[record] for record in known if record in standing}
    fresh = {record: revision for record, revision in standing.items() if record not in again} if again else standing
    added = [sample for revision in fresh.values() for sample in revision]
    touched: list[Touched] = []
    if again:
        news = compare(again, await _samples_of(connection, again, known))
        for record in [
            record for record in again if record not in news.records and is_same(again[record], known[record])
        ]:
            del again[record], standing[record]
        await _revise(connection, news, _record_rows(again, known))
        added += news.added
        touched += news.touched
    if fresh:
        await _copy(connection, COPY_RECORDS, RECORD_TYPES, _record_rows(fresh))
    if added:
        await _copy(connection, COPY_SAMPLES, SAMPLE_TYPES, map(row_of, added))
    return touched + [touched_by(sample) for sample in added]


class News(msgspec.Struct):
    """What is to be done so that the samples of known records are as they are now said: `gone` are keys.

    `records` have something new. A delivery that stored a record and says the same again has stored it again.
    """

    gone: list[tuple[Any, ...]] = []
    changed: list[Incoming] = []
    added: list[Incoming] = []
    touched: list[Touched] = []
    records: set[Record] = set()


def compare(again: Mapping[Record, Revision], before: Iterable[tuple[Any, ...]]) -> News:
    """Known records' revisions with `before`, the rows that stand of them."""
    news = News()
    missing = {key_of(sample): sample for revision in again.values() for sample in revision}
    for *named, end_at, value, offset, revised_at, delivery_id, link_id in before:
        patient_id, metric, start_at, _, record = key = tuple(named)
        sample, first = missing.pop(key, None), again[patient_id, link_id, record][0]
        if sample is None and not first.adds:
            news.gone.append(key)
            news.touched.append((patient_id, metric, start_at, end_at))
        elif sample is not None and said_by(sample) != (end_at, value, offset, revised_at):
            news.changed.append(sample)
            news.touched.append((patient_id, metric, start_at, max(end_at, sample.end_at)))
        elif delivery_id != first.delivery_id:
            continue
        news.records.add((patient_id, link_id, record))
    news.added = list(missing.values())
    news.records.update((sample.patient_id, sample.link_id, sample.record) for sample in news.added)
    return news


def is_same(revision: Revision, known: Known) -> bool:
    return known.start_at is not None and known.revised_at == revision[0].revised_at


async def _revise(connection: Connection, news: News, records: Iterable[tuple[Any, ...]]) -> None:
    """Bring known records up to date, short of the samples that are new."""
    if news.gone:
        await connection.execute(DELETE, columns(news.gone))
    if news.changed:
        await connection.execute(UPDATE, columns(map(row_of, news.changed)))
    if rows := list(records):
        await connection.execute(UPDATE_RECORDS, columns(rows))


async def _samples_of(
    connection: Connection, again: Mapping[Record, Revision], known: Mapping[Record, Known]
) -> list[tuple[Any, ...]]:
    """What stands of the records: rows of key, end, value, offset, revision, delivery and link."""
    stretches = [
        (*record, before.start_at, before.end_at, _only_metric(revision, before))
        for record, revision in again.items()
        if (before := known[record]).start_at is not None
    ]
    if not stretches:
        return []
    cursor = await connection.execute(OF_RECORDS, [*columns(stretches), EVERY_METRIC])
    return await cursor.fetchall()


def _only_metric(revision: Revision, before: Known) -> int | None:
    """A phone's sample that has not moved is the one that stands under its uuid, and of the same metric."""
    first = revision[0]
    unmoved = len(revision) == 1 and (first.start_at, first.end_at) == (before.start_at, before.end_at)
    return first.metric if unmoved and first.announced_at is None else None


def _record_rows(
    revisions: Mapping[Record, Revision], known: Mapping[Record, Known] | None = None
) -> Iterator[tuple[Any, ...]]:
    for record, revision in revisions.items():
        first = revision[0]
        start_at, end_at = first.start_at, first.end_at
        if len(revision) > 1:
            start_at, end_at = min(s.start_at for s in revision), max(s.end_at for s in revision)
        if known and first.adds and (before := known[record]).start_at and before.end_at:
            start_at, end_at = min(start_at, before.start_at), max(end_at, before.end_at)
        yield *record, first.revised_at, start_at, end_at


async def _copy(connection: Connection, statement: str, types: list[str], rows: Iterable[tuple[Any, ...]]) -> None:
    async with connection.cursor().copy(statement) as copy:
        copy.set_types(types)
        for row in rows:
            await copy.write_row(row)


async def _withdraw(connection: Connection, withdrawals: Sequence[Withdrawal]) -> list[Touched]:
    effects = [w.withdrawn_at for w in withdrawals], [w.final for w in withdrawals]
    cursor = await connection.execute(WITHDRAW, [*_named(withdrawals), *effects, EVERY_METRIC])
    return await cursor.fetchall()


def _named(withdrawals: Sequence[Withdrawal]) -> list[list[Any]]:
    return columns((w.patient_id, w.link_id, w.record) for w in withdrawals)


def columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    """Rows turned on their side, for `unnest`. At least one row."""
    listed = list(rows)
    return [[row[place] for row in listed] for place in range(len(listed[0]))]
