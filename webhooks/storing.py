"""Writing outcomes down: samples, conflicts, states and attempts of a batch of tries in one transaction.

Every change of state says whose lease it acts under, so a worker that woke up late undoes nothing.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from django.conf import settings

from auren.biometrics.metrics import BY_NAME
from auren.biometrics.partitions import horizon
from auren.biometrics.store import (
    Incoming,
    Stored,
    Withdrawal,
    advance,
    lock_timelines,
    source_ids,
    store,
)
from auren.postgres import array
from devices.vendors.normalised import Normalised, Refusal, Sample
from devices.vendors.registry import VENDORS
from devices.vendors.webhook import digest
from webhooks import events, metrics
from webhooks.claims import Claimed
from webhooks.clock import DatabaseClock
from webhooks.processing import Outcome, Window, withdrawn_at
from webhooks.transitions import Next, after_failure, after_missing, after_pending, after_postponement

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

SHARDS = 64
MOST_SOURCES = 20_000  # whose numbers a writer remembers, some 300 bytes each; one more, and it starts afresh
MAX_REFUSED = 100  # kept on a delivery; the rest is counted in its error

# The lock keeps an operator's retry or ignore from slipping in between the decision and the writing.
STILL_MINE = """
SELECT d.id, d.lease_token, d.attempts, d.outbox FROM webhooks_delivery d
JOIN unnest(%s::bigint[], %s::uuid[]) AS held (id, lease_token) USING (id)
WHERE d.lease_token = held.lease_token AND d.state IN ('received', 'retrying')
ORDER BY d.id
FOR UPDATE OF d
"""
# A delivery's row and its attempt's, as one JSON object (`row_of`): an array of each column costs Python six times as
# much. What may be long goes beside it, as it is.
WRITE = """
WITH given AS (
    SELECT * FROM ROWS FROM (
        json_to_recordset(%s::json) AS (
            id bigint, lease_token uuid, state text, error text, error_class text,
            failures integer, pending_asks smallint, wait double precision, planned boolean,
            link_id bigint, patient_id bigint, shard smallint,
            sample_count integer, ignored_count integer, refused jsonb, sequence bigint,
            tried boolean, number integer, stage text, started_at timestamptz, duration_ms integer,
            outcome text, outcome_class text, message text
        ),
        unnest(%b::text[]), unnest(%b::bytea[])
    ) AS each (
        id, lease_token, state, error, error_class,
        failures, pending_asks, wait, planned,
        link_id, patient_id, shard,
        sample_count, ignored_count, refused, sequence,
        tried, number, stage, started_at, duration_ms,
        outcome, outcome_class, message,
        document, outbox
    )
), attempt AS (
    INSERT INTO webhooks_attempt (delivery_id, number, stage, started_at, duration_ms, outcome, error_class, message)
    SELECT id, number, stage, started_at, duration_ms, outcome, outcome_class, message FROM given WHERE tried
)
UPDATE webhooks_delivery d SET
    state = given.state, error = given.error, error_class = given.error_class,
    attempts = d.attempts + given.tried::integer, failures = given.failures, pending_asks = given.pending_asks,
    next_attempt_at =
        CASE WHEN given.state = 'retrying' THEN now() + make_interval(secs => given.wait) ELSE d.next_attempt_at END,
    planned_wait = given.planned, lease_token = NULL, lease_until = NULL,
    link_id = given.link_id, patient_id = given.patient_id, shard = given.shard,
    document = coalesce(given.document, d.document),
    sample_count = given.sample_count, ignored_count = given.ignored_count, refused = given.refused,
    sequence = coalesce(given.sequence, d.sequence), outbox = coalesce(given.outbox, d.outbox),
    stored_at = CASE WHEN given.state = 'stored' THEN clock_timestamp() ELSE d.stored_at END
