"""OAuth tokens: kept encrypted, refreshed once for everybody, and never lost for want of a second write.

Refresh tokens are single use, so a refresh runs under a lease that is committed to `devices_token` before the vendor
is called. A lease that nobody cleared is the trace that the stored refresh token may be spent.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from math import inf
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.db.models import Case, F, When
from django.db.models.functions import Now
from prometheus_client import Counter
from psycopg.rows import TupleRow, class_row
from psycopg_pool import AsyncConnectionPool

from devices.connection import Client, longest_call_seconds
from devices.models import Link, Token
from devices.token_endpoint import Fate, Grant, RefreshFailed, refresh
from devices.vendors.client import Failed, LinkExpired

LOOK_AGAIN_SECONDS = 0.05
EXPECTED_SECONDS = 2.0  # a token that was not due so long ago is still good
# A reply that was not written is a patient who must connect again: this outlasts a failover of PostgreSQL.
INSIST_SECONDS = 60.0
RECONNECT = "the patient must connect again"
SPENT = f"the reply to an earlier refresh was lost and the vendor counts the token as used: {RECONNECT}"
REFUSED = f"the vendor refused the refresh token: {RECONNECT}"

REFRESHES = Counter("auren_token_refreshes", "OAuth refreshes, by what came of them", ["vendor", "outcome"])
REUSED = Counter("auren_token_refreshes_reused", "Waits that ended with a token another had refreshed", ["vendor"])

logger = logging.getLogger(__name__)
Pool = AsyncConnectionPool[psycopg.AsyncConnection[TupleRow]]


class TokenUnreadable(Failed):
    """A stored token that no key of TOKEN_KEYS opens. Nothing is sent in its place."""

    def __init__(self) -> None:
        super().__init__(
            "a stored token opens with none of TOKEN_KEYS: put the key it was written with back, as the last one",
            error_class="token_unreadable",
        )


def seal(token: str) -> str:
    """`token` encrypted with the newest key."""
    return _cipher(tuple(settings.TOKEN_KEYS)).encrypt(token.encode()).decode()


def unseal(sealed: str) -> str:
    """The token in `sealed`. Raises `TokenUnreadable`."""
    try:
        return _cipher(tuple(settings.TOKEN_KEYS)).decrypt(sealed.encode()).decode()
    except (InvalidToken, UnicodeError):
        raise TokenUnreadable from None


@lru_cache(maxsize=4)
def _cipher(keys: tuple[str, ...]) -> MultiFernet:
    if not keys:
        raise ImproperlyConfigured("TOKEN_KEYS is not set: without it no vendor token can be stored or read.")
    return MultiFernet([Fernet(key) for key in keys])


def store_grant(
    link: Link, *, access_token: str, refresh_token: str, expires_in: float, issued_by: str, scopes: str | None = None
) -> None:
    """Keep what a patient granted and make the link active. A refresh under way for the old grant writes nothing.

    `expires_in` is in seconds; `issued_by` is the token URL, where refreshes will go; `scopes` as the vendor wrote
    them, None leaves the link's as they are.
    """
    life = timedelta(seconds=Grant(access_token, expires_in=expires_in).life_seconds)
    with transaction.atomic():
        Token.objects.update_or_create(
            link=link,
            defaults={
                "access_token": seal(access_token),
                "refresh_token": seal(refresh_token),
                "expires_at": Now() + life,
                "issued_by": issued_by,
                "refresh_token_lease": None,
                "refresh_until": None,
                "updated_at": Now(),
            },
        )
        Link.objects.filter(pk=link.pk).update(
            status="active",
            status_since=Case(When(status="active", then=F("status_since")), default=Now()),
            connected_at=Now(),
            scopes=link.scopes if scopes is None else scopes,
        )
    link.refresh_from_db(fields=["status", "status_since", "connected_at", "scopes"])


# A token is due a minute before its end, or a tenth of its life before when that is less.
READ = """
    SELECT token.link_id, link.vendor, link.status, token.access_token, token.refresh_token, token.issued_by,
           token.expires_at - least(interval '60 seconds', (token.expires_at - token.updated_at) / 10) <= now() AS due,
           token.refresh_token_lease AS lease,
           token.refresh_token_lease IS NOT NULL AND token.refresh_until > now() AS leased
    FROM devices_token AS token JOIN devices_link AS link ON link.id = token.link_id
    WHERE token.link_id = ANY(%(links)s)
