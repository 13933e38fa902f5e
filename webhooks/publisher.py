"""The publisher: outboxes to Kafka, in the order of each patient's sequence, marked only from delivery reports.

Patients fall into 64 shards; whoever holds a shard's lease row publishes its patients, and stops producing the
moment it could not renew. A session lock would vanish with its connection while the work went on.
"""

import asyncio
import contextlib
import logging
import random
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import monotonic, perf_counter
from typing import Any

import msgspec
import psycopg
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from auren.pace import Pace
from auren.postgres import Line
from webhooks import events, metrics
from webhooks.storing import SHARDS

logger = logging.getLogger(__name__)

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

BATCH = 500  # deliveries
BATCH_BYTES = 32 * 1024 * 1024
A_PATIENT = 50  # deliveries of one patient in a batch: nobody's history holds the others up
MOST_LINES = 2_000  # patients with a message out
ROUND = 1.0  # seconds after which what has been confirmed is written down
SLOW_AFTER = 0.5  # seconds: nobody else waits longer than that for a report
REPORTS_WITHIN = 30.0  # seconds librdkafka may take over a message, its own retries included
ALONE_WITHIN = 5.0  # seconds
# Told to stop, a publisher ends within ten seconds: what it does, the reports still out, the last marks.
STATEMENT_TIMEOUT = "4s"
FINISH_WITHIN = 4.0  # seconds
WRITE_WITHIN = 1.0  # seconds
LONGEST_REST = 5.0  # seconds between two looks
RETRY_AFTER = 5.0  # seconds, ± 20 %: what ails Kafka ails every delivery, so no schedule is spent on it
PARTITIONS = 12

SEED = "INSERT INTO webhooks_lease (name) SELECT 'shard-' || n FROM generate_series(0, %s) n ON CONFLICT DO NOTHING"
# A publisher is counted by a row of its own: one that holds no shard yet could not ask for its share otherwise.
PRESENT = """
INSERT INTO webhooks_lease (name, holder, until)
VALUES (%(present)s, %(me)s, now() + make_interval(secs => %(lease)s))
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
"""
FORGET_GONE = "DELETE FROM webhooks_lease WHERE name LIKE 'publisher-%' AND until < now() - interval '1 minute'"
# A publisher takes what is free up to its fair share, counted by those alive.
TAKE = """
WITH alive AS (
    SELECT count(*) AS others FROM webhooks_lease
    WHERE name LIKE 'publisher-%%' AND until > now() AND holder <> %(me)s
), free AS (
    SELECT name FROM webhooks_lease
    WHERE name LIKE 'shard-%%' AND (holder IS NULL OR until < now())
    ORDER BY random()
    LIMIT greatest(0, ceil(%(shards)s / (1.0 + (SELECT others FROM alive))) - %(held)s)
    FOR UPDATE SKIP LOCKED
)
UPDATE webhooks_lease l SET holder = %(me)s, until = now() + make_interval(secs => %(lease)s)
FROM free WHERE l.name = free.name
"""
RENEW = """
UPDATE webhooks_lease SET until = now() + make_interval(secs => %(lease)s)
WHERE name LIKE 'shard-%%' AND holder = %(me)s AND until > now()
"""
MINE = "SELECT name FROM webhooks_lease WHERE name LIKE 'shard-%%' AND holder = %s AND until > now()"
# More than the fair share is given back, so that a newcomer finds something to do.
SURPLUS = """
UPDATE webhooks_lease SET holder = NULL, until = now()
WHERE name = ANY(%(names)s) AND holder = %(me)s
"""
OTHERS = "SELECT count(*) FROM webhooks_lease WHERE name LIKE 'publisher-%%' AND until > now() AND holder <> %s"
RELEASE = "UPDATE webhooks_lease SET holder = NULL, until = now() WHERE holder = %s"

