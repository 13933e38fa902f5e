import asyncio
import socket
import subprocess
import sys

import pytest
from pytest_django import Settings

from auren.embedded.server import BASE_DIR
from devices.connection import Client, NoAddress, NoReply, Reply, exchange, longest_call_seconds, open_client
from tests.devices.listening import Request, answer, listening
from tests.devices.pausing import paused

PATIENCE_SECONDS = 60


async def get(client: Client, url: str) -> Reply:
    return await exchange(client, "GET", url)


async def test_no_more_connections_are_opened_than_allowed() -> None:
    together = asyncio.Barrier(2)

    async def in_pairs(request: Request) -> bytes:
        await together.wait()
        return answer(200)

    async with listening(in_pairs) as server, open_client(connections=2) as client:
        replies = await asyncio.gather(*(get(client, server.url) for _ in range(6)))
        assert [reply.status for reply in replies] == [200] * 6
        assert server.opened == 2


async def test_a_call_that_failed_or_was_cancelled_leaves_its_place_to_the_next() -> None:
    asked = asyncio.Event()

    async def by_path(request: Request) -> bytes:
        if request.target == "/hang":
            asked.set()
            await asyncio.Event().wait()
        return b"" if request.target == "/break" else answer(200)

    async with listening(by_path) as server, open_client(connections=1) as client:
        with pytest.raises(NoReply):
            await get(client, f"{server.url}/break")
        hanging = asyncio.create_task(get(client, f"{server.url}/hang"))
        await asked.wait()
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        assert (await get(client, server.url)).status == 200


async def test_an_answer_that_drips_in_is_cut_off_by_the_whole_calls_limit(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.connection.CONNECT_SECONDS", 0.1)
    settings.VENDOR_TIMEOUT = 0.2
    cut_off = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.02)
        cut_off.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with open_client(connections=1) as client:
        with pytest.raises(NoReply) as error:
            await get(client, f"http://{host}:{port}")
    server.close()
    async with asyncio.timeout(5):
        await cut_off.wait()
    assert (error.value.error_class, error.value.sent) == ("timeout", True)


# A process that makes one call, and prints the status of the answer.
CALLING = """
import asyncio, sys, uvloop
from django.conf import settings
settings.configure(VENDOR_TIMEOUT=1)
from devices.connection import exchange, open_client

async def main():
    async with open_client(connections=1) as client:
        print((await exchange(client, "GET", sys.argv[1])).status)

{loop}.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_answer_that_came_while_the_process_stood_still_is_read(loop: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_SECONDS)
        host, port = server.getsockname()
        arguments = [sys.executable, "-c", CALLING.format(loop=loop), f"http://{host}:{port}"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=BASE_DIR) as caller:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                with paused(caller, 1.2):
                    connection.sendall(answer(200))
                said, _ = caller.communicate(timeout=PATIENCE_SECONDS)
    assert said == b"200\n"


async def test_a_connection_that_was_never_made_sent_nothing() -> None:
    async with open_client(connections=1) as client:
        with pytest.raises(NoReply) as error:
            await get(client, "http://127.0.0.1:1")
    assert (error.value.error_class, error.value.sent) == ("connection", False)


@pytest.mark.parametrize("address", ["http://[bad", "ftp://127.0.0.1/", "nowhere", "http://"])
async def test_what_is_no_address_is_told_and_sends_nothing(address: str) -> None:
    async with open_client(connections=1) as client:
        with pytest.raises(NoReply) as error:
            await get(client, address)
    assert (error.value.error_class, error.value.sent) == ("connection", False)
    with pytest.raises(NoAddress):
        open_client(address, connections=1)


def test_the_longest_call_is_bounded_by_the_setting(settings: Settings) -> None:
    settings.VENDOR_TIMEOUT = 7
    assert 7 < longest_call_seconds() < 8
