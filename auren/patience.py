"""A limit on the time of a call that does not blame the other side for a pause of our own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def time_limit(seconds: float, last_look: float) -> AsyncIterator[None]:
    """Raises `TimeoutError` when `seconds` are over and another `last_look` has shown no answer.

    A process that was stopped, or busy, for longer than the limit finds timer and answer at once when it goes on, and
    asyncio would end the call unread: timers go before sockets.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as timer:
        over = loop.call_later(seconds, lambda: timer.reschedule(loop.time() + last_look))
        try:
            yield
        finally:
            over.cancel()
