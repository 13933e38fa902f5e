"""The way out: marked only from delivery reports, in each patient's order, by one publisher at a time."""

import asyncio
import ctypes
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import confluent_kafka
import msgspec
import psycopg
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from django.db.models.functions import Now

from auren.embedded.kafka import MockKafka
from auren.embedded.server import free_port
from tests.conftest import GIVEN
from tests.webhooks.living import NOON, again, patient, push, running, send_out, tries, until
from tests.webhooks.reading import Read, read
from webhooks import events
from webhooks.events import DEAD, SAMPLES, Message, Outbox
from webhooks.models import Attempt, Delivery, Lease
from webhooks.publisher import FETCH, PARTITIONS, Publisher, make_producer
from webhooks.storing import SHARDS

LOOKING = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'auren publisher' AND wait_event_type = 'Lock'"
SOON = 0.4  # seconds until a producer of ours gives a message up

on_real_kafka = pytest.mark.skipif(
    not GIVEN.get("KAFKA_BOOTSTRAP_SERVERS"), reason="the stand-in neither makes topics nor limits messages"
)


@pytest.fixture
def who(database: str) -> str:
    return somebody()


def somebody() -> str:
    """A new patient of a name that nobody has used before: topics outlive the test."""
    name = f"publisher-{uuid4().hex[:12]}"
    patient(name)
    return name


def body(padding: int = 0) -> msgspec.Raw:
    about = {"patient": "p", "vendor": "healthkit", "delivery": 1, "origin": "webhook", "received_at": NOON}
    return msgspec.Raw(msgspec.json.encode({**about, "samples": [], "withdrawn": ["x" * padding]}))


def stored(who: str, sequence: int, *, padding: int = 0, messages: int = 1, **fields: Any) -> Delivery:
    """A delivery that waits to be published, as storing leaves it."""
    outbox = events.encode(Outbox(who, [Message(SAMPLES, body(padding)) for _ in range(messages)]))
    number = patient(who).pk
    waiting = {"state": "stored", "sequence": sequence, "patient_id": number, "shard": number % SHARDS}
    return push(user=who, **{**waiting, "outbox": outbox, **fields})


def numbers(messages: list[Read]) -> list[int]:
    return [message.sequence for message in messages]


def all_out(*deliveries: Delivery) -> bool:
    """Whether all are published, no retry waiting for its time."""
    Delivery.objects.filter(publish_at__isnull=False).update(publish_at=Now())
    return all_published(*deliveries)


def so_many_are_published(wanted: int) -> bool:
    return Delivery.objects.filter(state="published").count() >= wanted


def failed() -> int:
    return Attempt.objects.filter(stage="publish", outcome="failed").count()


def all_published(*deliveries: Delivery) -> bool:
    return set(states(*deliveries)) == {"published"}


def states(*deliveries: Delivery) -> list[str]:
    return [again(delivery).state for delivery in deliveries]


def impatient(servers: str) -> Producer:
    """As ours, but it gives a message up soon."""
    return Producer(
        {
            "bootstrap.servers": servers,
            "enable.idempotence": True,
            "delivery.timeout.ms": int(SOON * 1000),
            "linger.ms": 0,
            "log_level": 0,
        }
    )


def publisher(maker: Callable[[], Producer], lease: float = 5) -> Publisher:
    return Publisher(maker, lease=lease, poll=0.02)