# Patient after patient along the index, and of each the first few: the cost is that of what is fetched, however much
# waits. It goes on behind the patient where the last batch ended. Who has a message out is left alone; a patient whose
# first delivery waits for its retry waits as a whole.
FETCH = """
WITH chosen AS (
    SELECT d.* FROM unnest(%(shards)s::smallint[]) AS s (shard)
    CROSS JOIN LATERAL (
        WITH RECURSIVE line AS (
            (
                SELECT w.patient_id FROM webhooks_delivery w
                WHERE w.outbox IS NOT NULL AND w.shard = s.shard
                  AND w.patient_id > CASE WHEN s.shard = %(shard)s THEN %(patient)s ELSE 0 END
                ORDER BY w.patient_id LIMIT 1
            )
            UNION ALL
            SELECT following.patient_id FROM line CROSS JOIN LATERAL (
                SELECT w.patient_id FROM webhooks_delivery w
                WHERE w.outbox IS NOT NULL AND w.shard = s.shard AND w.patient_id > line.patient_id
                ORDER BY w.patient_id LIMIT 1
            ) AS following
        )
        SELECT patient_id FROM line
    ) AS p
    CROSS JOIN LATERAL (
        SELECT w.publish_at > now() AS waits FROM webhooks_delivery w
        WHERE w.outbox IS NOT NULL AND w.shard = s.shard AND w.patient_id = p.patient_id
        ORDER BY w.sequence LIMIT 1
    ) AS head
    CROSS JOIN LATERAL (
        SELECT w.id, w.shard, w.patient_id, w.sequence, w.received_at,
               coalesce(w.stored_at, w.received_at) AS happened_at, w.publish_at > now() AS waits, w.outbox
        FROM webhooks_delivery w
        WHERE w.outbox IS NOT NULL AND w.shard = s.shard AND w.patient_id = p.patient_id
        ORDER BY w.sequence LIMIT %(each)s
    ) AS d
    WHERE head.waits IS NOT TRUE AND p.patient_id <> ALL(%(busy)s::bigint[])
    LIMIT %(limit)s
), weighed AS (
    SELECT *, count(*) OVER () AS found,
           sum(octet_length(outbox)) OVER (ORDER BY shard, patient_id, sequence) - octet_length(outbox) AS before
    FROM chosen
)
SELECT id, shard, patient_id, sequence, received_at, happened_at, outbox, waits, found
FROM weighed WHERE before < %(bytes)s
ORDER BY shard, patient_id, sequence
"""
# What became dead before anybody knew whose it was has no patient, and no order to keep.
FETCH_NOBODYS = """
SELECT id, shard, patient_id, sequence, received_at, coalesce(stored_at, received_at), outbox
FROM webhooks_delivery
WHERE outbox IS NOT NULL AND shard = ANY(%(shards)s) AND patient_id IS NULL
  AND (publish_at IS NULL OR publish_at <= now()) AND -id <> ALL(%(busy)s::bigint[])
LIMIT 20
"""
PUBLISHED = """
WITH done AS (
    UPDATE webhooks_delivery d
    SET outbox = NULL, published_at = clock_timestamp(), attempts = d.attempts + 1, publish_at = NULL,
        error = CASE WHEN d.state = 'stored' THEN '' ELSE d.error END,
        state = CASE WHEN d.state = 'stored' THEN 'published' ELSE d.state END
    FROM unnest(%s::bigint[], %s::bigint[], %s::timestamptz[], %s::integer[])
        AS given (id, sequence, started_at, duration_ms)
    WHERE d.id = given.id AND d.sequence IS NOT DISTINCT FROM given.sequence AND d.outbox IS NOT NULL
    RETURNING d.id, d.attempts, given.started_at, given.duration_ms
)
INSERT INTO webhooks_attempt (delivery_id, number, stage, started_at, duration_ms, outcome)
SELECT id, attempts, 'publish', coalesce(started_at, clock_timestamp()), duration_ms, 'published' FROM done
"""
# `instead` is what a delivery that dies of this has to say; of one that was dead already, nothing more is said.
FAILED = """
WITH done AS (
    UPDATE webhooks_delivery d
    SET attempts = d.attempts + 1, error = %(error)s, error_class = %(error_class)s,
        publish_at = CASE WHEN %(dead)s THEN NULL ELSE now() + make_interval(secs => %(wait)s) END,
        state = CASE WHEN %(dead)s AND d.state = 'stored' THEN 'dead' ELSE d.state END,
        outbox = CASE WHEN NOT %(dead)s THEN d.outbox WHEN d.state = 'stored' THEN %(instead)s::bytea END
    WHERE d.id = %(id)s AND d.sequence IS NOT DISTINCT FROM %(sequence)s AND d.outbox IS NOT NULL
    RETURNING d.id, d.attempts
)
INSERT INTO webhooks_attempt (delivery_id, number, stage, started_at, duration_ms, outcome, error_class, message)
SELECT id, attempts, 'publish', coalesce(%(started_at)s, clock_timestamp()), %(duration_ms)s,
       CASE WHEN %(dead)s THEN 'dead' ELSE 'failed' END, %(error_class)s, %(error)s
FROM done
"""
DYING = """
SELECT p.external_id, d.vendor, d.id, d.origin, d.received_at, d.event_type, d.attempts + 1,
       coalesce(p.external_id, d.vendor_user_id)
FROM webhooks_delivery d LEFT JOIN devices_patient p ON p.id = d.patient_id
WHERE d.id = %s
"""

