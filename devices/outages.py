"""When this worker's breakers opened and closed, written down for the admin: another process cannot look inside."""

import asyncio
import logging
from uuid import uuid4

import psycopg

from devices.breaker import State
from devices.tokens import Pool

logger = logging.getLogger(__name__)

# The open one moves on while the vendor keeps failing; without one, this is where it begins.
OPENED = """
WITH moved AS (
    UPDATE devices_outage SET seen_at = clock_timestamp()
    WHERE vendor = %(vendor)s AND worker = %(worker)s AND closed_at IS NULL
    RETURNING id
)
INSERT INTO devices_outage (vendor, worker, opened_at, seen_at)
SELECT %(vendor)s, %(worker)s, clock_timestamp(), clock_timestamp() WHERE NOT EXISTS (SELECT FROM moved)
"""
CLOSED = """
UPDATE devices_outage SET seen_at = clock_timestamp(), closed_at = clock_timestamp()
WHERE vendor = %(vendor)s AND worker = %(worker)s AND closed_at IS NULL
"""


class Outages:
    """One worker's. Writing is best effort and holds nobody up."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._worker = uuid4()
        self._tasks: set[asyncio.Task[None]] = set()

    def note(self, vendor: str, state: State) -> None:
        if state is not State.HALF_OPEN:
            self._start(OPENED if state is State.OPEN else CLOSED, vendor)

    async def close(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, statement: str, vendor: str) -> None:
        task = asyncio.create_task(self._write(statement, vendor))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, statement: str, vendor: str) -> None:
        try:
            async with self._pool.connection() as connection:
                await connection.execute(statement, {"vendor": vendor, "worker": self._worker})
        except psycopg.Error as error:
            logger.info("an outage of %s is not written down: %s", vendor, type(error).__name__)