@contextmanager
def at_work(running: Publisher) -> Iterator[Callable[[], object]]:
    """A publisher in a thread of its own, and what tells it to stop, as SIGTERM does. On leaving it has stopped."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def work() -> None:
        stop = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), stop))
        await running.run(stop)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(asyncio.run, work())
        loop, stop = started.result(10)
        try:
            yield lambda: loop.call_soon_threadsafe(stop.set)
        finally:
            with suppress(RuntimeError):  # it has ended by itself: `done` says why
                loop.call_soon_threadsafe(stop.set)
            done.result(20)


# Only after every report


def test_a_delivery_of_several_messages_is_published_after_the_last_report(who: str, kafka: str) -> None:
    delivery = stored(who, 7, messages=3)
    send_out()
    messages = read(kafka, who)
    assert [message.id for message in messages] == [f"{delivery.pk}.7.{place}" for place in range(3)]
    assert (again(delivery).state, again(delivery).outbox, again(delivery).error) == ("published", None, "")
    assert tries(delivery) == [("publish", "published")]


class Withholding(Producer):
    """Kafka as it is while the leader of one partition is away: of one patient there is no report for now."""

    slow: str
    kept: list[tuple[tuple[Any, ...], dict[str, Any]]]

    def produce(self, *arguments: Any, **named: Any) -> None:
        if named["key"] == self.slow.encode():
            self.kept.append((arguments, named))
        else:
            super().produce(*arguments, **named)

    def let_go(self) -> None:
        kept, self.slow, self.kept = self.kept, "", []
        for arguments, named in kept:
            super().produce(*arguments, **named)


def withholding(kafka: str, slow: str) -> Withholding:
    producer = Withholding({"bootstrap.servers": kafka, "enable.idempotence": True, "log_level": 0})
    producer.slow, producer.kept = slow, []
    return producer


def test_one_slow_patient_holds_up_nobody_else(who: str, kafka: str) -> None:
    slow = [stored(who, sequence) for sequence in (1, 2)]
    producer = withholding(kafka, who)
    with at_work(publisher(lambda: producer)):
        for _ in range(3):
            others = [stored(somebody(), 1) for _ in range(3)]
            until(partial(all_published, *others))
        assert states(*slow) == ["stored", "stored"]
        assert (len(producer.kept), failed()) == (1, 0)
        producer.let_go()
        until(lambda: all_published(*slow))
    assert numbers(read(kafka, who)) == [1, 2]


class Halting(Producer):
    """Stands still in the middle of its work, at message number `at`, until it may go on."""

    at: int
    halted: threading.Event
    go_on: threading.Event

    def produce(self, *arguments: Any, **named: Any) -> None:
        self.at -= 1
        if self.at == 0:
            self.halted.set()
            self.go_on.wait(60)
        super().produce(*arguments, **named)


def halting(kafka: str, at: int) -> Halting:
    settings = {"bootstrap.servers": kafka, "enable.idempotence": True, "partitioner": "murmur2_random", "log_level": 0}
    producer = Halting(settings)
    producer.at, producer.halted, producer.go_on = at, threading.Event(), threading.Event()
    return producer


def test_a_stop_in_the_middle_keeps_what_was_reported_and_sends_nothing_more(who: str, kafka: str) -> None:
    deliveries = [stored(who, sequence) for sequence in range(1, 41)]
    producer = halting(kafka, at=20)
    with at_work(publisher(lambda: producer)) as stop:
        assert producer.halted.wait(60)
        stop()
        producer.go_on.set()
    out = numbers(read(kafka, who))
    assert states(*deliveries).count("published") == len(out) == 20
    send_out()
    assert numbers(read(kafka, who)) == list(range(1, 41))


def test_what_postgresql_could_not_note_is_noted_later_and_not_sent_again(who: str, kafka: str, database: str) -> None:
    delivery = stored(who, 1)
    with psycopg.connect(database) as holder, at_work(publisher(lambda: make_producer(kafka))):
        holder.execute("SELECT FROM webhooks_delivery FOR UPDATE")
        until(lambda: read(kafka, who))
        cut_off(database, "auren publisher")
        holder.rollback()
        until(lambda: all_published(delivery))
    assert numbers(read(kafka, who)) == [1]


def test_one_look_that_took_long_does_not_put_off_the_next(who: str, kafka: str, database: str) -> None:
    with psycopg.connect(database) as holder, at_work(publisher(lambda: make_producer(kafka))):
        holder.execute("LOCK TABLE webhooks_delivery")
        until(lambda: looks_at_a_lock(database))
        over_at = time.monotonic() + 2
        until(lambda: time.monotonic() > over_at)
        holder.rollback()
        delivery = stored(who, 1)
        until(lambda: all_published(delivery), 8)


def looks_at_a_lock(database: str) -> bool:
    with psycopg.connect(database) as other:
        return other.execute(LOOKING).fetchone() is not None


def cut_off(database: str, name: str) -> None:
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s", [name])


# Order


def test_after_a_failed_report_nothing_later_of_that_patient_goes_out_before_its_retry(who: str, kafka: str) -> None:
    deliveries = [stored(who, sequence) for sequence in (1, 2, 3)]
    nowhere = f"127.0.0.1:{free_port()}"
    with at_work(publisher(lambda: impatient(nowhere))):
        until(failed)
    first = again(deliveries[0])
    assert states(*deliveries) == ["stored"] * 3
    assert [len(tries(delivery)) for delivery in deliveries] == [1, 0, 0]
    assert first.error.startswith("Kafka: ")
    assert first.error_class == "kafka_msg_timed_out"
    assert first.publish_at is not None
    other = somebody()
    whole = stored(other, 1)
    with at_work(publisher(lambda: make_producer(kafka))):
        until(lambda: all_published(whole))
    assert read(kafka, who) == []
    Delivery.objects.filter(publish_at__isnull=False).update(publish_at=Now())
    send_out()
    assert numbers(read(kafka, who)) == [1, 2, 3]
    assert tries(deliveries[0]) == [("publish", "failed"), ("publish", "published")]
    assert again(deliveries[0]).error == ""


def test_a_retry_is_planned_in_five_seconds_give_or_take_a_fifth(who: str) -> None:
    stored(who, 1)
    nowhere = f"127.0.0.1:{free_port()}"
    with at_work(publisher(lambda: impatient(nowhere))):
        until(failed)
    assert Delivery.objects.filter(
        publish_at__gt=Now() + timedelta(seconds=2), publish_at__lt=Now() + timedelta(seconds=6)
    ).exists()


def test_a_retry_that_has_a_later_one_before_it_stops_only_what_comes_after(who: str, kafka: str) -> None:
    """It was stored anew while it waited: its sequence is later now."""
    before = stored(who, 1)
    waiting = stored(who, 2, publish_at=Now() + timedelta(hours=1))
    after = stored(who, 3)
    with at_work(publisher(lambda: make_producer(kafka))):
        until(lambda: all_published(before))
    assert states(waiting, after) == ["stored", "stored"]


def test_sequences_without_an_order_of_rows_go_out_in_order(who: str, kafka: str) -> None:
    for sequence in (5, 3, 9, 1):
        stored(who, sequence)
    send_out()
    assert numbers(read(kafka, who)) == [1, 3, 5, 9]


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[MockKafka]:
    """A stand-in of this test's own, so that it may be stopped."""
    with MockKafka(tmp_path) as server:
        yield server


