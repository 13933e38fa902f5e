"""The publisher: outboxes to Kafka, in the order of each patient's sequence, marked only from delivery reports.

Patients fall into 64 shards; whoever holds a shard's lease row publishes its patients, and stops producing the
moment it could not renew. A session lock would vanish with its connection while the work went on.
"""

import asyncio
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

from auren.postgres import Line
from webhooks import events, metrics
from webhooks.storing import SHARDS

logger = logging.getLogger(__name__)

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

BATCH = 500
REPORTS_WITHIN = 30.0  # seconds librdkafka may take over a message, its own retries included
FINISH_WITHIN = 7.0  # seconds for reports still out when the publisher is told to stop
RETRY_AFTER = 5.0  # seconds, ± 20 %: what ails Kafka ails every delivery, so no schedule is spent on it
PARTITIONS = 12

SEED = "INSERT INTO webhooks_lease (name) SELECT 'shard-' || n FROM generate_series(0, %s) n ON CONFLICT DO NOTHING"
# A publisher takes what is free up to its fair share, counted by the holders alive.
TAKE = """
WITH alive AS (
    SELECT count(DISTINCT holder) AS others FROM webhooks_lease
    WHERE name LIKE 'shard-%%' AND until > now() AND holder <> %(me)s
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
OTHERS = (
    "SELECT count(DISTINCT holder) FROM webhooks_lease WHERE name LIKE 'shard-%%' AND until > now() AND holder <> %s"
)
RELEASE = "UPDATE webhooks_lease SET holder = NULL, until = now() WHERE name LIKE 'shard-%%' AND holder = %s"

# A patient whose last report failed waits as a whole: nothing later may overtake what failed.
FETCH = """
SELECT id, patient_id, sequence, received_at, coalesce(stored_at, received_at), outbox
FROM webhooks_delivery d
WHERE outbox IS NOT NULL AND shard = ANY(%(shards)s) AND (publish_at IS NULL OR publish_at <= now())
  AND NOT EXISTS (
    SELECT FROM webhooks_delivery w
    WHERE w.outbox IS NOT NULL AND w.shard = d.shard AND w.patient_id = d.patient_id AND w.publish_at > now()
  )
ORDER BY shard, patient_id, sequence
LIMIT %(limit)s
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
FAILED = """
WITH done AS (
    UPDATE webhooks_delivery d
    SET attempts = d.attempts + 1, error = %(error)s, error_class = %(error_class)s,
        publish_at = CASE WHEN %(dead)s THEN NULL ELSE now() + make_interval(secs => %(wait)s) END,
        state = CASE WHEN %(dead)s AND d.state = 'stored' THEN 'dead' ELSE d.state END,
        outbox = CASE WHEN %(dead)s THEN NULL ELSE d.outbox END
    WHERE d.id = %(id)s AND d.sequence IS NOT DISTINCT FROM %(sequence)s AND d.outbox IS NOT NULL
    RETURNING d.id, d.attempts
)
INSERT INTO webhooks_attempt (delivery_id, number, stage, started_at, duration_ms, outcome, error_class, message)
SELECT id, attempts, 'publish', %(started_at)s, %(duration_ms)s,
       CASE WHEN %(dead)s THEN 'dead' ELSE 'failed' END, %(error_class)s, %(error)s
FROM done
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


class Outgoing(msgspec.Struct, eq=False):
    """A delivery on its way out: how many of its messages have gone, and what went wrong with the last one."""

    id: int
    patient_id: int | None
    sequence: int | None
    received_at: datetime
    happened_at: datetime
    outbox: bytes
    sent: int = 0
    started: float = 0.0
    started_at: datetime | None = None
    duration_ms: int = 0
    error: KafkaError | None = None

    _opened: events.Outbox | None = None

    @property
    def contents(self) -> events.Outbox:
        if self._opened is None:
            self._opened = events.decode(self.outbox)
        return self._opened

    @property
    def finished(self) -> bool:
        return self.sent == len(self.contents.messages)


def make_producer(bootstrap_servers: str) -> Producer:
    """Idempotent, acknowledged by all replicas, zstd. Keys fall to partitions as the Java client's do."""
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
            "log_level": 3,
            "error_cb": lambda error: logger.info("kafka: %s", error.str()),
        }
    )


