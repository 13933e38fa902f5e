"""The real way in, for tests: the web process with its lifespan open, over ASGI or over a real socket."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import uvicorn
from prometheus_client import REGISTRY
from psycopg import sql
from psycopg.rows import dict_row
from pytest_django import Settings

from auren.asgi import Application
from auren.protocol import BoundedProtocol
from webhooks.http import Scope

Json = dict[str, Any]
Message = dict[str, Any]
LOOPBACK = "127.0.0.1"
ELSEWHERE = "203.0.113.9"
JSON = {"content-type": "application/json"}
PATIENCE_SECONDS = 20.0
LONG_SECONDS = 10.0  # that a commit may take
WAITING = """
SELECT count(DISTINCT l.pid) FROM pg_locks l JOIN pg_stat_get_activity(NULL) a USING (pid)
WHERE NOT l.granted AND a.datid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@asynccontextmanager
async def opened(peer: str = LOOPBACK) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a web process of its own, which has started up before and shuts down after."""
    web = Application()
    async with lifespan(web), client(web, peer) as posting:
        yield posting


def client(web: Application, peer: str = LOOPBACK) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(web, client=(peer, 50_000))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


@asynccontextmanager
async def lifespan(web: Application) -> AsyncIterator[None]:
    """Start-up and shutdown as a server asks for them. Raises what start-up answered when it failed."""
    asked: asyncio.Queue[Message] = asyncio.Queue()
    answered: asyncio.Queue[Message] = asyncio.Queue()
    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
    running = asyncio.create_task(web(scope, asked.get, answered.put))  # type: ignore[arg-type]
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
    config = uvicorn.Config(Application(), lifespan="on", http=BoundedProtocol, log_config=None)
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
    with psycopg.connect(os.environ["DATABASE_URL"], row_factory=dict_row) as connection:
        return connection.execute("SELECT * FROM webhooks_delivery ORDER BY id").fetchall()


@asynccontextmanager
async def somebody() -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Another session of PostgreSQL, on a way of its own: each statement is a transaction unless one is begun."""
    async with await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        yield connection


@asynccontextmanager
async def locked(table: str = "webhooks_delivery") -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Nobody else gets at the table until the block ends."""
    async with somebody() as holder, holder.transaction():
        await holder.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table)))
        yield holder


async def somebody_waits(looking: psycopg.AsyncConnection[Any], sessions: int = 1) -> None:
    """Return once so many sessions of this database wait for a lock."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await (await looking.execute(WAITING)).fetchone() != (sessions,):
            await asyncio.sleep(0)


async def all_queued(web: httpx.AsyncClient, count: int) -> None:
    """Return once so many webhooks wait for a commit."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await gauge(web, "auren_webhooks_queued") != count:
            await asyncio.sleep(0)


async def gauge(web: httpx.AsyncClient, name: str) -> float:
    assert (await web.get("/metrics")).status_code == 200
    return counted(name)


def in_sandbox(settings: Settings, *, on: bool = True) -> None:
    """Settings of a web process that starts: pytest-django allows a host `testserver`, which the sandbox refuses.

    A commit may take long, so that a busy machine proves nothing.
    """
    settings.SANDBOX = on
    settings.COMMIT_TIMEOUT = LONG_SECONDS
    settings.ALLOWED_HOSTS = ["localhost", LOOPBACK]


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


async def taken_again(post: Callable[[], Awaitable[httpx.Response]]) -> Json:
    """Post until it is taken, as a vendor does: until then each answer says that it is not, and to come again."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (answer := await post()).status_code == 503:
            come_again(answer)
            await asyncio.sleep(0)
    return promised(answer)


def come_again(response: httpx.Response, slug: str = "unavailable") -> str:
    """The reason of a 503."""
    detail = refused(response, 503, slug)["detail"]
    assert int(response.headers["retry-after"]) > 0
    return str(detail)


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