@contextmanager
def frozen(server: MockKafka) -> Iterator[None]:
    assert server.pid
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_while_kafka_is_away_everything_stays_stored_and_goes_out_in_order_after(
    database: str, own_kafka: MockKafka
) -> None:
    people = [somebody() for _ in range(5)]
    address = own_kafka.url
    with at_work(publisher(lambda: impatient(address))):
        before = [stored(who, sequence) for sequence in range(1, 5) for who in people]
        until(lambda: all_published(*before))
        with frozen(own_kafka):
            meanwhile = [stored(who, sequence) for sequence in range(5, 9) for who in people]
            until(lambda: failed() >= len(people))
            assert set(states(*meanwhile)) == {"stored"}
        until(lambda: all_out(*meanwhile))
    for who in people:
        assert list(dict.fromkeys(numbers(read(address, who)))) == list(range(1, 9))


# Refused for good


def test_a_message_too_large_makes_its_delivery_dead_says_so_and_the_later_ones_go_on(who: str, kafka: str) -> None:
    large, after = stored(who, 1, padding=1_100_000), stored(who, 2)
    send_out()
    assert states(large, after) == ["dead", "published"]
    dead, later = sorted(read(kafka, who), key=lambda message: message.sequence)
    assert (dead.topic, dead.id, later.sequence) == (DEAD, f"{large.pk}.1.0", 2)
    assert dead.body == {
        "patient": who,
        "vendor": "healthkit",
        "delivery": large.pk,
        "origin": "webhook",
        "received_at": dead.body["received_at"],
        "event_type": "batch.posted",
        "error": again(large).error,
        "error_class": "kafka_msg_size_too_large",
        "attempts": 1,
    }
    assert tries(large) == [("publish", "dead"), ("publish", "published")]
    assert "too large" in again(large).error