FROM given
WHERE d.id = given.id AND d.lease_token = given.lease_token AND d.state IN ('received', 'retrying')
"""
FOLLOW = """
INSERT INTO webhooks_delivery (vendor, dedup_key, event_type, vendor_user_id, body, origin, received_at)
SELECT *, clock_timestamp() FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[], %s::text[])
ON CONFLICT (vendor, dedup_key) DO NOTHING
"""
# When each link's vendor last answered, and for which kinds. A poll without news is no sign of life: it moves
# `last_synced_at` alone.
SYNCED = """
WITH kinds AS (
    INSERT INTO devices_sync (link_id, kind, synced_at)
    SELECT link_id, kind, now() FROM unnest(%s::bigint[], %b::text[]) AS given (link_id, kind)
    ORDER BY link_id, kind
    ON CONFLICT (link_id, kind) DO UPDATE SET synced_at = excluded.synced_at
)
UPDATE devices_link l SET
    last_synced_at = now(),
    last_delivery_at = greatest(l.last_delivery_at, given.heard_at),
    status = CASE WHEN l.status = 'stale' AND given.heard_at IS NOT NULL THEN 'active' ELSE l.status END,
    status_since = CASE WHEN l.status = 'stale' AND given.heard_at IS NOT NULL THEN now() ELSE l.status_since END
FROM unnest(%s::bigint[], %s::timestamptz[]) AS given (id, heard_at)
WHERE l.id = given.id
"""

WITH_SAMPLES = """
SELECT record FROM biometrics_record
WHERE patient_id = %s AND link_id = %s AND record = ANY(%s) AND start_at IS NOT NULL
ORDER BY record
"""
STANDING = """
SELECT s.record, s.metric, s.start_at, s.end_at, s.source_id, s.value FROM biometrics_record r
JOIN biometrics_sample s ON s.patient_id = r.patient_id AND s.record = r.record
    AND s.start_at >= r.start_at AND s.start_at <= r.end_at
