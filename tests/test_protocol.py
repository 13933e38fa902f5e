"""One connection must not be able to keep the web process busy, or to be kept for good."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn

from auren import protocol, streams
from auren.protocol import MAX_HEAD, BoundedProtocol
from tests.webhooks.entry import raw, until
from webhooks.http import Receive, Scope, Send, answer, reply

CLOSING = b"host: bridge\r\nconnection: close\r\n\r\n"


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers after the body, with its length."""
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await reply(send, answer(200, {"read": size}))


@pytest.fixture
async def port() -> AsyncIterator[int]:
    config = uvicorn.Config(hello, lifespan="off", http=BoundedProtocol, log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running = asyncio.create_task(server.serve(sockets=[listening]))
        await until(lambda: server.started)
        yield listening.getsockname()[1]
        server.should_exit = True
        await running


async def test_an_ordinary_request_is_answered(port: int) -> None:
    said = await raw(port, b"POST / HTTP/1.1\r\ncontent-length: 2\r\n" + CLOSING + b"{}", close=False)
    assert said.startswith(b"HTTP/1.1 200")
    assert b'{"read":2}' in said


async def test_a_head_in_many_pieces_is_put_together(port: int) -> None:
    head = b"GET / HTTP/1.1\r\nx-long: " + b"a" * 2_000 + b"\r\n" + CLOSING
    assert (await raw(port, *(bytes([byte]) for byte in head), close=False)).startswith(b"HTTP/1.1 200")


async def test_a_large_body_is_no_large_head(port: int) -> None:
    body = b"x" * (4 * MAX_HEAD)
    request = b"POST / HTTP/1.1\r\nhost: bridge\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    last = b"GET / HTTP/1.1\r\n" + CLOSING
    said = await raw(port, request + last, close=False)
    assert said.count(b"HTTP/1.1 200") == 2


async def test_a_header_that_is_too_large_is_refused(port: int) -> None:
    head = b"GET / HTTP/1.1\r\nx-long: " + b"a" * (MAX_HEAD + 1) + b"\r\n" + CLOSING
    assert (await raw(port, head, close=False)).startswith(b"HTTP/1.1 431")


async def test_many_headers_that_are_too_large_together_are_refused(port: int) -> None:
    head = b"GET / HTTP/1.1\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"a" * 100) for n in range(1_000)) + CLOSING
    assert (await raw(port, head, close=False)).startswith(b"HTTP/1.1 431")


async def test_an_address_that_is_too_large_is_refused(port: int) -> None:
    head = b"GET /" + b"a" * (MAX_HEAD + 1) + b" HTTP/1.1\r\n" + CLOSING
    assert (await raw(port, head, close=False)).startswith(b"HTTP/1.1 431")


async def test_a_header_without_end_is_cut_off_before_it_costs_anything(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nx-endless: ")
    sent = 0
    try:
        while sent < 100 * MAX_HEAD:
            writer.write(b"a" * 16_384)
            await writer.drain()
            sent += 16_384
    except ConnectionError:
        pass
    assert sent < 100 * MAX_HEAD
    writer.close()


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nx-slow: "])
async def test_a_head_that_does_not_come_in_time_closes_the_connection(
    port: int, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)
    assert await raw(port, begun, close=False) == b""


async def test_a_body_may_take_longer_than_a_head(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n" + CLOSING)
    await writer.drain()
    async with asyncio.timeout(10):
        assert await raw(port, close=False) == b""  # by now a silent connection of the same age has been closed
        writer.write(b"{}")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_what_is_no_http_is_refused(port: int) -> None:
    assert (await raw(port, b"\x16\x03\x01 nonsense\r\n\r\n", close=False)).startswith(b"HTTP/1.1 400")


async def test_a_stream_does_not_hold_up_the_end_of_the_process() -> None:
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        with streams.stream() as ending:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"on", "more_body": True})
            await ending.wait()
            await send({"type": "http.response.body", "body": b"off"})

    server = uvicorn.Server(uvicorn.Config(endless, lifespan="off", http=BoundedProtocol, log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running = asyncio.create_task(server.serve(sockets=[listening]))
        await until(lambda: server.started)
        said = asyncio.create_task(raw(listening.getsockname()[1], b"GET / HTTP/1.1\r\n" + CLOSING, close=False))
        await until(streams.count)
        server.should_exit = True
        async with asyncio.timeout(5):
            await running
        assert b"off" in await said
