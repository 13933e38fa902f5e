"""API keys of phone uploaders, looked up by digest and remembered for a few seconds."""

import asyncio
from collections import OrderedDict
from time import monotonic

import psycopg

from auren.postgres import Line
from devices.vendors.webhook import Caller

REMEMBERED = 10_000  # digests, right and wrong ones: a flood of wrong keys pushes out only itself
FRESH_FOR = 5.0  # seconds until a revoked key stops working everywhere
MOST_LOOKINGS = 1_000  # keys being looked up at once: a flood of wrong ones must not pile up behind a slow PostgreSQL

FIND = """
SELECT k.owner, k.every_sandbox_user, coalesce(array_agg(p.external_id) FILTER (WHERE p.id IS NOT NULL), '{}')
FROM devices_apikey k
LEFT JOIN devices_apikey_patients kp ON kp.apikey_id = k.id
LEFT JOIN devices_patient p ON p.id = kp.patient_id
WHERE k.digest = %s AND k.revoked_at IS NULL AND (%s OR NOT k.every_sandbox_user)
GROUP BY k.id
"""
# A row that somebody else holds is left alone: a batch does not wait for a note about its key.
USED = """
UPDATE devices_apikey SET last_used_at = now()
WHERE id = (
    SELECT id FROM devices_apikey
    WHERE digest = %s AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
    FOR UPDATE SKIP LOCKED
)
"""


class KeyRing:
    """Who may post. The sandbox's own key, good for every `user_<number>`, is a key at all in the `sandbox` only."""

    def __init__(self, *, sandbox: bool, limit: float) -> None:
        self.sandbox = sandbox
        self.limit = limit
        self._line = Line("key ring", statement_timeout=f"{int(limit * 1000)}ms")
        self._remembered: OrderedDict[bytes, tuple[float, Caller | None]] = OrderedDict()
        self._looking: dict[bytes, asyncio.Task[Caller | None]] = {}

    async def open(self) -> None:
        await self._line.open()

    async def close(self) -> None:
        looking = list(self._looking.values())
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)
        await self._line.close()

    async def find(self, digest: bytes) -> Caller | None:
        """The caller behind a key's SHA-256, None for no such key. Raises `psycopg.Error` or `TimeoutError`.

        All who show one key share one look-up. It is shielded from them: psycopg takes up to ten seconds to cancel a
        statement that PostgreSQL does not answer, and nobody is to wait that long.
        """
        remembered = self._remembered.get(digest)
        if remembered and monotonic() - remembered[0] < FRESH_FOR:
            return remembered[1]
        looking = self._looking.get(digest) or self._look(digest)
        async with asyncio.timeout(self.limit):
            return await asyncio.shield(looking)

    def _look(self, digest: bytes) -> asyncio.Task[Caller | None]:
        if len(self._looking) >= MOST_LOOKINGS:
            raise TimeoutError
        task = self._looking[digest] = asyncio.create_task(self._look_up(digest))
        task.add_done_callback(lambda done: self._looked(digest, done))
        return task

    def _looked(self, digest: bytes, done: asyncio.Task[Caller | None]) -> None:
        del self._looking[digest]
        if not done.cancelled():
            done.exception()  # whoever still waits hears of it; nobody else has to

    async def _look_up(self, digest: bytes) -> Caller | None:
        asked_at = monotonic()
        async with asyncio.timeout(2 * self.limit), self._line.use() as connection:
            caller = await self._ask(connection, digest)
        self._remembered[digest] = (asked_at, caller)
        self._remembered.move_to_end(digest)
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        return caller

    async def _ask(self, connection: psycopg.AsyncConnection[tuple[object, ...]], digest: bytes) -> Caller | None:
        row = await (await connection.execute(FIND, [digest, self.sandbox])).fetchone()
        if row is None:
            return None
        await connection.execute(USED, [digest])
        owner, every_sandbox_user, patients = row
        return Caller(str(owner), frozenset(patients), sandbox=bool(every_sandbox_user))  # type: ignore[call-overload]