WAITING = "SELECT EXISTS (SELECT FROM webhooks_delivery WHERE outbox IS NOT NULL AND shard = ANY(%s))"

# What another try cannot mend: the message itself is refused.
FOR_GOOD = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.RECORD_LIST_TOO_LARGE,
    }
)


# What a producer that has had a fatal error says of all it had out.
GIVEN_UP = frozenset({KafkaError._PURGE_INFLIGHT, KafkaError._PURGE_QUEUE, KafkaError._FATAL})
COULD_NOT_GO_ON = "Kafka: the producer could not go on"
# Made anew, a producer makes its topics first.
NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})


class Failure(msgspec.Struct, frozen=True):
    """Why a message did not go out. `for_good`: another try cannot mend it."""

    error: str
    error_class: str
    for_good: bool = False
    no_topic: bool = False


def failure_of(error: KafkaError) -> Failure:
    code = error.code()
    if code in GIVEN_UP:
        return Failure(COULD_NOT_GO_ON, "kafka_fatal")
    name = f"kafka_{error.name().lower().strip('_')}"[:64]
    return Failure(f"Kafka: {error.str()}", name, code in FOR_GOOD, code in NO_TOPIC)


class Outgoing(msgspec.Struct, eq=False):
    """A delivery on its way out: how many of its messages have gone, and what went wrong with the last one.

    `out_since` is when the message was produced that has no report yet, else 0. `alone`: nothing else was in the
    batch with it.
    """

    id: int
    shard: int
    patient_id: int | None
    sequence: int | None
    received_at: datetime
    happened_at: datetime
    contents: events.Outbox
    size: int
    sent: int = 0
    out_since: float = 0.0
    alone: bool = False
    started: float = 0.0
    started_at: datetime | None = None
    duration_ms: int = 0
    failure: Failure | None = None

    @property
    def who(self) -> int:
        """Whose line it stands in: its patient's, or one of its own."""
        return self.patient_id or -self.id

    @property
    def finished(self) -> bool:
        return self.sent == len(self.contents.messages)

    @property
    def ends_unsent(self) -> bool:
        """There is nothing to send, or nothing that can be read."""
        return self.failure is not None or self.finished


def opened(row: Sequence[Any]) -> Outgoing:
    """A row of FETCH. An outbox that cannot be read fails for good instead of holding up everybody after it."""
    id_, shard, patient_id, sequence, received_at, happened_at, outbox = row
    contents, failure = events.Outbox("", []), None
    try:
        contents = events.decode(outbox)
    except msgspec.DecodeError as error:
        failure = Failure(f"the outbox cannot be read: {error}", "outbox_unreadable", for_good=True)
    return Outgoing(
        id_, shard, patient_id, sequence, received_at, happened_at, contents, size=len(outbox), failure=failure
    )


