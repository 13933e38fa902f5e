"""The example of docs/events/, run as a process of its own: it may die at any place, and neither loses nor doubles."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from auren.embedded.server import BASE_DIR
from devices.models import Patient
from tests.webhooks.living import NOON, heart_rate, patient, push, send_out, until, work
from tests.webhooks.reading import Read, everything, read
from webhooks.erasure import erase
from webhooks.events import SAMPLES

EXAMPLE = BASE_DIR / "docs" / "events" / "consumer.py"
PATIENCE_SECONDS = 60
# The example itself, killed with the second message of a batch in hand: the first one's effect is not committed yet.
KILLED_AT_WORK = f"""
import json, os, runpy, signal

read = json.loads
calls = []

def dying(value):
    calls.append(value)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(value)

json.loads = dying
runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")
"""
# The example itself, with a client that is killed when it is asked to commit: the work is done, Kafka does not know.
KILLED_BEFORE_COMMIT = f"""
import os, runpy, signal, confluent_kafka

class Dying(confluent_kafka.Consumer):
    def commit(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

confluent_kafka.Consumer = Dying
runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")
"""


class Example:
    """A consumer group with its file, and the processes that work for it."""

    def __init__(self, kafka: str, folder: Path) -> None:
        self.kafka = kafka
        self.group = f"example-{uuid4()}"
        self.file = folder / "samples.sqlite"

    @contextmanager
    def running(self, *program: str) -> Iterator[subprocess.Popen[bytes]]:
        program = program or (str(EXAMPLE),)
        arguments = [sys.executable, *program, self.kafka, self.group, str(self.file)]
        process = subprocess.Popen(arguments, env=os.environ | {"PYTHONWARNINGS": "error"})
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def catch_up(self) -> None:
        """Read all there is: what is published after it is the next that a process of the group reads."""
        with self.running() as process:
            until(lambda: self.committed() == self.all_there_is(), PATIENCE_SECONDS)
            process.terminate()
            assert process.wait(PATIENCE_SECONDS) == 0

    def values(self, who: Patient) -> list[float]:
        return [value for (value,) in self.asked("SELECT value FROM sample WHERE patient = ? ORDER BY value", who)]

    def asked(self, query: str, who: Patient) -> list[tuple[float]]:
        try:
            with closing(sqlite3.connect(self.file)) as database:
                return database.execute(query, [who.external_id]).fetchall()
        except sqlite3.OperationalError:  # it has not begun
            return []

    def committed(self) -> int:
        """How many messages Kafka takes to be done with."""
        with closing(Consumer({"bootstrap.servers": self.kafka, "group.id": self.group, "log_level": 0})) as consumer:
            partitions = consumer.list_topics(SAMPLES, timeout=10).topics[SAMPLES].partitions
            offsets = consumer.committed([TopicPartition(SAMPLES, number) for number in partitions], timeout=10)
            return sum(max(0, each.offset) for each in offsets)

    def all_there_is(self) -> int:
        return sum(message.topic == SAMPLES for message in everything(self.kafka))


@pytest.fixture
def who(database: str) -> Patient:
    return patient(f"consumer-{uuid4().hex[:12]}")


@pytest.fixture
def example(kafka: str, tmp_path: Path) -> Example:
    return Example(kafka, tmp_path)


def publish(who: Patient, *values: float) -> None:
    for value in values:
        push(heart_rate(value, NOON + timedelta(minutes=value), uuid=f"r-{value}"), user=who.external_id)
    work()
    send_out()


def test_killed_between_work_and_commit_it_loses_nothing_and_doubles_nothing(example: Example, who: Patient) -> None:
    example.catch_up()
    publish(who, 61, 62, 63)
    before = example.committed()
    with example.running("-c", KILLED_BEFORE_COMMIT) as dying:
        assert dying.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert example.values(who)
    assert example.committed() == before
    example.catch_up()
    assert example.values(who) == [61, 62, 63]


def test_killed_in_the_middle_of_the_work_it_loses_nothing_and_doubles_nothing(example: Example, who: Patient) -> None:
    example.catch_up()
    publish(who, 61, 62, 63)
    with example.running("-c", KILLED_AT_WORK) as dying:
        assert dying.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert example.values(who) != [61, 62, 63]
    example.catch_up()
    assert example.values(who) == [61, 62, 63]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_ends_what_it_does_and_commits_it(
    example: Example, who: Patient, number: signal.Signals
) -> None:
    publish(who, 61)
    with example.running() as consumer:
        # All that other tests have left, too: of the topic's other partitions it may have seen nothing by now.
        until(lambda: example.committed() == example.all_there_is(), PATIENCE_SECONDS)
        publish(who, 62)
        until(lambda: example.values(who) == [61, 62], PATIENCE_SECONDS)
        consumer.send_signal(number)
        assert consumer.wait(PATIENCE_SECONDS) == 0
    assert example.committed() == example.all_there_is()


def test_a_partition_that_moves_to_another_consumer_is_neither_lost_nor_doubled(example: Example, who: Patient) -> None:
    publish(who, 61)
    with example.running() as first:
        until(lambda: example.values(who) == [61], PATIENCE_SECONDS)
        with example.running():
            publish(who, 62)
            until(lambda: example.values(who) == [61, 62], PATIENCE_SECONDS)
            first.kill()
            publish(who, 63)
            until(lambda: 63 in example.values(who), PATIENCE_SECONDS)
    assert example.values(who) == [61, 62, 63]


def again(kafka: str, message: Read) -> None:
    """What a publisher does that was killed before it took note of Kafka's confirmation."""
    producer = Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random", "log_level": 0})
    headers: list[tuple[str, str | bytes | None]] = list(message.headers.items())
    producer.produce(message.topic, message.value, message.key, headers=headers)
    assert producer.flush(PATIENCE_SECONDS) == 0


def test_a_repeat_a_revision_a_withdrawal_and_an_erasure_leave_what_stands(
    example: Example, who: Patient, kafka: str
) -> None:
    user = who.external_id
    publish(who, 61, 62)
    first = read(kafka, user)[0]
    push(heart_rate(71, NOON + timedelta(minutes=61), uuid="r-61"), user=user)
    work()
    push(user=user, deleted=["r-62"])
    work()
    send_out()
    again(kafka, first)
    publish(who, 80)
    with example.running():
        until(lambda: 80 in example.values(who), PATIENCE_SECONDS)
        assert example.values(who) == [71, 80]
        erase(who, by="ada", reason="asked for it")
        send_out()
        until(lambda: not example.values(who), PATIENCE_SECONDS)


def test_a_delivery_in_parts_comes_together(example: Example, who: Patient, kafka: str) -> None:
    many = [heart_rate(40 + n % 100, NOON - timedelta(seconds=n), uuid=f"{n:06d}-{'r' * 200}") for n in range(6_000)]
    push(*many, user=who.external_id)
    work()
    send_out()
    assert len(read(kafka, who.external_id)) == 3
    with example.running():
        until(lambda: len(example.values(who)) == 6_000, PATIENCE_SECONDS)
