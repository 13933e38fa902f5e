"""Vendors' answers, kept for a few minutes where all workers find them.

One may serve a delivery only if it was asked for after the delivery came, else an edit is lost. They are health data:
a link's lie under one key, which an erasure deletes, and are gone after five minutes by themselves.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import NamedTuple, cast

import msgspec
from prometheus_client import Counter
from redis.asyncio import Redis

from devices.spare_redis import SpareRedis
from devices.vendors.client import Answer, Ask

KEPT_SECONDS = 300
MOST_BYTES = 256 * 1024  # an answer larger than this is asked for again
MOST_ANSWERS = 64  # of one link; one more, and it starts afresh
LOOKS_AT_ONCE = 50

HITS = Counter("auren_vendor_cache_hits", "Asks answered by a document kept from another delivery", ["vendor"])


# In one step, or a crash would leave health data for good.
KEEP = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[4]) then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
return 0
"""


class Asked(msgspec.Struct, frozen=True):
    """An answer, and when it was asked for by PostgreSQL's clock: what the vendor changed later is not in it."""

    answer: Answer
    sent_at: datetime


def key_of(link_id: int) -> str:
    return f"auren:documents:{{{link_id}}}"


class Look(NamedTuple):
    """A question to Redis, and where its answer goes."""

    key: str
    field: str
    kept: asyncio.Future[bytes | None]


class Remembered:
    """The answers of all links. Without Redis nothing is remembered, and everything is asked for.

    Whoever looks in the same turn of the loop shares a round trip: a worker does for all it has claimed.
    """

    def __init__(self, redis: Redis | None) -> None:
        self._redis = SpareRedis(redis, "documents are not shared between workers")
        self._keep = redis.register_script(KEEP) if redis else None
        self._looks: list[Look] = []
        self._looking: set[asyncio.Task[None]] = set()

    async def find(self, vendor: str, link_id: int, ask: Ask, *, since: datetime) -> Asked | None:
        """The answer to `ask`, if it was asked for after `since`."""
        kept = await self._look(key_of(link_id), field_of(ask)) if self._redis.client else None
        if not kept:
            return None
        asked = msgspec.json.decode(kept, type=Asked)
        if asked.sent_at <= since:
            return None
        HITS.labels(vendor).inc()
        return asked

    async def _look(self, key: str, field: str) -> bytes | None:
        look = Look(key, field, asyncio.get_running_loop().create_future())
        self._looks.append(look)
        if len(self._looks) == 1:
            task = asyncio.create_task(self._answer_looks())
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)
        return await look.kept

    async def _answer_looks(self) -> None:
        looks, self._looks = self._looks, []
        try:
            for first in range(0, len(looks), LOOKS_AT_ONCE):
                await self._answer(looks[first : first + LOOKS_AT_ONCE])
        finally:  # whatever went wrong: who finds nothing asks the vendor
            for look in looks:
                if not look.kept.done():
                    look.kept.set_result(None)

    async def _answer(self, looks: Sequence[Look]) -> None:
        found = await self._redis.ask(lambda redis: _read(redis, looks))
        for look, kept in zip(looks, found or [], strict=False):
            if not look.kept.done():
                look.kept.set_result(kept)

    async def keep(self, link_id: int, ask: Ask, asked: Asked) -> None:
        written, script = msgspec.json.encode(asked), self._keep
        if script is None or len(written) > MOST_BYTES:
            return
        numbers: list[str | bytes | int] = [field_of(ask), written, KEPT_SECONDS, MOST_ANSWERS]
        await self._redis.ask(lambda _: cast(Awaitable[int], script(keys=[key_of(link_id)], args=numbers)))


async def _read(redis: Redis, looks: Sequence[Look]) -> list[bytes | None]:
    async with redis.pipeline(transaction=False) as pipeline:
        for look in looks:
            pipeline.hget(look.key, look.field)
        return cast("list[bytes | None]", await pipeline.execute())


def field_of(ask: Ask) -> str:
    return hashlib.blake2b(msgspec.json.encode(ask), digest_size=16).hexdigest()
