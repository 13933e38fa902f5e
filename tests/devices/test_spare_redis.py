"""What a pause of our own process says about Redis: nothing."""

import socket
import subprocess
import sys

import pytest

from auren.embedded.server import BASE_DIR
from tests.devices.pausing import paused

PATIENCE_SECONDS = 60.0

# A process that asks for one key, within a second, and prints what it was told.
ASKING = """
import asyncio, sys, uvloop
from devices import spare_redis
spare_redis.REDIS_SECONDS = 1.0

async def main():
    client = spare_redis.open_redis(sys.argv[1])
    print(await spare_redis.SpareRedis(client, "nothing is told").ask(lambda redis: redis.get("key")))
    await client.aclose()

{loop}.run(main())
"""


def until_asked(connection: socket.socket) -> None:
    """Say yes to how a client introduces itself, until it asks for the key."""
    while b"GET" not in (heard := connection.recv(65_536)):
        assert heard, "it left without asking"
        connection.sendall(b"+OK\r\n" * heard.count(b"*"))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_answer_that_came_while_the_process_stood_still_is_read(loop: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_SECONDS)
        arguments = [sys.executable, "-c", ASKING.format(loop=loop), f"redis://127.0.0.1:{server.getsockname()[1]}/0"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=BASE_DIR) as asking:
            connection, _ = server.accept()
            with connection:
                until_asked(connection)
                with paused(asking, 1.2):
                    connection.sendall(b"$4\r\nkept\r\n")
                said, _ = asking.communicate(timeout=PATIENCE_SECONDS)
    assert said == b"b'kept'\n"