WHERE r.patient_id = %s AND r.link_id = %s AND r.record = ANY(%s)
"""
# Lists that are asked for again and again: of their records only those are news that say something new.
REPEATED = frozenset({"poll", "reconcile"})


class Written(msgspec.Struct):
    """An outcome on its way into the database: what the delivery's row, and its attempt's, will say.

    `unsent` are the messages of an earlier try that Kafka has not taken yet: they go out with this one's. `unchanged`
    says that a record in it was stored before as it is.
    """

    outcome: Outcome
    next: Next
    normalised: Normalised
    counted: int = 0
    unchanged: bool = False
    lost: set[tuple[str, datetime]] = msgspec.field(default_factory=set)
    unsent: list[events.Message] = msgspec.field(default_factory=list)
    sequence: int | None = None
    outbox: bytes | None = None

    @property
    def id(self) -> int:
        return self.outcome.delivery.id

    @property
    def lease_token(self) -> UUID:
        return self.outcome.delivery.lease_token

    @property
    def patient_id(self) -> int | None:
        link = self.outcome.delivery.link
        return link.patient_id if link else None

    @property
    def failed(self) -> bool:
        return self.outcome.kind in {"failed", "missing", "dead"}

    @property
    def tried(self) -> bool:
        return self.outcome.kind != "postponed"


class Storer:
    """Writes batches of outcomes over one connection, opened with `auren.biometrics.store.SESSION`."""

    def __init__(self, clock: DatabaseClock) -> None:
        self.clock = clock
        self.sources: dict[tuple[int, str], int] = {}

    async def write(self, connection: Connection, outcomes: Sequence[Outcome]) -> set[int]:
        """Write all of it or none; returns the ids written. The rest had lost their lease: nothing of them stays."""
        items = [Written(outcome, self._next(outcome), outcome.normalised or Normalised()) for outcome in outcomes]
        await self._name_sources(connection, items)
        async with connection.transaction():
            await lock_timelines(connection, {item.patient_id for item in items if item.patient_id is not None})
            items = await self._still_mine(connection, items)
            expired = horizon(self.clock.now().date())
            for item in items:
                if expired is not None:
                    refuse_expired(item, expired)
                if item.normalised.standing or item.outcome.delivery.origin in REPEATED:
                    await self._drop_unchanged(connection, item)
                if item.normalised.emptied:
                    await withdraw_emptied(connection, item)
            stored = await store(connection, self._samples(items), self._withdrawals(items), zones(items))
            await self._conclude(connection, items, stored)
            await self._write_rows(connection, items)
        return {item.id for item in items}

    def _next(self, outcome: Outcome) -> Next:
        """What the outcome means before the store has had its say."""
        delivery = outcome.delivery
        if outcome.kind == "done" and outcome.normalised is not None and is_awaited(delivery, outcome.normalised):
            has_samples = bool(outcome.normalised.samples) or delivery.sample_count > 0
            return after_pending(delivery.pending_asks + 1, has_samples=has_samples)
        if outcome.kind == "failed":
            return after_failure(delivery.failures + 1, retry_after=outcome.retry_after)
        if outcome.kind == "missing":
            return after_missing(delivery.failures + 1, received_at=delivery.received_at, now=self.clock.now())
        if outcome.kind == "postponed":
            return after_postponement(outcome.retry_after or 1.0, outcome.reason)
        return Next("stored") if outcome.kind == "done" else Next(outcome.kind, reason=outcome.reason)

    async def _name_sources(self, connection: Connection, items: Iterable[Written]) -> None:
        """Give every source its number. Outside the transaction: a source is harmless without samples."""
        wanted = {
            (item.outcome.delivery.link.id, sample.source): item.normalised.source_kinds.get(sample.source, "other")
            for item in items
            if item.outcome.delivery.link is not None
            for sample in item.normalised.samples
        }
        if len(self.sources) + len(wanted) > MOST_SOURCES:
            self.sources.clear()
        missing = {key: kind for key, kind in wanted.items() if key not in self.sources}
        if missing:
            self.sources.update(await source_ids(connection, missing))

    async def _drop_unchanged(self, connection: Connection, item: Written) -> None:
        """What says what is stored already is no news: a measurement that stands, a list asked for again."""
        link, samples = item.outcome.delivery.link, item.normalised.samples
        if link is None or not samples:
            return
        records = sorted({sample.record for sample in samples})
        rows = await (await connection.execute(STANDING, [link.patient_id, link.id, records])).fetchall()
        given = [(sample.record, *self._said(link.id, sample)) for sample in samples]
        news = changed_measurements(given, rows) if item.normalised.standing else changed_records(given, rows)
        kept = [sample for sample, said in zip(samples, given, strict=True) if said in news]
        if len(kept) < len(samples):
            ignored = item.normalised.ignored + len(samples) - len(kept)
            item.normalised = msgspec.structs.replace(item.normalised, samples=kept, ignored=ignored)
            item.unchanged = True

    def _said(self, link_id: int, sample: Sample) -> tuple[int, datetime, datetime, int, float]:
        number, source_id = BY_NAME[sample.metric].number, self.sources[link_id, sample.source]
        return number, sample.start_at, sample.end_at, source_id, sample.value

    async def _still_mine(self, connection: Connection, items: Sequence[Written]) -> list[Written]:
        cursor = await connection.execute(STILL_MINE, [array(i.id for i in items), array(i.lease_token for i in items)])
        # By lease, for one worker may have claimed a delivery twice, and hold both results.
        leases = {(id_, token): (attempts, outbox) for id_, token, attempts, outbox in await cursor.fetchall()}
        mine = [item for item in items if (item.id, item.lease_token) in leases]
        metrics.LEASES_LOST.inc(len(items) - len(mine))
        for item in mine:
            item.outcome.delivery.attempts, outbox = leases[item.id, item.lease_token]
            item.unsent = events.decode(outbox).messages if outbox else []
        return mine

    def _samples(self, items: Iterable[Written]) -> list[Incoming]:
        return [
            sample
            for item in items
            if item.next.state in {"stored", "retrying"} and item.normalised.samples
            for sample in self._incoming(item)
        ]

    def _incoming(self, item: Written) -> Iterator[Incoming]:
        delivery, sources = item.outcome.delivery, self.sources
        link = delivery.link
        assert link is not None, "only linked deliveries have samples"
        final = VENDORS[delivery.vendor].record_is_final
        announced_at = None if final else delivery.event_time or delivery.received_at
        for place, sample in enumerate(item.normalised.samples):
            yield Incoming(
                delivery.id,
                link.patient_id,
                link.id,
                sources[link.id, sample.source],
                BY_NAME[sample.metric].number,
                sample.start_at,
                sample.end_at,
                sample.value,
                sample.utc_offset_minutes,
                sample.record,
                revision_of(item.outcome, sample),
                announced_at,
                place,
                item.normalised.standing,
            )

    @staticmethod
    def _withdrawals(items: Iterable[Written]) -> list[Withdrawal]:
        return [
            Withdrawal(
                item.id,
                link.patient_id,
                link.id,
                record,
                withdrawn_at(item.outcome.delivery, item.outcome.sent_at),
                VENDORS[item.outcome.delivery.vendor].record_is_final,
            )
            for item in items
            if (link := item.outcome.delivery.link) is not None
            for record in item.normalised.withdrawn
        ]

    async def _conclude(self, connection: Connection, items: Sequence[Written], stored: Stored) -> None:
        """Now that it is known what stands: final states, sequence numbers, and the messages for Kafka."""
        lost: dict[int, set[tuple[str, datetime]]] = {}
        for delivery_id, record, revised_at in stored.lost:
            lost.setdefault(delivery_id, set()).add((record, revised_at))
        for item in items:
            item.counted = stored.counts.get(item.id, 0)
            item.lost = lost.get(item.id, set())
            item.normalised = without_overtaken(item, stored.gone)
            item.next = conclude(item)
        changed = [item for item in items if publishes(item)]
        steps: dict[int, int] = {}
        for item in changed:
            if item.patient_id is not None:
                steps[item.patient_id] = steps.get(item.patient_id, 0) + 1
        versions = await advance(connection, steps) if steps else {}
        first = {patient: version - steps[patient] for patient, version in versions.items()}
        for item in sorted(changed, key=lambda each: each.id):
            if item.patient_id is not None:
                first[item.patient_id] += 1
                item.sequence = first[item.patient_id]
        self._fill_outboxes(items, stored)

    def _fill_outboxes(self, items: Sequence[Written], stored: Stored) -> None:
        """Each delivery carries its own samples; conflicts go with the last delivery of their patient in the batch."""
        last = {item.patient_id: item.id for item in sorted(items, key=lambda each: each.id) if publishes(item)}
        for item in items:
            if not publishes(item):
                continue
            changes = [c for c in stored.conflicts if c.patient_id == item.patient_id and last[c.patient_id] == item.id]
            conflicts = [events.conflict_message(about(item), change) for change in changes]
            messages = item.unsent + messages_of(item) + conflicts
            link = item.outcome.delivery.link
            key = link.external_id if link else item.outcome.delivery.vendor_user_id
            item.outbox = events.encode(events.Outbox(key, messages))

    async def _write_rows(self, connection: Connection, items: Sequence[Written]) -> None:
        if not items:
            return
        rows = msgspec.json.encode([row_of(item) for item in items]).decode()
        documents, outboxes = [item.outcome.document for item in items], [item.outbox for item in items]
        await connection.execute(WRITE, [rows, documents, outboxes])
        following = [row for item in items if (row := follow(item))]
        if following:
            await connection.execute(FOLLOW, [list(column) for column in zip(*following, strict=True)])
        await self._write_syncs(connection, items)

    async def _write_syncs(self, connection: Connection, items: Sequence[Written]) -> None:
        """When each link's vendor last answered, for which kinds, and when the link was last heard from."""
        heard: dict[int, datetime | None] = {}
        kinds: set[tuple[int, str]] = set()
        for item in items:
            link = item.outcome.delivery.link
            if link is None or item.outcome.kind != "done":
                continue
            heard[link.id] = max(filter(None, (heard.get(link.id), heard_at(item))), default=None)
            kinds.add((link.id, item.outcome.asked_kind))
        if heard:  # in one order everywhere, or two workers wait for each other
            ordered = sorted(heard)
            named = sorted(pair for pair in kinds if pair[1])
            asked = [array(link_id for link_id, _ in named), [kind for _, kind in named]]
            await connection.execute(SYNCED, [*asked, array(ordered), array(heard[link_id] for link_id in ordered)])


