"""What only a real server and a real socket show."""

import asyncio

from pytest_django import Settings

from tests.webhooks.entry import in_sandbox, raw, rows, served
from tests.webhooks.webhook_cases import MIB

BODY = b'{"type":"sleep.updated","user_id":"user_7"}'


def request(*headers: bytes, verb: bytes = b"POST", path: bytes = b"/webhooks/whoop") -> bytes:
    lines = [verb + b" " + path + b" HTTP/1.1", b"host: 127.0.0.1", b"content-type: application/json", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def length(of: int) -> bytes:
    return b"content-length: %d" % of


async def test_the_answer_to_head_has_no_body(database: str, settings: Settings) -> None:
    in_sandbox(settings)
    async with served() as port:
        said = await raw(port, request(b"connection: close", verb=b"HEAD"), close=False)
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert b"allow: POST" in head
    assert body == b""


async def test_a_body_over_the_limit_is_refused_before_it_is_sent(database: str, settings: Settings) -> None:
    in_sandbox(settings)
    async with served() as port:
        assert (await raw(port, request(length(MIB + 1)), b"{")).startswith(b"HTTP/1.1 413 ")
        assert (await raw(port, request(length(10**30)), b"{")).startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 400 "))


async def test_a_body_in_chunks_is_refused_once_it_is_over_the_limit(database: str, settings: Settings) -> None:
    in_sandbox(settings)
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    async with served() as port:
        said = await raw(port, request(b"transfer-encoding: chunked", b"connection: close"), *[chunk] * 17, close=False)
    assert said.startswith(b"HTTP/1.1 413 ")


async def test_a_connection_whose_body_was_refused_unread_is_closed(database: str, settings: Settings) -> None:
    in_sandbox(settings)
    async with served() as port:
        said = await raw(port, request(length(MIB + 1)), b"{", close=False)
    assert b"\r\nconnection: close" in said.partition(b"\r\n\r\n")[0]


async def test_of_a_client_that_leaves_in_the_middle_of_its_body_nothing_is_stored(
    database: str, settings: Settings
) -> None:
    in_sandbox(settings)
    async with served() as port:
        assert await raw(port, request(length(len(BODY) + 1)), BODY) == b""
        whole = request(length(len(BODY)), b"connection: close")
        assert (await raw(port, whole, BODY, close=False)).startswith(b"HTTP/1.1 202 ")
    assert [bytes(row["body"]) for row in rows()] == [BODY]


async def test_of_a_client_that_leaves_after_its_body_the_webhook_is_stored(database: str, settings: Settings) -> None:
    in_sandbox(settings)
    async with served() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(length(len(BODY))) + BODY)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    # The server stops only once it has answered what came in.
    assert [bytes(row["body"]) for row in rows()] == [BODY]


async def test_bytes_that_are_no_http_are_told_so_and_the_next_client_is_served(
    database: str, settings: Settings
) -> None:
    in_sandbox(settings)
    async with served() as port:
        assert (await raw(port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert (await raw(port, request(length(2), b"connection: close"), b"{}", close=False)).startswith(
            b"HTTP/1.1 400 "
        )
