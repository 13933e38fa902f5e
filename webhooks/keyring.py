"""API keys of phone uploaders, looked up by digest and remembered for a few seconds."""

import asyncio
from collections import OrderedDict
from time import monotonic

import psycopg

from auren.postgres import Line
from devices.vendors.webhook import Caller

REMEMBERED = 10_000  # digests, right and wrong ones: a flood of wrong keys pushes out only itself
FRESH_FOR = 5.0  # seconds until a revoked key stops working everywhere

FIND = """
SELECT k.owner, k.every_sandbox_user, coalesce(array_agg(p.external_id) FILTER (WHERE p.id IS NOT NULL), '{}')
FROM devices_apikey k
LEFT JOIN devices_apikey_patients kp ON kp.apikey_id = k.id
LEFT JOIN devices_patient p ON p.id = kp.patient_id
WHERE k.digest = %s AND k.revoked_at IS NULL
GROUP BY k.id
"""
USED = """
UPDATE devices_apikey SET last_used_at = now()
WHERE digest = %s AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
"""


class KeyRing:
    """Who may post. `sandbox` lets the sandbox's own key post for every `user_<number>`."""

    def __init__(self, *, sandbox: bool, limit: float) -> None:
        self.sandbox = sandbox
        self.limit = limit
        self._line = Line("key ring", statement_timeout=f"{int(limit * 1000)}ms")
        self._remembered: OrderedDict[bytes, tuple[float, Caller | None]] = OrderedDict()

    async def open(self) -> None:
        await self._line.open()

    async def close(self) -> None:
        await self._line.close()

    async def find(self, digest: bytes) -> Caller | None:
        """The caller behind a key's SHA-256, None for no such key. Raises `psycopg.Error` or `TimeoutError`."""
        remembered = self._remembered.get(digest)
        if remembered and monotonic() - remembered[0] < FRESH_FOR:
            return remembered[1]
        async with asyncio.timeout(self.limit), self._line.use() as connection:
            caller = await self._look_up(connection, digest)
        self._remembered[digest] = (monotonic(), caller)
        self._remembered.move_to_end(digest)
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        return caller

    async def _look_up(self, connection: psycopg.AsyncConnection[tuple[object, ...]], digest: bytes) -> Caller | None:
        row = await (await connection.execute(FIND, [digest])).fetchone()
        if row is None:
            return None
        await connection.execute(USED, [digest])
        owner, every_sandbox_user, patients = row
        return Caller(str(owner), frozenset(patients), sandbox=bool(every_sandbox_user) and self.sandbox)  # type: ignore[call-overload]