def make_producer(bootstrap_servers: str) -> Producer:
    """Idempotent, acknowledged by all replicas, zstd. Keys fall to partitions as the Java client's do.

    Its topics are made first, for Kafka may have been away until now.
    """
    create_topics(bootstrap_servers)
    metrics.PRODUCERS.inc()
    return Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "client.id": "auren-publisher",
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": "zstd",
            "partitioner": "murmur2_random",
            "linger.ms": 2,
            "delivery.timeout.ms": int(REPORTS_WITHIN * 1000),
            "reconnect.backoff.max.ms": 1000,
            "message.max.bytes": 1_000_000,
            "allow.auto.create.topics": False,  # it would make them with as many partitions as the broker likes
            "log_level": 3,
            "error_cb": lambda error: logger.info("kafka: %s", error.str()),
        },
        logger=logger,
    )


def _ignore(error: KafkaError) -> None:
    """What is wrong shows in the result."""


def create_topics(bootstrap_servers: str) -> None:
    """Make the topics that are not there yet. A broker that makes them by itself, or forbids it, is no fault."""
    options: dict[str, Any] = {"bootstrap.servers": bootstrap_servers, "log_level": 2, "error_cb": _ignore}
    admin = AdminClient(options)
    try:
        there = admin.list_topics(timeout=2).topics
    except KafkaException as error:
        logger.info("topics: %s", error)
        return
    wanted = [NewTopic(topic, num_partitions=PARTITIONS) for topic in events.TOPICS if topic not in there]
    if not wanted:
        return
    for topic, made in admin.create_topics(wanted, request_timeout=5).items():
        try:
            made.result(6)
        except (KafkaException, TimeoutError) as error:
            logger.info("topic %s: %s", topic, error)