def _ignore(error: KafkaError) -> None:
    """What is wrong shows in the result."""


def create_topics(bootstrap_servers: str) -> None:
    """Make the topics that are not there yet. A broker that makes them by itself, or forbids it, is no fault."""
    options: dict[str, Any] = {"bootstrap.servers": bootstrap_servers, "log_level": 2, "error_cb": _ignore}
    admin = AdminClient(options)
    try:
        there = admin.list_topics(timeout=5).topics
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
        self.poll = poll
        self.me = uuid.uuid4()
        self.shards: list[int] = []
        self._held_until = 0.0
        self._producer: Producer | None = None
        self._reads = Line("publisher")
        self._leases = Line("publisher leases")

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop`; reports that are out get seven seconds, shards are given back."""
        await self._reads.open()
        await self._leases.open()
        await self._seed()
        keeping = asyncio.create_task(self._keep_shards())
        try:
            while not stop.is_set():
                if not await self._publish_some(stop):
                    await _pause(stop, self.poll)
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
        async with self._leases.use() as connection:
            row = await (await connection.execute(WAITING, [self.shards])).fetchone()
        return row == (False,)

    # Shards

    @property
    def holds(self) -> bool:
        """Whether the leases are surely ours still: reckoned from before they were asked for."""
        return monotonic() < self._held_until

    async def _seed(self) -> None:
        async with self._leases.use() as connection:
            await connection.execute(SEED, [SHARDS - 1])

    async def _keep_shards(self) -> None:
        while True:
            try:
                await self._renew_shards()
            except psycopg.Error as error:
                logger.warning("shards not renewed: %s", type(error).__name__)
            await asyncio.sleep(self.lease / 5 if self.shards else 0.1)

    async def _renew_shards(self) -> None:
        asked_at = monotonic()
        parameters = {"me": self.me, "lease": self.lease, "shards": SHARDS, "held": len(self.shards)}
        async with self._leases.use() as connection, connection.transaction():
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
            async with asyncio.timeout(1.5), self._leases.use() as connection:
                await connection.execute(RELEASE, [self.me])
        except (psycopg.Error, TimeoutError):
            logger.warning("shards could not be given back: their leases run out within %g s", self.lease)

    # Publishing

    async def _publish_some(self, stop: asyncio.Event) -> bool:
        """Publish a batch; whether there was one."""
        if not self.shards or not self.holds:
            await asyncio.sleep(0.02)
            return True
        try:
            batch = await self._fetch()
            if batch:
                await self._send_in_order(batch, stop)
                await self._write(batch)
        except psycopg.Error as error:
            logger.warning("not published: %s", type(error).__name__)
            return False
        return bool(batch)

    async def _fetch(self) -> list[Outgoing]:
        async with self._reads.use() as connection:
            cursor = await connection.execute(FETCH, {"shards": self.shards, "limit": BATCH})
            rows = await cursor.fetchall()
        return [Outgoing(*row) for row in rows]

    async def _send_in_order(self, batch: Sequence[Outgoing], stop: asyncio.Event) -> None:
        """In rounds: a patient's next message goes out only when the one before it is confirmed."""
        lines: dict[int, deque[Outgoing]] = {}
        for outgoing in batch:
            if not outgoing.finished:
                lines.setdefault(outgoing.patient_id or -outgoing.id, deque()).append(outgoing)
        while lines and self.holds and not stop.is_set():
            heads = [line[0] for line in lines.values()]
            await self._send_round(heads, stop)
            for patient, line in list(lines.items()):
                if line[0].error is not None or not line[0].sent:
                    del lines[patient]
                elif line[0].finished:
                    line.popleft()
                    if not line:
                        del lines[patient]

    async def _send_round(self, heads: Sequence[Outgoing], stop: asyncio.Event) -> None:
        """Produce one message each and wait for every report, or for the end of what may be waited for."""
        producer = self._producer = self._producer or self.maker()
        reports = Reports(len(heads))
        for outgoing in heads:
            self._produce(producer, outgoing, reports)
        metrics.IN_FLIGHT.set(reports.out)
        await reports.wait(producer, stop)
        metrics.IN_FLIGHT.set(0)
        if reports.fatal:
            logger.error("the producer cannot go on: a new one takes over")
            self._producer = None

    def _produce(self, producer: Producer, outgoing: Outgoing, reports: "Reports") -> None:
        message = outgoing.contents.messages[outgoing.sent]
        if not outgoing.sent:
            outgoing.started, outgoing.started_at = perf_counter(), datetime.now(UTC)
        headers = events.headers(
            message,
            delivery_id=outgoing.id,
            sequence=outgoing.sequence or 0,
            place=outgoing.sent,
            happened_at=outgoing.happened_at,
        )
        try:
            producer.produce(
                message.topic,
                value=bytes(message.value),
                key=outgoing.contents.key.encode(),
                headers=headers,
                on_delivery=lambda error, _: reports.heard(outgoing, message.topic, error),
            )
        except KafkaException as error:
            reports.heard(outgoing, message.topic, error.args[0])
        except BufferError:
            reports.heard(outgoing, message.topic, KafkaError(KafkaError._QUEUE_FULL))

    async def _write(self, batch: Sequence[Outgoing]) -> None:
        """Mark what every report has confirmed; note what failed. Until this has worked, it will go out again."""
        done = [outgoing for outgoing in batch if outgoing.finished]
        async with self._reads.use() as connection, connection.transaction():
            if done:
                await connection.execute(PUBLISHED, published_columns(done))
            for outgoing in batch:
                if outgoing.error is not None:
                    await connection.execute(FAILED, failed_parameters(outgoing, outgoing.error))
        metrics.PUBLISHED.inc(len(done))
        now = datetime.now(UTC)
        for outgoing in done:
            metrics.PUBLISHED_SECONDS.observe(max(0.0, (now - outgoing.received_at).total_seconds()))


class Reports:
    """The delivery reports of one round. `fatal`: the producer that made them is of no more use."""

    def __init__(self, out: int) -> None:
        self.out = out
        self.fatal = False

    def heard(self, outgoing: Outgoing, topic: str, error: KafkaError | None) -> None:
        self.out -= 1
        outgoing.duration_ms = round((perf_counter() - outgoing.started) * 1000)
        if error is None:
            outgoing.sent += 1
            metrics.MESSAGES.labels(topic).inc()
            return
        outgoing.error = error
        self.fatal = self.fatal or error.fatal()
        metrics.MESSAGES_FAILED.labels(error.name()).inc()

    async def wait(self, producer: Producer, stop: asyncio.Event) -> None:
        """Serve reports off the loop until all are in; librdkafka itself gives up after REPORTS_WITHIN."""
        latest = monotonic() + REPORTS_WITHIN + 5
        while self.out > 0 and monotonic() < latest:
            await asyncio.to_thread(producer.poll, 0.1)
            if stop.is_set():
                latest = min(latest, monotonic() + FINISH_WITHIN)
                await asyncio.to_thread(producer.flush, FINISH_WITHIN)
                return


def is_refused_for_good(error: KafkaError) -> bool:
    return error.code() in FOR_GOOD


def published_columns(done: Sequence[Outgoing]) -> list[list[Any]]:
    rows = sorted((o.id, o.sequence, o.started_at, o.duration_ms) for o in done)
    return [list(column) for column in zip(*rows, strict=True)]


def failed_parameters(outgoing: Outgoing, error: KafkaError) -> dict[str, Any]:
    return {
        "id": outgoing.id,
        "sequence": outgoing.sequence,
        "dead": is_refused_for_good(error),
        "wait": RETRY_AFTER * random.uniform(0.8, 1.2),  # noqa: S311 - spreads load, hides nothing
        "error": f"Kafka: {error.str()}",
        "error_class": f"kafka_{error.name().lower().strip('_')}"[:64],
        "started_at": outgoing.started_at,
        "duration_ms": outgoing.duration_ms,
    }


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
