"""Our own topics, read along for people. Joins no consumer group and commits nothing: nobody else's reading changes.

Kafka may be away, come later, or get more partitions: it is asked again and again, and `say` hears how it stands.
"""

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from time import monotonic
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

POLL_SECONDS = 0.2  # what Ctrl-C waits for at most, while Kafka is there
LOOK_WITHIN = 1.0  # seconds, and so while it is away
LOOK_EVERY = 5.0  # seconds between two looks for new partitions
# Where a broker knows no message that late, or as the stand-in nothing of times, the last few are looked through.
TAIL_OF_MANY = -2000 - 10_000  # librdkafka's RD_KAFKA_OFFSET_TAIL(10,000)

Message = Any  # confluent_kafka's, which has no useful type


class Tail:
    """Messages of `topics`: from now on, from the `beginning` of what is kept, or published `since` an instant."""

    def __init__(
        self,
        servers: str,
        topics: Sequence[str],
        say: Callable[[str], None],
        *,
        beginning: bool = False,
        since: datetime | None = None,
    ) -> None:
        self.servers = servers
        self.topics = frozenset(topics)
        self.say = say
        self.beginning = beginning
        self.since_ms = int(since.timestamp() * 1000) if since else 0
        self._assigned: set[tuple[str, int]] = set()
        self._missing: frozenset[str] = frozenset()
        self._started = False
        self._away = ""
        self._doubt = ""
        self._looked_at = 0.0

    def messages(self, stop: threading.Event) -> Iterator[Message]:
        """Until `stop`, as they come. Within a partition, and so for a patient, in order."""
        with closing(Consumer(self._options())) as consumer:
            while not stop.is_set():
                if self._doubt or monotonic() - self._looked_at > LOOK_EVERY:
                    self._look(consumer)
                message = consumer.poll(POLL_SECONDS)
                if message is None:
                    continue
                if (error := message.error()) is not None:
                    self._note(error)
                elif message.timestamp()[1] >= self.since_ms:
                    yield message

    def _options(self) -> dict[str, Any]:
        return {
            "bootstrap.servers": self.servers,
            "client.id": "auren-tail",
            "group.id": f"auren-tail-{uuid.uuid4()}",  # librdkafka wants one; it is never joined
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",  # where what we stood at has been removed
            "reconnect.backoff.max.ms": 1000,
            "log_level": 0,
            "error_cb": self._note,
        }

    def _note(self, error: KafkaError) -> None:
        """Whether it is really away, the next look finds out."""
        self._doubt = error.str()

    def _look(self, consumer: Consumer) -> None:
        """Find the partitions that are not read yet. Once we run, a new one is read from its beginning."""
        doubt, self._doubt = self._doubt, ""
        try:
            there = consumer.list_topics(timeout=LOOK_WITHIN).topics
            wanted = {(name, number) for name in self.topics & there.keys() for number in there[name].partitions}
            fresh = [TopicPartition(*partition) for partition in sorted(wanted - self._assigned)]
            if fresh:
                consumer.incremental_assign(self._placed(consumer, fresh))
        except KafkaException as error:
            self._is_away(doubt or error.args[0].str())
            return
        self._assigned |= wanted
        self._is_there(self.topics - there.keys())
        self._looked_at = monotonic()

    def _placed(self, consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Where to begin in each of them. Raises `KafkaException`."""
        if self.since_ms:
            asked = [TopicPartition(each.topic, each.partition, self.since_ms) for each in partitions]
            found = consumer.offsets_for_times(asked, timeout=LOOK_WITHIN)
            for each in found:
                each.offset = each.offset if each.offset >= 0 else TAIL_OF_MANY
            return list(found)
        for each in partitions:
            each.offset = OFFSET_BEGINNING if self.beginning or self._started else OFFSET_END
        return partitions

    def _is_away(self, why: str) -> None:
        self._doubt = why
        if not self._away:
            self._away = why
            self.say(f"Kafka at {self.servers} is away ({why}). Trying again until it is there; Ctrl-C ends this.")

    def _is_there(self, missing: frozenset[str]) -> None:
        if self._away or not self._started:
            self.say(f"Reading {len(self._assigned)} partitions at {self.servers}; Ctrl-C ends this.")
        if missing and missing != self._missing:
            self.say(f"Not there yet: {', '.join(sorted(missing))}. The publisher makes its topics when it starts.")
        self._away, self._missing, self._started = "", missing, True
