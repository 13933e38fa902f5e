"""librdkafka's mock cluster, in a process of its own: a stand-in for Kafka that needs no Java.

It has 4 partitions a topic, keeps about 5 MB of each in memory and nothing across a restart, and listens on another
port each time. Others reach it by its broker address like any Kafka.

    python -m auren.embedded.kafka <file to write the address to>
"""

import signal
import sys
from pathlib import Path

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from auren.embedded.server import Server, write_private

TOPICS = ("auren.samples.v1", "auren.conflicts.v1", "auren.deliveries.dead.v1")
# librdkafka's own log lines are for its developers.
QUIET: dict[str, str | int | float | bool] = {"log_level": 0}


class MockKafka(Server):
    """The mock cluster as a child process. `url` is its bootstrap address, known once it runs."""

    def __init__(self, var: Path) -> None:
        super().__init__("kafka", var)
        self.address_file = self.folder / "address"

    @property
    def url(self) -> str:
        return self.address_file.read_text(encoding="utf-8").strip()

    def prepare(self) -> None:
        super().prepare()
        self.address_file.unlink(missing_ok=True)

    def command(self) -> list[str]:
        return [sys.executable, "-m", "auren.embedded.kafka", str(self.address_file)]

    def answers(self) -> bool:
        if not self.address_file.exists():
            return False
        try:
            AdminClient(QUIET | {"bootstrap.servers": self.url}).list_topics(timeout=1)
        except KafkaException:
            return False
        return True


def serve(address_file: Path) -> None:
    """Hold a mock cluster until SIGTERM. It lives inside a producer, whose metadata is the way to its address."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    producer = Producer(QUIET | {"test.mock.num.brokers": 1})
    for topic in TOPICS:
        metadata = producer.list_topics(topic, timeout=10)
    address = ",".join(f"{broker.host}:{broker.port}" for broker in metadata.brokers.values())
    write_private(address_file, address + "\n")
    while True:
        producer.poll(0.5)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