"""
# Only from the row as it was read: an access token is sealed anew, and so differs, each time it is written.
TAKE_LEASE = """
    UPDATE devices_token
    SET refresh_token_lease = %(lease)s, refresh_until = clock_timestamp() + %(lease_seconds)s * interval '1 second'
    WHERE link_id = %(link)s AND access_token = %(seen)s AND refresh_token_lease IS NOT DISTINCT FROM %(seen_lease)s
      AND (refresh_token_lease IS NULL OR refresh_until <= clock_timestamp())
"""
# The life counts from when the lease was taken, which is just before the vendor was asked.
KEEP_GRANT = """
    UPDATE devices_token
    SET access_token = %(access)s, refresh_token = coalesce(%(refresh)s, refresh_token),
        expires_at = refresh_until + (%(life_seconds)s - %(lease_seconds)s) * interval '1 second',
        updated_at = clock_timestamp(), refresh_token_lease = NULL, refresh_until = NULL
    WHERE link_id = %(link)s AND refresh_token_lease = %(lease)s
"""
GIVE_LEASE_BACK = """
    UPDATE devices_token
    SET refresh_token_lease = CASE WHEN %(trace)s THEN refresh_token_lease END, refresh_until = clock_timestamp()
    WHERE link_id = %(link)s AND refresh_token_lease = %(lease)s
"""
# A connection made anew, or refreshed by another, in the meantime has another refresh token, and stays.
EXPIRE_LINK = """
    WITH refused AS (
        UPDATE devices_token
        SET refresh_token_lease = CASE WHEN %(trace)s THEN refresh_token_lease END, refresh_until = clock_timestamp()
        WHERE link_id = %(link)s AND refresh_token_lease = %(lease)s AND refresh_token = %(refused)s
        RETURNING link_id
    )
    UPDATE devices_link SET status = 'expired', status_since = clock_timestamp()
    WHERE id IN (SELECT link_id FROM refused) AND status <> 'revoked'
"""
EXPIRE_UNCONNECTED = """
    UPDATE devices_link SET status = 'expired', status_since = clock_timestamp()
    WHERE id = %(link)s AND status IN ('active', 'stale')
      AND NOT EXISTS (SELECT FROM devices_token WHERE link_id = %(link)s)
