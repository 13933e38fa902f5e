"""What a consumer of our topics sees: every message of some patients, read by a consumer with a group of its own."""

import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from webhooks.events import TOPICS

PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Read:
    """A message as it came. Within a partition, and so of a patient, they come in the order of the list."""

    topic: str
    key: str
    value: bytes
    headers: dict[str, str]

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.value)
        return body

    @property
    def id(self) -> str:
        return self.headers["ce_id"]

    @property
    def sequence(self) -> int:
        return int(self.headers["sequence"])


def read(kafka: str, *patients: str) -> list[Read]:
    """All there is in our topics with these keys."""
    return [message for message in everything(kafka) if message.key in patients]


def everything(kafka: str) -> Iterator[Read]:
    """From the beginning of every partition to where each ended when we came there."""
    options = {
        "bootstrap.servers": kafka,
        "group.id": f"test-{uuid.uuid4()}",
        "enable.partition.eof": True,
        "enable.auto.commit": False,
        "fetch.wait.max.ms": 10,
        "log_level": 0,
    }
    with closing(Consumer(options)) as consumer:
        there = consumer.list_topics(timeout=PATIENCE_SECONDS).topics
        partitions = [(topic, number) for topic in TOPICS if topic in there for number in there[topic].partitions]
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for topic, number in partitions])
        unread = set(partitions)
        while unread:
            message = consumer.poll(PATIENCE_SECONDS)
            assert message is not None, f"Kafka says nothing about {unread}"
            if (error := message.error()) is None:
                yield as_read(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error.str()
                unread.discard((message.topic(), message.partition()))


def as_read(message: Any) -> Read:
    headers = {name: value.decode() for name, value in message.headers() or []}
    assert len(headers) == len(message.headers() or []), "no header comes twice"
    return Read(message.topic(), (message.key() or b"").decode(), message.value(), headers)