def test_the_part_that_is_refused_is_replaced_and_no_id_comes_twice(who: str, kafka: str) -> None:
    delivery = stored(who, 1)
    messages = [Message(SAMPLES, body(size)) for size in (1, 1_100_000, 1)]
    Delivery.objects.update(outbox=events.encode(Outbox(who, messages)))
    send_out()
    assert states(delivery) == ["dead"]
    assert {(message.topic, message.id) for message in read(kafka, who)} == {
        (SAMPLES, f"{delivery.pk}.1.0"),
        (DEAD, f"{delivery.pk}.1.1"),
    }


def test_what_a_delivery_that_is_still_worked_on_cannot_say_does_not_make_it_dead(who: str, kafka: str) -> None:
    delivery = stored(who, 1, padding=1_100_000, state="retrying")
    send_out()
    assert (again(delivery).state, again(delivery).outbox) == ("retrying", None)
    assert tries(delivery) == [("publish", "dead")]
    assert read(kafka, who) == []


@pytest.mark.parametrize("outbox", [b"", b"{}", b'{"key": "k", "messages": [{"topic": "another", "value": 1}]}'])
def test_an_outbox_that_cannot_be_read_is_dead_and_holds_nobody_up(who: str, kafka: str, outbox: bytes) -> None:
    before, bad, after = stored(who, 1), stored(who, 2, outbox=outbox), stored(who, 3)
    send_out()
    assert states(before, bad, after) == ["published", "dead", "published"]
    assert again(bad).error_class == "outbox_unreadable"
    messages = read(kafka, who)
    assert numbers([message for message in messages if message.topic == SAMPLES]) == [1, 3]
    assert [message.sequence for message in messages if message.topic == DEAD] == [2]


def test_a_dead_delivery_without_a_patient_is_published_too(database: str, kafka: str) -> None:
    name = f"nobody-{uuid4().hex[:12]}"
    outbox = events.encode(Outbox(name, [Message(DEAD, body())]))
    delivery = push(user=name, state="dead", shard=5, outbox=outbox)
    send_out()
    [message] = read(kafka, name)
    assert (message.sequence, again(delivery).state, again(delivery).outbox) == (0, "dead", None)


@contextmanager
def largest_message(kafka: str, limit: int) -> Iterator[None]:
    admin = AdminClient({"bootstrap.servers": kafka})

    def change(operation: AlterConfigOpType) -> None:
        entry = ConfigEntry("max.message.bytes", str(limit), incremental_operation=operation)
        resource = ConfigResource(ResourceType.TOPIC, SAMPLES, incremental_configs=[entry])
        for done in admin.incremental_alter_configs([resource]).values():
            done.result(10)

    change(AlterConfigOpType.SET)
    try:
        yield
    finally:
        change(AlterConfigOpType.DELETE)


@on_real_kafka
def test_what_was_only_in_the_company_of_a_refused_message_is_published(database: str, kafka: str) -> None:
    noise = os.urandom(60_000).hex()
    send_out()  # the topics are there
    with largest_message(kafka, 20_000):
        small = [stored(somebody(), 1) for _ in range(40)]
        who = somebody()
        about = Message(SAMPLES, msgspec.Raw(msgspec.json.encode({"noise": noise})))
        large = stored(who, 1, outbox=events.encode(Outbox(who, [about])))
        small += [stored(somebody(), 1) for _ in range(40)]
        send_out()
    assert set(states(*small)) == {"published"}
    assert again(large).state == "dead"
    assert [message.topic for message in read(kafka, who)] == [DEAD]


@on_real_kafka
def test_topics_are_made_with_twelve_partitions(database: str, kafka: str) -> None:
    send_out()
    topics = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).topics
    assert {len(topics[topic].partitions) for topic in events.TOPICS} == {PARTITIONS} == {12}


# A producer that cannot go on


def break_for_good(producer: Producer) -> None:
    """librdkafka's own way to try a fatal error, which the Python package does not wrap."""
    [library] = (Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka-*")
    raise_fatal = ctypes.CDLL(str(library)).rd_kafka_test_fatal_error
    raise_fatal.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    handle = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__)
    assert raise_fatal(handle, 47, b"for a test") == 0  # 47: INVALID_PRODUCER_EPOCH


