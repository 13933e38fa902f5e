"""librdkafka's mock cluster, in a process of its own: a stand-in for Kafka that needs no Java.

It has 4 partitions a topic, keeps about 5 MB of each in memory and nothing across a restart. Its broker listens on
another port each time and cannot be told which, so a door of ours stands at one port for good: clients come in there,
as at any bootstrap server, and learn the broker's address inside.

    python -m auren.embedded.kafka <port of the door>
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from auren.embedded.server import Server, free_port

TOPICS = ("auren.samples.v1", "auren.conflicts.v1", "auren.deliveries.dead.v1")
# librdkafka's own log lines are for its developers.
QUIET: dict[str, str | int | float | bool] = {"log_level": 0}
CHUNK = 65_536


class MockKafka(Server):
    """The mock cluster as a child process. `port` is the one to be found at, else a free one is chosen."""

    def __init__(self, var: Path, port: int | None = None) -> None:
        super().__init__("kafka", var)
        self.port = port or free_port()

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "auren.embedded.kafka", str(self.port)]

    def answers(self) -> bool:
        try:
            AdminClient(QUIET | {"bootstrap.servers": self.url}).list_topics(timeout=1)
        except KafkaException:
            return False
        return True


async def serve(port: int) -> None:
    """Hold a mock cluster until SIGTERM. It lives inside a producer, whose metadata is the way to its address."""
    producer = Producer(QUIET | {"test.mock.num.brokers": 1})
    for topic in TOPICS:
        metadata = producer.list_topics(topic, timeout=10)
    (broker,) = metadata.brokers.values()
    async with await asyncio.start_server(door_to(broker.host, broker.port), "127.0.0.1", port) as door:
        await door.serve_forever()


def door_to(host: str, port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def let_in(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        inside, to_inside = await asyncio.open_connection(host, port)
        await asyncio.gather(pass_on(client, to_inside), pass_on(inside, to_client))

    return let_in


async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Until either side closes; the other is closed then."""
    with suppress(OSError):
        while chunk := await source.read(CHUNK):
            target.write(chunk)
            await target.drain()
    target.close()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    asyncio.run(serve(int(sys.argv[1])))
