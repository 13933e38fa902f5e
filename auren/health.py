"""`/health/live` and `/health/ready`: whether this process runs, and whether it can still promise."""

import asyncio
from time import monotonic
from urllib.parse import urlsplit

import psycopg
import redis.asyncio
from django.conf import settings
from django.db.migrations.loader import MigrationLoader

from auren.postgres import Line
from webhooks.http import Answer, answer

LIMIT = 0.5  # seconds for each question
REMEMBER = 1.0  # seconds an answer is good for, so that eager probes cost nothing

APPLIED = "SELECT app, name FROM django_migrations"


class Health:
    """What the process stands on. PostgreSQL alone decides readiness: without the others 202 can be promised."""

    def __init__(self) -> None:
        self._line = Line("health", statement_timeout=f"{int(LIMIT * 1000)}ms")
        self._migrations = _migrations()
        self._redis = _redis(settings.REDIS_URL)
        self._asking: asyncio.Task[str] | None = None
        self._asked_at = 0.0
        self._known: dict[str, str] = {}

    async def open(self) -> None:
        await self._line.open()

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        await self._line.close()
        if self._redis is not None:
            await self._redis.aclose()

    async def answer(self, path: str) -> Answer:
        if path == "/health/live":
            return answer(200, {"status": "ok"})
        if path != "/health/ready":
            return answer(404, {"detail": "There are /health/live and /health/ready."})
        parts = await self.parts()
        return answer(200 if parts["postgresql"] == "ok" else 503, parts)

    async def parts(self) -> dict[str, str]:
        if not self._known or monotonic() - self._asked_at > REMEMBER:
            postgresql, cache, kafka = await asyncio.gather(self._postgresql(), self._cache(), self._kafka())
            self._known = {"postgresql": postgresql, "redis": cache, "kafka": kafka}
            self._asked_at = monotonic()
        return self._known

    async def _postgresql(self) -> str:
        """Its state, or "down" while it does not say: psycopg needs up to ten seconds to give up on a statement."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._migrated())
        done, _ = await asyncio.wait({self._asking}, timeout=LIMIT)
        return self._asking.result() if done else "down"

    async def _migrated(self) -> str:
        try:
            async with asyncio.timeout(2 * LIMIT), self._line.use() as connection:
                applied = set(await (await connection.execute(APPLIED)).fetchall())
        except psycopg.errors.UndefinedTable:
            return "not migrated"
        except (psycopg.Error, TimeoutError):
            return "down"
        return "ok" if self._migrations <= applied else "not migrated"

    async def _cache(self) -> str:
        if self._redis is None:
            return "fallback"
        try:
            async with asyncio.timeout(LIMIT):
                await self._redis.ping()
        except (redis.asyncio.RedisError, OSError, TimeoutError):
            return "fallback"
        return "ok"

    async def _kafka(self) -> str:
        """Whether any bootstrap server takes a connection; what it then says is the publisher's business."""
        for server in settings.KAFKA_BOOTSTRAP_SERVERS.split(","):
            try:
                address = urlsplit(f"//{server.strip()}")
                async with asyncio.timeout(LIMIT):
                    _, writer = await asyncio.open_connection(address.hostname, address.port)
            except (OSError, TimeoutError, ValueError):
                continue
            writer.close()
            return "ok"
        return "down"


def _redis(url: str) -> "redis.asyncio.Redis | None":
    if not url:
        return None
    return redis.asyncio.Redis.from_url(url, socket_timeout=LIMIT, socket_connect_timeout=LIMIT, max_connections=2)


def _migrations() -> set[tuple[str, str]]:
    """Every migration this release was made with; the database's own state is asked for later."""
    loader = MigrationLoader(None, ignore_no_migrations=True)
    return set(loader.disk_migrations or ())
