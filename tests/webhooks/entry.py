"""The real way in, for tests: `auren.asgi.application` with its lifespan open, over HTTP or over a real socket."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import uvicorn
from django.conf import settings
from prometheus_client import REGISTRY
from psycopg.rows import dict_row

from auren.asgi import application
from webhooks.http import Scope

Json = dict[str, Any]
Message = dict[str, Any]
LOOPBACK = "127.0.0.1"
ELSEWHERE = "203.0.113.9"
JSON = {"content-type": "application/json"}
PATIENCE_SECONDS = 20.0


@asynccontextmanager
async def opened(peer: str = LOOPBACK) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the web process, which has started up before and shuts down after."""
    async with lifespan(), client(peer) as posting:
        yield posting


def client(peer: str = LOOPBACK) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(application, client=(peer, 50_000))
    return httpx.AsyncClient(transport=transport, base_url="http://bridge")


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """Start-up and shutdown as a server asks for them. Raises what start-up answered when it failed."""
    asked: asyncio.Queue[Message] = asyncio.Queue()
    answered: asyncio.Queue[Message] = asyncio.Queue()
    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
    running = asyncio.create_task(application(scope, asked.get, answered.put))  # type: ignore[arg-type]
    await asked.put({"type": "lifespan.startup"})
    started = await answered.get()
    if started["type"] != "lifespan.startup.complete":
        await running
        raise RuntimeError(started["message"])
    try:
        yield
    finally:
        await asked.put({"type": "lifespan.shutdown"})
        await running


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """A real server, on a port of 127.0.0.1, that reads HTTP as the web process does."""
    config = uvicorn.Config(application, lifespan="on", http="httptools", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server((LOOPBACK, 0)) as listening:
        running = asyncio.create_task(server.serve(sockets=[listening]))
        await until(lambda: server.started or running.done())
        assert server.started
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await running


async def raw(port: int, *pieces: bytes, close: bool = True) -> bytes:
    """Everything the server says to these bytes, up to its closing the connection."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if close:
            writer.write_eof()
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await reader.read()
    finally:
        writer.close()


async def until(happened: Callable[[], object]) -> None:
    """Give way to everything else until it has happened."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not happened():
            await asyncio.sleep(0)


def rows() -> list[Json]:
    """Every delivery there is, oldest first."""
    with psycopg.connect(settings.DATABASE_URL, row_factory=dict_row) as connection:
        return connection.execute("SELECT * FROM webhooks_delivery ORDER BY id").fetchall()


@asynccontextmanager
async def locked_inbox() -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Nothing can be stored until the block ends: somebody holds the table."""
    async with await psycopg.AsyncConnection.connect(settings.DATABASE_URL) as holder:
        await holder.execute("LOCK TABLE webhooks_delivery IN EXCLUSIVE MODE")
        yield holder


def compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def counted(metric: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(metric, labels) or 0.0


def promised(response: httpx.Response) -> Json:
    """The body of a 202."""
    assert response.status_code == 202, response.text
    promise: Json = response.json()
    assert set(promise) == {"delivery", "duplicate"}
    return promise


def refused(response: httpx.Response, status: int, slug: str = "") -> Json:
    """The body of a refusal, a whole RFC 9457 problem."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: Json = response.json()
    assert set(problem) == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    assert problem["type"] == f"urn:auren:problem:{slug or problem['type'].rpartition(':')[2]}"
    assert problem["title"]
    assert problem["detail"]
    return problem


def without(headers: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in names}