class Publisher:
    """One process's publisher. `maker` makes producers: a fatal error ends one, and the next takes over."""

    def __init__(self, maker: Callable[[], Producer], *, lease: float, poll: float) -> None:
        self.maker = maker
        self.lease = lease
        self.me = uuid.uuid4()
        self.shards: list[int] = []
        self._held_until = 0.0
        self._producer: Producer | None = None
        self._lines: dict[int, deque[Outgoing]] = {}  # by patient, in order; only the first of each may be out
        self._heard: list[Outgoing] = []  # of these there is a report
        self._suspects: list[Outgoing] = []  # refused in company
        self._ended: list[Outgoing] = []  # to be written down
        self._behind = (0, 0)  # shard and patient at which the last batch ended
        self._pace = Pace(5, least=poll, most=max(poll, LONGEST_REST))
        self._reads = Line("publisher", statement_timeout=STATEMENT_TIMEOUT)
        # Whoever waits for a lock on the leases must not wait until they are another's.
        self._leases = Line("publisher leases", statement_timeout=f"{lease / 2:g}s")

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop`; reports that are out get four seconds, shards are given back."""
        await self._reads.open()
        await self._leases.open()
        await self._seed()
        keeping = asyncio.create_task(self._keep_shards())
        try:
            while not stop.is_set():
                if not await self._publish_some(stop):
                    await _pause(stop, self._pace.rest)
            await self._finish()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await self._give_back()
            await self._reads.close()
            await self._leases.close()

    async def run_until_idle(self) -> None:
        """Publish what waits and return: for commands and tests. Takes every free shard."""
        stop = asyncio.Event()
        running = asyncio.create_task(self.run(stop))
        try:
            while not running.done() and not await self._idle():
                await asyncio.sleep(0.02)
        finally:
            stop.set()
            await running

    async def _idle(self) -> bool:
        if not self.shards or not self._leases.up:
            return False
        try:
            async with self._leases.use() as connection:
                row = await (await connection.execute(WAITING, [self.shards])).fetchone()
        except psycopg.Error:
            return False
        return row == (False,)

    # Shards

    @property
    def holds(self) -> bool:
        """Whether the leases are surely ours still: reckoned from before they were asked for."""
        return monotonic() < self._held_until

    async def _seed(self) -> None:
        async with self._leases.use() as connection:
            await connection.execute(SEED, [SHARDS - 1])
            await connection.execute(FORGET_GONE)

    async def _keep_shards(self) -> None:
        while True:
            try:
                await self._renew_shards()
            except psycopg.Error as error:
                logger.warning("shards not renewed: %s", type(error).__name__)
            except Exception:
                logger.exception("shards not renewed")
            await asyncio.sleep(self.lease / 5 if self.shards else 0.1)

    async def _renew_shards(self) -> None:
        asked_at = monotonic()
        parameters = {
            "me": self.me,
            "present": f"publisher-{self.me.hex[:20]}",
            "lease": self.lease,
            "shards": SHARDS,
            "held": len(self.shards),
        }
        async with self._leases.use() as connection, connection.transaction():
            await connection.execute(PRESENT, parameters)
            await connection.execute(RENEW, parameters)
            await self._level(connection)
            await connection.execute(TAKE, parameters)
            rows = await (await connection.execute(MINE, [self.me])).fetchall()
        self.shards = sorted(int(name.removeprefix("shard-")) for (name,) in rows)
        self._held_until = asked_at + self.lease * 0.8
        metrics.SHARDS.set(len(self.shards))

    async def _level(self, connection: Connection) -> None:
        """Give back what is over the fair share, so that a newcomer finds something to do."""
        row = await (await connection.execute(OTHERS, [self.me])).fetchone()
        share = -(-SHARDS // (1 + int(row[0] if row else 0)))
        surplus = [f"shard-{shard}" for shard in self.shards[share:]]
        if surplus:
            await connection.execute(SURPLUS, {"names": surplus, "me": self.me})

    async def _give_back(self) -> None:
        try:
            async with asyncio.timeout(1.0), self._leases.use() as connection:
                await connection.execute(RELEASE, [self.me])
        except (psycopg.Error, TimeoutError):
            logger.warning("shards could not be given back: their leases run out within %g s", self.lease)

    # Publishing

    async def _publish_some(self, stop: asyncio.Event) -> bool:
        """Send the next messages, write down what has become of them; whether there was anything to do."""
        if not self.holds:
            self._abandon()
            await _pause(stop, 0.02)
            return True
        try:
            await self._write()
            await self._fetch()
            if not self._lines and not self._ended:
                return False
            await self._send(stop)
            await self._write()
        except psycopg.Error as error:
            logger.warning("not published: %s", type(error).__name__)
            return False
        return True

    async def _fetch(self) -> None:
        """More deliveries, of patients who have nothing out."""
        room = BATCH_BYTES - self._keep_what_is_out()
        if not self.shards or len(self._lines) >= MOST_LINES or room <= 0:
            return
        started = monotonic()
        shard, patient = self._behind
        wanted: dict[str, Any] = {
            "shards": [each for each in self.shards if each >= shard],
            "shard": shard,
            "patient": patient,
            "each": A_PATIENT,
            "busy": list(self._lines),
            "limit": BATCH,
            "bytes": room,
        }
        async with self._reads.use() as connection:
            rows = await (await connection.execute(FETCH, wanted)).fetchall()
            everywhere = {"shards": self.shards, "busy": wanted["busy"]}
            nobodys = await (await connection.execute(FETCH_NOBODYS, everywhere)).fetchall()
        self._pace.took(monotonic() - started)
        self._line_up([row[:-2] for row in until_one_waits(rows)] + nobodys)
        more = bool(rows) and (rows[0][-1] == BATCH or len(rows) < rows[0][-1])
        self._behind = (rows[-1][1], rows[-1][2]) if more else (0, 0)
        if not rows and (shard, patient) != (0, 0):
            await self._fetch()

    def _keep_what_is_out(self) -> int:
        """What stands behind a slow message is fetched again when its turn comes. Bytes that stay."""
        for line in self._lines.values():
            while len(line) > 1:
                line.pop()
        return sum(line[0].size for line in self._lines.values())

    def _line_up(self, rows: Sequence[Sequence[Any]]) -> None:
        for outgoing in map(opened, rows):
            if outgoing.who not in self._lines and outgoing.ends_unsent:
                self._ended.append(outgoing)
            else:
                self._lines.setdefault(outgoing.who, deque()).append(outgoing)

    async def _send(self, stop: asyncio.Event) -> None:
        """Keep one message of each patient out, the next one when that is confirmed.

        Returns when all is reported, or what is not has been out for long, or it is time to write down what is: one
        slow partition holds up its own patients, not the others.
        """
        latest = monotonic() + ROUND
        while self._lines:
            try:
                if self._producer is None:
                    self._producer = await asyncio.to_thread(self.maker)
                producer = self._producer
                self._send_heads(producer)
                await self._hear(producer)
                await self._try_alone()
            except (KafkaException, SystemError) as error:
                self._give_up(error)
            if stop.is_set() or not self.holds or monotonic() > latest or not self._hopeful():
                return

    def _hopeful(self) -> bool:
        now = monotonic()
        return any(not line[0].out_since or now - line[0].out_since < SLOW_AFTER for line in self._lines.values())

    def _send_heads(self, producer: Producer) -> None:
        """What is next of each patient, as long as the patient is ours."""
        mine = frozenset(self.shards if self.holds else ())
        for who, line in list(self._lines.items()):
            if not line[0].out_since and line[0].shard in mine:
                self._produce(producer, line[0])
            elif not line[0].out_since:
                del self._lines[who]
        metrics.IN_FLIGHT.set(len(self._lines))

    def _produce(self, producer: Producer, outgoing: Outgoing, *, alone: bool = False) -> None:
        """Raises `KafkaException` when the producer is of no more use."""
        message = outgoing.contents.messages[outgoing.sent]
        if not outgoing.started_at:
            outgoing.started, outgoing.started_at = perf_counter(), datetime.now(UTC)
        outgoing.alone = alone
        try:
            producer.produce(
                message.topic,
                value=bytes(message.value),
                key=outgoing.contents.key.encode(),
                headers=events.headers(
                    message,
                    delivery_id=outgoing.id,
                    sequence=outgoing.sequence or 0,
                    place=outgoing.contents.first + outgoing.sent,
                    happened_at=outgoing.happened_at,
                ),
                on_delivery=lambda error, _: self._report(outgoing, message.topic, error),
            )
        except KafkaException as error:
            if error.args[0].code() == KafkaError._FATAL:
                raise
            outgoing.alone = True
            self._report(outgoing, message.topic, error.args[0])
        except BufferError:
            self._report(outgoing, message.topic, KafkaError(KafkaError._QUEUE_FULL))
        outgoing.out_since = monotonic()

    def _report(self, outgoing: Outgoing, topic: str, error: KafkaError | None) -> None:
        """A delivery report. While it is served, the loop waits for it in `_hear`."""
        outgoing.duration_ms = round((perf_counter() - outgoing.started) * 1000)
        if error is None:
            outgoing.sent += 1
            metrics.MESSAGES.labels(topic).inc()
        else:
            outgoing.failure = failure_of(error)
            metrics.MESSAGES_FAILED.labels(error.name()).inc()
        self._heard.append(outgoing)

    async def _hear(self, producer: Producer) -> None:
        """Serve reports off the loop. Raises `KafkaException` when the producer is of no more use."""
        if not self._heard:
            await asyncio.to_thread(producer.poll, 0.1)
        self._sort_out()
        metrics.IN_FLIGHT.set(sum(bool(line[0].out_since) for line in self._lines.values()))

    def _sort_out(self) -> None:
        heard, self._heard = self._heard, []
        for outgoing in heard:
            if outgoing.failure and outgoing.failure.for_good and not outgoing.alone:
                self._suspects.append(outgoing)
            else:
                self._advance(outgoing)
        if any(outgoing.failure and outgoing.failure.no_topic for outgoing in heard):
            self._abandon()

    def _advance(self, outgoing: Outgoing) -> None:
        """Its next message may go, or the patient's next delivery, or nothing more of that patient for now."""
        outgoing.out_since = 0.0
        line = self._lines.get(outgoing.who)
        if not line or (outgoing.failure is None and not outgoing.finished):
            return
        self._ended.append(line.popleft())
        while line and not outgoing.failure and line[0].ends_unsent:
            self._ended.append(line.popleft())
        if outgoing.failure or not line:
            del self._lines[outgoing.who]

    async def _try_alone(self) -> None:
        """Kafka refuses a batch as one, whoever is at fault: what it refused in company is tried by itself."""
        if not self._suspects:
            return
        suspects, self._suspects = self._suspects, []
        producer = await asyncio.to_thread(self.maker)
        for outgoing in suspects:
            outgoing.failure = None
            self._produce(producer, outgoing, alone=True)
            await asyncio.to_thread(producer.flush, ALONE_WITHIN)
            in_time = outgoing in self._heard
            self._sort_out()
            if not in_time or not self.holds:
                break
        producer.purge()
        for outgoing in suspects:
            if outgoing.out_since:  # later
                self._lines.pop(outgoing.who, None)

    def _give_up(self, error: Exception) -> None:
        """A fatal error ends a producer: what it had out is tried again by the next one."""
        logger.error("the producer cannot go on, a new one takes over: %s", error)
        failure = Failure(COULD_NOT_GO_ON, "kafka_fatal")
        self._sort_out()
        for line in self._lines.values():
            if line[0].out_since:
                line[0].failure = failure
                self._ended.append(line[0])
        self._abandon()

    def _abandon(self) -> None:
        """Let go of the producer and of what it has out; a report that comes yet is not listened to."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaException, SystemError):
                producer.purge()
                producer.poll(0)
        self._heard, self._suspects = [], []
        self._lines.clear()
        metrics.IN_FLIGHT.set(0)

    async def _finish(self) -> None:
        """On the way out: hear what is still out, and write it down."""
        latest = monotonic() + FINISH_WITHIN
        try:
            while self._producer and monotonic() < latest and any(line[0].out_since for line in self._lines.values()):
                await self._hear(self._producer)
        except (KafkaException, SystemError) as error:
            self._give_up(error)
        self._abandon()
        try:
            async with asyncio.timeout(WRITE_WITHIN):
                await self._write()
        except (psycopg.Error, TimeoutError):
            logger.warning("%d deliveries could not be marked: they go out once more", len(self._ended))

    async def _write(self) -> None:
        """Mark what every report has confirmed; note what failed. Until this has worked, nothing more is fetched."""
        if not self._ended:
            return
        done = [outgoing for outgoing in self._ended if outgoing.failure is None]
        async with self._reads.use() as connection, connection.transaction():
            if done:
                await connection.execute(PUBLISHED, published_columns(done))
            for outgoing in self._ended:
                if outgoing.failure is not None:
                    await write_failure(connection, outgoing, outgoing.failure)
        self._ended.clear()
        metrics.PUBLISHED.inc(len(done))
        now = datetime.now(UTC)
        for outgoing in done:
            metrics.PUBLISHED_SECONDS.observe(max(0.0, (now - outgoing.received_at).total_seconds()))


def until_one_waits(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Of each patient the deliveries before the first that waits for its retry."""
    waiting: set[int] = set()
    ready = []
    for row in rows:
        if row[-2]:
            waiting.add(row[2])
        if row[2] not in waiting:
            ready.append(row)
    return ready


async def write_failure(connection: Connection, outgoing: Outgoing, failure: Failure) -> None:
    parameters = {
        "id": outgoing.id,
        "sequence": outgoing.sequence,
        "dead": failure.for_good,
        "wait": RETRY_AFTER * random.uniform(0.8, 1.2),  # noqa: S311 - spreads load, hides nothing
        "error": failure.error,
        "error_class": failure.error_class,
        "started_at": outgoing.started_at,
        "duration_ms": outgoing.duration_ms,
        "instead": await obituary(connection, outgoing, failure) if failure.for_good else None,
    }
    await connection.execute(FAILED, parameters)


async def obituary(connection: Connection, outgoing: Outgoing, failure: Failure) -> bytes | None:
    """The outbox that says a delivery is dead, in the place of the message that Kafka refused."""
    row = await (await connection.execute(DYING, [outgoing.id])).fetchone()
    if row is None:
        return None
    about = dict(zip(("patient", "vendor", "delivery", "origin", "received_at"), row, strict=False))
    *_, event_type, attempts, key = row
    message = events.dead_message(
        about, event_type=event_type, error=failure.error, error_class=failure.error_class, attempts=attempts
    )
    return events.encode(events.Outbox(key, [message], first=outgoing.contents.first + outgoing.sent))


def published_columns(done: Sequence[Outgoing]) -> list[list[Any]]:
    rows = sorted((o.id, o.sequence, o.started_at, o.duration_ms) for o in done)
    return [list(column) for column in zip(*rows, strict=True)]


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
