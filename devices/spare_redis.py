"""Redis as the bridge uses it: good to have, never needed. Nobody waits for it longer than a tenth of a second, and
half as long again for a last look.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from auren.patience import time_limit

REDIS_SECONDS = 0.1
LAST_LOOK_SECONDS = 0.05  # to read what came while this process was busy
CLOSE_SECONDS = 1.0  # and for opening, where nobody waits so long
CONNECTIONS = 8
NOT_ASKED_SECONDS = 1.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


def open_redis(url: str) -> Redis | None:
    """A client for `SpareRedis`, which limits its time; None without an address."""
    if not url:
        return None
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=None,
        socket_timeout=None,
        socket_connect_timeout=CLOSE_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)


class SpareRedis:
    """One use of Redis by one process; `without` says what is done while it is away."""

    def __init__(self, client: Redis | None, without: str) -> None:
        self.client = client
        self._without = without
        self._not_asked_until = 0.0

    async def ask(self, command: Callable[[Redis], Awaitable[T]]) -> T | None:
        """What Redis says, None while it is away: then it is left alone for a second."""
        if self.client is None or time.monotonic() < self._not_asked_until:
            return None
        try:
            async with time_limit(REDIS_SECONDS, LAST_LOOK_SECONDS):
                return await command(self.client)
        except (RedisError, OSError, TimeoutError) as error:
            if time.monotonic() >= self._not_asked_until:  # those who asked meanwhile have nothing to add
                logger.warning("Redis is away (%s): %s", type(error).__name__, self._without)
            self._not_asked_until = time.monotonic() + NOT_ASKED_SECONDS
            return None