"""


class Stored(msgspec.Struct, frozen=True):
    """A row of `devices_token` as it was read, still sealed. A lease that is not `leased` ran out: it is a trace."""

    link_id: int
    vendor: str
    status: str
    access_token: str
    refresh_token: str
    issued_by: str
    due: bool
    lease: UUID | None
    leased: bool

    @property
    def may_be_spent(self) -> bool:
        return self.lease is not None and not self.leased

    @property
    def usable(self) -> bool:
        return self.status not in {"expired", "revoked"}

    def check_link(self) -> None:
        if self.status == "expired":
            raise LinkExpired(SPENT if self.may_be_spent else REFUSED)
        if self.status == "revoked":
            raise LinkExpired(f"the link was revoked: {RECONNECT}")


class Tokens:
    """The tokens of all links, for one worker process.

    Every method raises what psycopg raises when PostgreSQL is away, `LinkExpired` when only the patient can help,
    `Failed` for a passing fault and `Postponed` when the token endpoint says to wait.
    """

    def __init__(self, pool: Pool, client: Client, *, wait_seconds: float | None = None) -> None:
        """`wait_seconds` bounds the wait for another's refresh: a little longer than a refresh takes, if not given."""
        self._pool = pool
        self._client = client
        self._wait_seconds = longest_call_seconds() + 2 if wait_seconds is None else wait_seconds
        # Two secrets may be tried, and the result be written until long after.
        self._lease_seconds = 2 * longest_call_seconds() + INSIST_SECONDS
        self._renewals: dict[str, asyncio.Task[str]] = {}
        self._expected: dict[int, tuple[float, Stored | asyncio.Task[str]]] = {}

    async def expect(self, link_ids: Collection[int]) -> None:
        """Read together what `current` will be asked for in a moment, and begin to refresh what is about to end.

        Each is used once, if it is asked for soon, and so is what came of its refresh, a fault too.
        """
        rows = await self._rows(link_ids)
        now = time.monotonic()
        fresh = {link: each for link, each in self._expected.items() if now - each[0] < EXPECTED_SECONDS}
        self._expected = fresh | {stored.link_id: (now, self._prepared(stored)) for stored in rows}

    def _prepared(self, stored: Stored) -> Stored | asyncio.Task[str]:
        if not stored.due or not stored.usable:
            return stored
        return self._renewals.get(stored.access_token) or self._start_renewal(stored.link_id, stored.access_token)

    async def current(self, link_id: int) -> str:
        """An access token that is good for a while yet, refreshed if it was about to end."""
        expected_at, expected = self._expected.pop(link_id, (-inf, None))
        if expected is None or time.monotonic() - expected_at >= EXPECTED_SECONDS:
            expected = await self._read(link_id)
        if isinstance(expected, asyncio.Task):
            return await asyncio.shield(expected)
        expected.check_link()
        return await self._renewed(link_id, expected) if expected.due else unseal(expected.access_token)

    async def after_refusal(self, link_id: int, refused_access_token: str) -> str:
        """Another access token than the one the vendor just refused: the stored one if it differs, else a new one."""
        stored = await self._read(link_id)
        access_token = unseal(stored.access_token)
        if access_token == refused_access_token:
            return await self._renewed(link_id, stored)
        REUSED.labels(stored.vendor).inc()
        return access_token

    async def close(self, grace_seconds: float) -> None:
        """Let refreshes under way end; one that takes longer is cut off, and its lease stays as the trace."""
        running = set(self._renewals.values())
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=grace_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _renewed(self, link_id: int, stale: Stored) -> str:
        """All in this process who saw the same token wait for one task, which outlives any of them."""
        task = self._renewals.get(stale.access_token)
        if task is None:
            return await asyncio.shield(self._start_renewal(link_id, stale.access_token))
        access_token = await asyncio.shield(task)
        REUSED.labels(stale.vendor).inc()
        return access_token

    def _start_renewal(self, link_id: int, stale: str) -> asyncio.Task[str]:
        task = asyncio.create_task(self._renew(link_id, stale), name=f"refresh of link {link_id}")
        self._renewals[stale] = task
        task.add_done_callback(lambda done: self._forget(stale, done))
        return task

    def _forget(self, stale: str, done: asyncio.Task[str]) -> None:
        del self._renewals[stale]
        if not done.cancelled():
            done.exception()  # nobody may be left to hear of it

    async def _renew(self, link_id: int, stale: str) -> str:
        """Refresh, or wait until another has: whatever replaces the sealed access token `stale`."""
        deadline = time.monotonic() + self._wait_seconds
        while time.monotonic() < deadline:
            stored = await self._read(link_id)
            if stored.access_token != stale:
                REUSED.labels(stored.vendor).inc()
                return unseal(stored.access_token)
            access_token = None if stored.leased else await self._refresh(link_id, stored)
            if access_token is not None:
                return access_token
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        raise Failed(
            f"another refresh of this link's token did not end within {self._wait_seconds:g} s",
            error_class="refresh_wait",
        )

    async def _refresh(self, link_id: int, stored: Stored) -> str | None:
        """One refresh under a lease of our own; None when the lease went to another, before or during it."""
        refresh_token = unseal(stored.refresh_token)
        mine = {"link": link_id, "lease": uuid4(), "lease_seconds": self._lease_seconds}
        if not await self._execute(TAKE_LEASE, {**mine, "seen": stored.access_token, "seen_lease": stored.lease}):
            return None
        try:
            grant = await refresh(self._client, stored.vendor, self._token_url(stored), refresh_token)
        except RefreshFailed as failure:
            await self._give_up(stored, mine, failure)
            return None
        return await self._keep(stored, mine, grant)

    def _token_url(self, stored: Stored) -> str:
        return stored.issued_by or str(getattr(settings, f"{stored.vendor.upper()}_TOKEN_URL"))

    async def _keep(self, stored: Stored, mine: Mapping[str, Any], grant: Grant) -> str | None:
        written = await self._insist(
            KEEP_GRANT,
            {
                **mine,
                "access": seal(grant.access_token),
                "refresh": seal(grant.refresh_token) if grant.refresh_token else None,
                "life_seconds": grant.life_seconds,
            },
        )
        if written and not grant.refresh_token and stored.vendor == "whoop":
            logger.warning("WHOOP sent no new refresh token for link %s: the old one stays", mine["link"])
            REFRESHES.labels(stored.vendor, "without_refresh_token").inc()
        else:
            REFRESHES.labels(stored.vendor, "refreshed" if written else "overtaken").inc()
        return grant.access_token if written else None

    async def _give_up(self, stored: Stored, mine: Mapping[str, Any], failure: RefreshFailed) -> None:
        """Write down what the failure means. Returns when another's token stands in the row by now, else raises."""
        REFRESHES.labels(stored.vendor, failure.fate.value).inc()
        if failure.fate is Fate.REFUSED:
            refused = {**mine, "trace": stored.may_be_spent, "refused": stored.refresh_token}
            if await self._insist(EXPIRE_LINK, refused):
                raise LinkExpired(SPENT if stored.may_be_spent else REFUSED)
            return
        trace = stored.may_be_spent or failure.fate is Fate.UNKNOWN
        await self._insist(GIVE_LEASE_BACK, {**mine, "trace": trace})
        raise failure.cause

    async def _read(self, link_id: int) -> Stored:
        rows = await self._rows([link_id])
        if not rows:
            await self._execute(EXPIRE_UNCONNECTED, {"link": link_id})
            raise LinkExpired(f"no token is stored for this link: {RECONNECT}")
        rows[0].check_link()
        return rows[0]

    async def _rows(self, link_ids: Collection[int]) -> list[Stored]:
        async with self._pool.connection() as connection, connection.cursor(row_factory=class_row(Stored)) as cursor:
            await cursor.execute(READ, {"links": list(link_ids)})
            return await cursor.fetchall()

    async def _execute(self, sql: str, values: Mapping[str, Any], pool_seconds: float | None = None) -> bool:
        """Commit one statement; whether it changed a row."""
        async with self._pool.connection(pool_seconds) as connection:
            return (await connection.execute(sql, values)).rowcount > 0

    async def _insist(self, sql: str, values: Mapping[str, Any]) -> bool:
        """`_execute`, again and again until PostgreSQL takes it, for a minute. A commit whose answer was lost is safe
        to repeat: the lease it asks for is gone by then."""
        deadline = time.monotonic() + INSIST_SECONDS
        pause = LOOK_AGAIN_SECONDS
        while time.monotonic() + pause < deadline:
            with suppress(psycopg.Error):
                return await self._execute(sql, values, pool_seconds=5)
            logger.warning("The result of a token refresh for link %s is not written yet", values["link"])
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2.0)
        return await self._execute(sql, values, pool_seconds=5)
