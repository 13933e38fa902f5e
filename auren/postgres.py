"""PostgreSQL for asyncio: what the ingest path, the worker and the publisher talk through. No ORM here."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import psycopg
from django.conf import settings
from psycopg_pool import AsyncConnectionPool

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 3  # seconds
CHECK_EVERY = 1.0  # seconds
# A statement's plan is made for the tables as they are then, and kept: of an almost empty one all is read, and that
# goes on while it fills, until autovacuum has been there, a minute later or more.
REPLAN_EVERY = 5.0  # seconds
RECONNECT_EVERY = 0.2  # seconds between tries, so that PostgreSQL's return is noticed in well under a second

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


def options(name: str, **limits: str) -> dict[str, Any]:
    """Connection parameters; `limits` are session settings such as statement_timeout."""
    session = " ".join(f"-c {key}={value}" for key, value in ({"timezone": "UTC"} | limits).items())
    return {
        "application_name": f"auren {name}",
        "connect_timeout": CONNECT_TIMEOUT,
        "options": session,
        "tcp_user_timeout": 5000,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
    }


def array(values: Iterable[Any]) -> str:
    """Numbers, times, truth values or UUIDs as PostgreSQL reads an array, for `%s::bigint[]`. Texts only without
    control characters: JSON and PostgreSQL quote alike but for those.

    psycopg asks each member of a list what it is, which takes 16 times as long for UUIDs and 120 for times.
    """
    return "{" + msgspec.json.encode(list(values))[1:-1].decode() + "}"


class Kept(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection that lives long. `good_at` is when it was last seen to answer (monotonic seconds)."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.good_at = float("-inf")
        self._planned_at = time.monotonic()

    async def replan(self) -> None:
        """Throw plans away, now and then: to be called where no transaction is open."""
        if (now := time.monotonic()) - self._planned_at >= REPLAN_EVERY:
            await self.execute("DISCARD PLANS", prepare=False)
            self._planned_at = now


async def connect(name: str, **limits: str) -> Kept:
    """An autocommit connection: every statement is its own transaction unless one is opened on purpose."""
    return await Kept.connect(settings.DATABASE_URL, autocommit=True, prepare_threshold=1, **options(name, **limits))


class Line:
    """One connection kept open: while PostgreSQL is away it is tried again every 200 ms, without end.

    `up` says whether the last thing heard of it was good. One user at a time: callers take turns.
    """

    def __init__(self, name: str, **limits: str) -> None:
        self.name = name
        self.limits = limits
        self.connection: Kept | None = None
        self._turn = asyncio.Lock()
        self._reconnecting: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        return self.connection is not None and not self.connection.closed

    async def open(self) -> None:
        """Connect, or raise `psycopg.OperationalError`: for start-up, where failing is the right answer."""
        self.connection = await connect(self.name, **self.limits)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """The connection, for one caller at a time. Raises `psycopg.OperationalError` at once while it is down."""
        async with self._turn:
            if self.connection is None or self.connection.closed:
                self.reconnect()
                raise psycopg.OperationalError("PostgreSQL is away")
            try:
                await self.connection.replan()
                yield self.connection
            except (psycopg.OperationalError, psycopg.InterfaceError, asyncio.CancelledError):
                if self.connection.closed or self.connection.broken:
                    self.reconnect()
                raise

    def reconnect(self) -> None:
        if self._reconnecting is None or self._reconnecting.done():
            self._reconnecting = asyncio.create_task(self._until_back())

    async def back(self, within: float) -> bool:
        """Reconnect if it is down; whether it is up within so many seconds."""
        if not self.up:
            self.reconnect()
            assert self._reconnecting is not None, "just begun"
            await asyncio.wait({self._reconnecting}, timeout=within)
        return self.up

    async def _until_back(self) -> None:
        await self._drop()
        logger.warning("%s: PostgreSQL is away; trying every %g s", self.name, RECONNECT_EVERY)
        while True:
            try:
                await self.open()
            except psycopg.Error:
                await asyncio.sleep(RECONNECT_EVERY)
            else:
                logger.warning("%s: PostgreSQL is back", self.name)
                return

    async def _drop(self) -> None:
        if self.connection is not None:
            await self.connection.close()
            self.connection = None

    async def close(self) -> None:
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.gather(self._reconnecting, return_exceptions=True)
        await self._drop()


def pool(name: str, size: int, **limits: str) -> AsyncConnectionPool[Connection]:
    """A closed pool of at most `size` autocommit connections; whoever makes it opens and closes it."""
    return AsyncConnectionPool(
        settings.DATABASE_URL,
        min_size=1,
        max_size=size,
        open=False,
        timeout=5,
        reconnect_timeout=0,
        kwargs={"autocommit": True, "prepare_threshold": 1, **options(name, **limits)},
        name=name,
        connection_class=Kept,
        check=check_unless_fresh,
    )


async def check_unless_fresh(connection: Connection) -> None:
    """Ask a connection whether it still lives before it is given out, but not again within a second: that costs as
    much as what most callers want of it."""
    assert isinstance(connection, Kept)
    now = time.monotonic()
    if now - connection.good_at > CHECK_EVERY:
        await AsyncConnectionPool.check_connection(connection)
        connection.good_at = now
    await connection.replan()