def test_a_fatal_error_makes_a_new_producer_and_nothing_is_lost(
    who: str, kafka: str, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Producer] = []

    def maker() -> Producer:
        made.append(make_producer(kafka))
        return made[-1]

    first = stored(who, 1)
    with at_work(publisher(maker)):
        until(lambda: all_published(first))
        break_for_good(made[-1])
        later = [stored(who, sequence) for sequence in (2, 3)]
        until(lambda: all_out(*later))
    assert len(made) == 2
    assert numbers(read(kafka, who)) == [1, 2, 3]
    assert "a new one takes over" in caplog.text


def test_a_fatal_error_with_messages_out_tries_them_again(database: str, own_kafka: MockKafka) -> None:
    made: list[Producer] = []

    def maker() -> Producer:
        made.append(make_producer(own_kafka.url))
        return made[-1]

    people = [somebody() for _ in range(3)]
    with at_work(publisher(maker)):
        first = stored(people[0], 1)
        until(lambda: all_published(first))
        with frozen(own_kafka):
            more = [stored(who, 2) for who in people]
            until(lambda: len(made[0]) == 3)
            break_for_good(made[0])
            until(lambda: failed() == 3)
        until(lambda: all_out(*more))
    assert len(made) == 2
    assert set(Attempt.objects.filter(outcome="failed").values_list("error_class", flat=True)) == {"kafka_fatal"}


# Shards


def holders() -> list[int]:
    """How many shards each living publisher holds."""
    counts: dict[object, int] = {}
    for holder in Lease.objects.filter(name__startswith="shard-", until__gt=Now()).values_list("holder", flat=True):
        counts[holder] = counts.get(holder, 0) + 1
    return sorted(counts.values())


def test_two_publishers_share_the_shards_and_a_killed_ones_are_taken_over_after_its_lease(
    database: str, kafka: str
) -> None:
    people = [somebody() for _ in range(12)]
    with (
        running("publish_deliveries", PUBLISHER_LEASE="1") as one,
        running("publish_deliveries", PUBLISHER_LEASE="1") as two,
    ):
        until(lambda: holders() == [32, 32])
        first = [stored(who, 1) for who in people]
        until(lambda: set(states(*first)) == {"published"})
        one.kill()
        second = [stored(who, 2) for who in people]
        until(lambda: holders() == [64])
        until(lambda: set(states(*second)) == {"published"})
        two.send_signal(signal.SIGTERM)
        assert two.wait(10) == 0
    assert holders() == []
    for who in people:
        assert numbers(read(kafka, who)) == [1, 2]


def test_sigterm_gives_the_shards_back_within_ten_seconds_even_with_messages_out(database: str) -> None:
    stored(somebody(), 1)
    nowhere = f"127.0.0.1:{free_port()}"
    with running("publish_deliveries", KAFKA_BOOTSTRAP_SERVERS=nowhere, PUBLISHER_LEASE="60") as process:
        until(lambda: holders() == [64])
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert holders() == []
    assert Lease.objects.filter(name__startswith="shard-").count() == SHARDS


def test_a_stop_while_kafka_is_away_leaves_what_is_out_stored(database: str, own_kafka: MockKafka) -> None:
    deliveries = [stored(somebody(), 1) for _ in range(3)]
    producer = make_producer(own_kafka.url)
    with frozen(own_kafka), pytest.MonkeyPatch.context() as patch:
        patch.setattr("webhooks.publisher.FINISH_WITHIN", 0.2)
        with at_work(publisher(lambda: producer)):
            until(lambda: len(producer) == 3)
    assert states(*deliveries) == ["stored"] * 3
    assert {again(delivery).attempts for delivery in deliveries} == {0}
    assert holders() == []


