"""The little HTTP the ingest path needs, over bare ASGI: reading a bounded body, answering JSON and problems."""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any

import msgspec

from auren.protocol import WHOLE
from devices.vendors.webhook import Refused

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Answer = tuple[int, bytes, tuple[tuple[bytes, bytes], ...]]

BODY_TIMEOUT = 30.0  # seconds for a whole body
JSON = (b"content-type", b"application/json")
PROBLEM = (b"content-type", b"application/problem+json")

TITLES = {
    400: "Bad request",
    401: "Unauthorised",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    413: "Content too large",
    415: "Unsupported media type",
    422: "Unprocessable content",
    503: "Service unavailable",
}


class Gone(Exception):
    """The client closed the connection before its body was read; there is nobody to answer."""


def headers_of(scope: Scope) -> dict[str, str]:
    """Lower-case names to latin-1 text; of a header sent twice the last one counts."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def from_loopback(scope: Scope) -> bool:
    client = scope.get("client")
    return client is not None and is_loopback(client[0])


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Reading:
    """Bytes of bodies that are still arriving, all requests together: they stay in memory until the rest has come.

    What came counts, not what was announced: else a few connections that announce much and send nothing would close
    the door. A body that comes in one piece never waits, so it is not counted.
    """

    __slots__ = ("bound", "bytes")

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.bytes = 0


async def read_body(scope: Scope, receive: Receive, announced: str, limit: int, reading: Reading) -> bytes:
    """The whole body. `announced` is what Content-Length says of it.

    Raises `Refused`: 413 over `limit` bytes (as announced, and as read), 503 when too much is being read already, and
    408; and `Gone`.
    """
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > limit:
        raise _too_large(limit)
    if WHOLE in scope.get("state", ()):
        return await _read(receive, limit, reading)
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await _read(receive, limit, reading)
    except TimeoutError:
        raise Refused(408, "slow-body", f"The body did not arrive within {BODY_TIMEOUT:g} s.") from None


async def _read(receive: Receive, limit: int, reading: Reading) -> bytes:
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body = message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        return bytes(body)
    chunks = bytearray()
    try:
        while message["type"] == "http.request":
            piece = message.get("body", b"")
            chunks += piece
            reading.bytes += len(piece)
            if len(chunks) > limit:
                raise _too_large(limit)
            if not message.get("more_body"):
                return bytes(chunks)
            if reading.bytes > reading.bound:
                raise Refused(503, "busy", "Too many large bodies are being read. Try again in a moment.")
            message = await receive()
    finally:
        reading.bytes -= len(chunks)
    raise Gone


def _too_large(limit: int) -> Refused:
    return Refused(413, "too-large", f"The body is over {limit} bytes. Send it in smaller parts.")


def answer(status: int, content: object, *extra: tuple[bytes, bytes]) -> Answer:
    return status, msgspec.json.encode(content), (JSON, *extra)


def problem(refused: Refused, *extra: tuple[bytes, bytes]) -> Answer:
    """RFC 9457 problem details; `type` is explained in docs/problems.md."""
    content = {
        "type": f"urn:auren:problem:{refused.slug}",
        "title": TITLES.get(refused.status, "Error"),
        "status": refused.status,
        "detail": refused.detail,
    }
    return refused.status, msgspec.json.encode(content), (PROBLEM, *extra)


async def reply(send: Send, given: Answer) -> None:
    status, body, headers = given
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