def refuse_expired(item: Written, first: date) -> None:
    """Samples from before the retention come too late: their partition is gone, and is not to come back.

    A record that lies wholly there yields nothing any more, so what is kept of an earlier revision goes as well.
    """
    normalised = item.normalised
    kept = [sample for sample in normalised.samples if sample.start_at.date() >= first]
    if len(kept) == len(normalised.samples):
        return
    records = {sample.record for sample in normalised.samples} - {sample.record for sample in kept}
    why = f"they are from before {first}, and SAMPLE_RETENTION_YEARS is {settings.SAMPLE_RETENTION_YEARS}"
    refusal = Refusal(f"{len(normalised.samples) - len(kept)} samples", why)
    item.normalised = msgspec.structs.replace(
        normalised,
        samples=kept,
        refused=[*normalised.refused, refusal],
        emptied=[*normalised.emptied, *sorted(records)],
    )


async def withdraw_emptied(connection: Connection, item: Written) -> None:
    """Documents that yield nothing any more (unscorable after all, or unworn) take their older samples with them."""
    link, normalised = item.outcome.delivery.link, item.normalised
    if link is None:
        return
    cursor = await connection.execute(WITH_SAMPLES, [link.patient_id, link.id, normalised.emptied])
    gone = [record for (record,) in await cursor.fetchall()]
    item.normalised = msgspec.structs.replace(normalised, withdrawn=[*normalised.withdrawn, *gone])