def test_a_publisher_that_could_not_renew_sends_nothing_until_it_could(who: str, kafka: str, database: str) -> None:
    ours = publisher(lambda: make_producer(kafka), lease=1)
    first = stored(who, 1)
    with psycopg.connect(database) as holder, at_work(ours):
        until(lambda: all_published(first))
        holder.execute("LOCK TABLE webhooks_lease IN ACCESS EXCLUSIVE MODE")
        until(lambda: not ours.holds)
        waiting = stored(who, 2)
        holder.execute(
            "UPDATE webhooks_lease SET holder = gen_random_uuid(), until = now() + interval '1 hour'"
            " WHERE name LIKE 'shard-%'"
        )
        holder.commit()
        until(lambda: ours.holds and ours.shards == [])
        assert numbers(read(kafka, who)) == [1]
        Lease.objects.update(until=Now())
        until(lambda: all_published(waiting))
    assert numbers(read(kafka, who)) == [1, 2]


def test_what_stands_in_a_producer_whose_lease_is_lost_does_not_go_out_any_more(
    database: str, own_kafka: MockKafka
) -> None:
    who = somebody()
    delivery = stored(who, 1)
    producer = make_producer(own_kafka.url)
    with frozen(own_kafka), psycopg.connect(database) as holder, at_work(publisher(lambda: producer, lease=1)):
        until(lambda: len(producer) == 1)
        holder.execute("LOCK TABLE webhooks_lease IN ACCESS EXCLUSIVE MODE")
        until(lambda: len(producer) == 0)
        holder.rollback()
        Lease.objects.update(holder=uuid4(), until=Now() + timedelta(hours=1))
    assert (states(delivery), read(own_kafka.url, who)) == (["stored"], [])


def test_connections_cut_off_again_and_again_lose_nothing_and_keep_the_order(database: str, kafka: str) -> None:
    people = [somebody() for _ in range(4)]
    deliveries = [stored(who, sequence) for sequence in range(1, 26) for who in people]

    with at_work(publisher(lambda: make_producer(kafka))):
        for wanted in (1, 30, 60):
            until(partial(so_many_are_published, wanted))
            cut_off(database, "auren publisher%")
        until(lambda: all_published(*deliveries))
    for who in people:
        assert list(dict.fromkeys(numbers(read(kafka, who)))) == list(range(1, 26))


# A backlog


def test_a_long_history_of_one_patient_lets_the_others_through(database: str, kafka: str) -> None:
    busy, other = sorted((somebody(), somebody()), key=lambda name: patient(name).pk % SHARDS)
    deliveries = [stored(busy, sequence) for sequence in range(1, 201)]
    one = stored(other, 1)
    send_out()
    last, single = again(deliveries[-1]).published_at, again(one).published_at
    assert last is not None
    assert single is not None
    assert single < last
    assert all(earlier < later for earlier, later in pairwise(numbers(read(kafka, busy))))


BACKLOG = """
INSERT INTO webhooks_delivery
    (vendor, dedup_key, event_type, vendor_user_id, state, sequence, patient_id, shard, outbox, publish_at)
SELECT 'oura', n::text, 'sleep.update', 'somebody', 'stored', n, 1 + n %% %(people)s, (1 + n %% %(people)s) %% 64,
       '{"key": "somebody", "messages": []}', CASE WHEN n %% 100 = 7 THEN now() + interval '1 hour' END
FROM generate_series(1, 20000) n
"""


@pytest.mark.parametrize("people", [1, 300, 20_000])
def test_the_cost_of_a_batch_does_not_grow_with_what_waits(database: str, people: int) -> None:
    wanted = {"shards": list(range(SHARDS)), "shard": 0, "patient": 0, "busy": [], "limit": 500, "bytes": 10**7}
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(BACKLOG, {"people": people})
        connection.execute("ANALYZE webhooks_delivery")
        explained = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {FETCH}", {**wanted, "each": 50}).fetchone()
    assert explained
    plan = explained[0] if isinstance(explained[0], list) else json.loads(str(explained[0]))
    assert max(touched(plan[0]["Plan"])) <= 2_500


def touched(plan: dict[str, Any]) -> Iterator[float]:
    """Rows that each step of a plan has seen, thrown away or not."""
    seen = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Join Filter", 0)
    yield seen * plan["Actual Loops"]
    for step in plan.get("Plans", []):
        yield from touched(step)


def test_nothing_to_do_is_done_at_once(database: str, kafka: str) -> None:
    send_out()
    assert holders() == []
