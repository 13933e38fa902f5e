"""Vendors' answers, kept for a few minutes where all workers find them.

One may serve a delivery only if it was asked for after the delivery came, else an edit is lost. They are health data:
a link's lie under one key, which an erasure deletes, and are gone after five minutes by themselves.
"""

import hashlib
from collections.abc import Awaitable
from datetime import datetime
from typing import cast

import msgspec
from prometheus_client import Counter
from redis.asyncio import Redis

from devices.spare_redis import SpareRedis
from devices.vendors.client import Answer, Ask

KEPT_SECONDS = 300
MOST_BYTES = 256 * 1024  # an answer larger than this is asked for again
MOST_ANSWERS = 64  # of one link; one more, and it starts afresh

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


class Remembered:
    """The answers of all links. Without Redis nothing is remembered, and everything is asked for."""

    def __init__(self, redis: Redis | None) -> None:
        self._redis = SpareRedis(redis, "documents are not shared between workers")
        self._keep = redis.register_script(KEEP) if redis else None

    async def find(self, vendor: str, link_id: int, ask: Ask, *, since: datetime) -> Asked | None:
        """The answer to `ask`, if it was asked for after `since`."""
        kept = await self._redis.ask(lambda redis: redis.hget(key_of(link_id), field_of(ask)))
        if not kept:
            return None
        asked = msgspec.json.decode(kept, type=Asked)
        if asked.sent_at <= since:
            return None
        HITS.labels(vendor).inc()
        return asked

    async def keep(self, link_id: int, ask: Ask, asked: Asked) -> None:
        written, script = msgspec.json.encode(asked), self._keep
        if script is None or len(written) > MOST_BYTES:
            return
        numbers: list[str | bytes | int] = [field_of(ask), written, KEPT_SECONDS, MOST_ANSWERS]
        await self._redis.ask(lambda _: cast(Awaitable[int], script(keys=[key_of(link_id)], args=numbers)))


def field_of(ask: Ask) -> str:
    return hashlib.blake2b(msgspec.json.encode(ask), digest_size=16).hexdigest()