def is_awaited(delivery: Claimed, normalised: Normalised) -> bool:
    """Whether the vendor has yet to finish what was asked for. A list that is asked for again waits for nothing."""
    return normalised.pending and delivery.origin not in REPEATED


def heard_at(item: Written) -> datetime | None:
    """When the link was last heard from: a webhook came, or a list had news."""
    delivery = item.outcome.delivery
    return delivery.received_at if delivery.origin == "webhook" or item.counted else None


Said = tuple[Any, ...]  # record, metric, start, end, source, value


def changed_records(given: Sequence[Said], stored: Sequence[Said]) -> set[Said]:
    """All that is given of the records of which not exactly that is stored."""
    differing = {said[0] for said in set(given) ^ set(stored)}
    return {said for said in given if said[0] in differing}


def changed_measurements(given: Sequence[Said], stored: Sequence[Said]) -> set[Said]:
    """What stands (height, weight) is news only in another value than the last one of its metric."""
    last = {metric: value for _, metric, _, _, _, value in sorted(stored, key=lambda said: said[2])}
    return {said for said in given if last.get(said[1]) != said[-1]}


def without_overtaken(item: Written, gone: set[tuple[int, str]]) -> Normalised:
    """What the document yields, less the withdrawals that a later revision has overtaken: those are no news."""
    link = item.outcome.delivery.link
    if link is None or not item.normalised.withdrawn:
        return item.normalised
    effective = [record for record in item.normalised.withdrawn if (link.id, record) in gone]
    return msgspec.structs.replace(item.normalised, withdrawn=effective)


def conclude(item: Written) -> Next:
    """A document that left nothing behind is ignored, and says why."""
    if item.next.state != "stored" or item.counted or item.normalised.withdrawn:
        return item.next
    if item.outcome.delivery.sample_count and item.normalised.pending:
        return item.next
    if item.lost:
        return Next("ignored", reason="nothing new: this or a later revision is stored, or the record was withdrawn")
    if item.unchanged:
        return Next("ignored", reason="unchanged: all of it is stored already")
    if item.normalised.refused:
        return Next("ignored", reason=f"no sample in it: {len(item.normalised.refused)} refused")
    return Next("ignored", reason="no sample in it")


def publishes(item: Written) -> bool:
    """Whatever has stored something says so at once, a pending document too: each version is one delivery's event."""
    return item.next.state in {"stored", "dead"} or item.counted > 0


def about(item: Written) -> dict[str, Any]:
    delivery = item.outcome.delivery
    return {
        "patient": delivery.link.external_id if delivery.link else None,
        "vendor": delivery.vendor,
        "delivery": delivery.id,
        "origin": delivery.origin,
        "received_at": delivery.received_at,
    }


def messages_of(item: Written) -> list[events.Message]:
    if item.next.state == "dead":
        return [
            events.dead_message(
                about(item),
                event_type=item.outcome.delivery.event_type,
                error=error_of(item),
                error_class=item.outcome.error_class,
                attempts=item.outcome.delivery.attempts + 1,
            )
        ]
    return events.samples_messages(about(item), standing_samples(item), item.normalised.withdrawn)


def standing_samples(item: Written) -> Collection[Sample]:
    """What the store has kept: revisions that have not lost, and of two samples with one key the later one."""
    samples = item.normalised.samples
    if item.counted == len(samples):
        return samples
    return {
        (sample.metric, sample.start_at, sample.source, sample.record): sample
        for sample in samples
        if (sample.record, revision_of(item.outcome, sample)) not in item.lost
    }.values()


def revision_of(outcome: Outcome, sample: Sample) -> datetime:
    return sample.revised_at or outcome.sent_at or outcome.delivery.received_at


def error_of(item: Written) -> str:
    """The state's reason and the try's, each once."""
    return "; ".join(dict.fromkeys(reason for reason in (item.next.reason, item.outcome.reason) if reason))


def zones(items: Iterable[Written]) -> dict[int, str]:
    links = (item.outcome.delivery.link for item in items)
    return {link.patient_id: link.zone for link in links if link is not None}


def keeps_samples(item: Written) -> bool:
    """Whether this try, which has stored nothing, leaves standing what earlier ones of the delivery have stored."""
    return item.outcome.kind != "done" or item.normalised.pending


def refused_of(item: Written) -> list[dict[str, str]] | None:
    refused = item.normalised.refused
    if not refused:
        return None
    kept = [{"what": text(r.what), "why": text(r.why)} for r in refused[:MAX_REFUSED]]
    if len(refused) > MAX_REFUSED:
        kept.append({"what": f"{len(refused) - MAX_REFUSED} more", "why": "only the first ones are listed"})
    return kept


def text(value: str) -> str:
    """What PostgreSQL can hold of a text out of a document: no NUL, no lone surrogate."""
    return value.replace("\0", "\\0").encode("utf-8", "replace").decode()


def row_of(item: Written) -> dict[str, Any]:
    """What `WRITE` is given of each."""
    outcome, delivery, then = item.outcome, item.outcome.delivery, item.next
    message = error_of(item)
    return {
        "id": item.id,
        "lease_token": item.lease_token,
        "state": then.state,
        "error": message if then.state != "stored" else "",
        "error_class": outcome.error_class if then.state in {"retrying", "dead", "ignored"} else "",
        "failures": delivery.failures + int(item.failed),
        "pending_asks": delivery.pending_asks + int(is_awaited(delivery, item.normalised)),
        "wait": then.wait,
        "planned": then.planned,
        "link_id": delivery.link.id if delivery.link else None,
        "patient_id": item.patient_id,
        "shard": (item.patient_id or item.id) % SHARDS,
        "sample_count": item.counted or (delivery.sample_count if keeps_samples(item) else 0),
        "ignored_count": item.normalised.ignored,
        "refused": refused_of(item),
        "sequence": item.sequence,
        "tried": item.tried,
        "number": delivery.attempts + 1,
        "stage": "store" if then.state == "stored" else outcome.stage,
        "started_at": outcome.started_at,
        "duration_ms": outcome.duration_ms,
        "outcome": "pending" if then.planned else then.state if then.state != "retrying" else "failed",
        "outcome_class": outcome.error_class,
        "message": message,
    }


def follow(item: Written) -> tuple[str, str, str, str, bytes, str] | None:
    """The delivery that asks for the next page, filed with this one so that neither is lost nor done twice.

    A page that is pending is asked for again; its successor is known already then.
    """
    window = item.outcome.next_page
    if window is None:
        return None
    delivery = item.outcome.delivery
    return window_row(delivery.vendor, delivery.vendor_user_id, window, delivery.origin, key=str(delivery.id))


def window_row(
    vendor: str, user: str, window: Window, origin: str, *, key: str
) -> tuple[str, str, str, str, bytes, str]:
    """A delivery that asks for a list. Its `key` makes it one of a kind within its origin; without one the window does.

    A page's successor is keyed by the page alone: a vendor may write another token each time it is asked.
    """
    body = msgspec.json.encode(window)
    return vendor, digest(origin, user, key or body), f"{window.kind}.{origin}", user, body, origin
