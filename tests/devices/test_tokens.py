import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from asgiref.sync import sync_to_async
from cryptography.fernet import Fernet
from django.conf import settings as current_settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from prometheus_client import REGISTRY
from psycopg_pool import AsyncConnectionPool
from pytest_django import Settings

from devices.connection import Client
from devices.models import Link, Token
from devices.tokens import REFUSED, SPENT, Pool, Tokens, TokenUnreadable, seal, store_grant, unseal
from devices.vendors.client import Ask, Failed, LinkExpired, Postponed
from tests.devices.conftest import MakeLink
from tests.devices.listening import Answers, Listening, Request, answer, listening
from webhooks.clock import DatabaseClock
from webhooks.management.commands.process_deliveries import open_asking

EXPIRED = -100.0


def granted(number: int = 2, **changes: object) -> bytes:
    grant: dict[str, object] = {
        "access_token": f"access-{number}",
        "refresh_token": f"refresh-{number}",
        "expires_in": 3600,
        "token_type": "bearer",
    }
    kept = {name: value for name, value in (grant | changes).items() if value is not None}
    return answer(200, json.dumps(kept).encode())


def refused(error: str = "invalid_grant", status: int = 400) -> bytes:
    return answer(status, json.dumps({"error": error, "error_description": "no"}).encode())


def saying(*answers: bytes) -> Answers:
    """One answer after the other, the last one again and again."""
    left = list(answers)

    async def say(request: Request) -> bytes:
        return left.pop(0) if len(left) > 1 else left[0]

    return say


@asynccontextmanager
async def endpoint(*answers: bytes) -> AsyncIterator[Listening]:
    async with listening(saying(*answers)) as server:
        yield server


async def expire(link: Link) -> None:
    await Token.objects.filter(link=link).aupdate(expires_at=timezone.now() - timedelta(seconds=100))


async def expired_link(make_link: MakeLink, server: Listening, vendor: str = "whoop") -> Link:
    link = await make_link(vendor, issued_by=f"{server.url}/token")
    await expire(link)
    return link


async def status(link: Link) -> str:
    return (await Link.objects.aget(pk=link.pk)).status


async def stored(link: Link) -> tuple[str, str]:
    token = await Token.objects.aget(link=link)
    return unseal(token.access_token), unseal(token.refresh_token)


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


# Keeping them.


async def test_a_grant_is_stored_encrypted(make_link: MakeLink) -> None:
    link = await make_link()
    token = await Token.objects.aget(link=link)
    assert "the-access-token" not in token.access_token
    assert await stored(link) == ("the-access-token", "the-refresh-token")


async def test_a_grant_revives_the_link_and_ends_a_refresh_of_the_old_one(make_link: MakeLink) -> None:
    link = await make_link()
    await Link.objects.filter(pk=link.pk).aupdate(status="expired")
    await Token.objects.filter(link=link).aupdate(refresh_token_lease=uuid4(), refresh_until=timezone.now())
    await sync_to_async(store_grant)(
        link, access_token="a", refresh_token="r", expires_in=60, issued_by="http://127.0.0.1/t", scopes="daily sleep"
    )
    assert (link.status, link.scopes) == ("active", "daily sleep")
    assert await status(link) == "active"
    assert (await Token.objects.aget(link=link)).refresh_token_lease is None


async def test_a_grant_without_scopes_leaves_those_of_the_link(make_link: MakeLink) -> None:
    link = await make_link()
    await Link.objects.filter(pk=link.pk).aupdate(scopes="daily")
    await link.arefresh_from_db()
    await sync_to_async(store_grant)(link, access_token="a", refresh_token="r", expires_in=60, issued_by="x")
    assert link.scopes == "daily"


def test_a_token_opens_with_any_key_and_is_written_with_the_newest(settings: Settings) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.TOKEN_KEYS = (old,)
    sealed = seal("secret")
    settings.TOKEN_KEYS = (new, old)
    assert unseal(sealed) == "secret"
    assert Fernet(new).decrypt(seal("secret")) == b"secret"


def test_without_keys_nothing_is_stored(settings: Settings) -> None:
    settings.TOKEN_KEYS = ()
    with pytest.raises(ImproperlyConfigured, match="TOKEN_KEYS"):
        seal("secret")


@pytest.mark.parametrize("text", ["a-raw-token", "", "gAAAAAB"])
def test_what_does_not_decrypt_is_an_error_and_never_the_raw_text(text: str) -> None:
    with pytest.raises(TokenUnreadable, match="TOKEN_KEYS") as error:
        unseal(text)
    assert error.value.error_class == "token_unreadable"
    assert text not in str(error.value) or not text


async def test_an_unreadable_refresh_token_asks_nobody_and_leaves_no_trace(make_link: MakeLink, tokens: Tokens) -> None:
    async with endpoint(granted()) as server:
        link = await expired_link(make_link, server)
        await Token.objects.filter(link=link).aupdate(refresh_token="raw")
        with pytest.raises(TokenUnreadable):
            await tokens.current(link.pk)
    assert server.requests == []
    assert (await Token.objects.aget(link=link)).refresh_token_lease is None


# Refreshing them.


async def test_a_token_with_time_left_is_used_as_it_is(make_link: MakeLink, tokens: Tokens) -> None:
    link = await make_link(expires_in=120)
    assert await tokens.current(link.pk) == "the-access-token"


async def test_tokens_that_are_expected_are_read_together_and_each_is_good_for_one_use(
    make_link: MakeLink, tokens: Tokens
) -> None:
    links = [await make_link(user=user) for user in ("user_1", "user_2")]
    await tokens.expect([link.pk for link in links])
    await Token.objects.aupdate(access_token=seal("another's refresh"))
    assert [await tokens.current(link.pk) for link in links] == ["the-access-token", "the-access-token"]
    assert [await tokens.current(link.pk) for link in links] == ["another's refresh", "another's refresh"]


async def test_an_expected_token_that_is_not_asked_for_soon_is_read_again(
    make_link: MakeLink, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = await make_link()
    await tokens.expect([link.pk])
    await Token.objects.aupdate(access_token=seal("another's refresh"))
    monkeypatch.setattr("devices.tokens.EXPECTED_SECONDS", 0.0)
    assert await tokens.current(link.pk) == "another's refresh"


async def test_an_expected_token_that_is_about_to_end_is_refreshed_before_anybody_asks_for_it(
    make_link: MakeLink, tokens: Tokens
) -> None:
    async with endpoint(granted()) as server:
        link = await expired_link(make_link, server)
        await tokens.expect([link.pk])
        async with asyncio.timeout(5):
            while await stored(link) != ("access-2", "refresh-2"):
                await asyncio.sleep(0)
        assert await tokens.current(link.pk) == await tokens.current(link.pk) == "access-2"
        assert len(server.requests) == 1


async def test_whoever_asks_while_an_expected_token_is_refreshed_waits_for_that(
    make_link: MakeLink, tokens: Tokens
) -> None:
    async with endpoint(granted()) as server:
        link = await expired_link(make_link, server)
        await tokens.expect([link.pk])
        assert [await tokens.current(link.pk), await tokens.current(link.pk)] == ["access-2", "access-2"]
        assert len(server.requests) == 1


async def test_a_refresh_ahead_that_failed_is_told_to_who_asks_and_not_tried_again_for_them(
    make_link: MakeLink, tokens: Tokens
) -> None:
    async with endpoint(refused("temporarily_unavailable", 503), granted()) as server:
        link = await expired_link(make_link, server)
        await tokens.expect([link.pk])
        with pytest.raises(Failed):
            await tokens.current(link.pk)
        assert len(server.requests) == 1
        assert await tokens.current(link.pk) == "access-2"


async def test_expecting_a_link_that_is_revoked_or_has_no_token_raises_only_when_it_is_used(
    make_link: MakeLink, tokens: Tokens
) -> None:
    revoked, empty = await make_link(user="user_1"), await make_link(user="user_2", access_token="")
    await Link.objects.filter(pk=revoked.pk).aupdate(status="revoked")
    await tokens.expect([revoked.pk, empty.pk])
    for link in (revoked, empty):
        with pytest.raises(LinkExpired):
            await tokens.current(link.pk)


async def test_a_token_is_refreshed_a_minute_ahead_of_its_end(make_link: MakeLink, tokens: Tokens) -> None:
    async with endpoint(granted()) as server:
        link = await make_link(issued_by=f"{server.url}/token")
        now = timezone.now()
        await Token.objects.filter(link=link).aupdate(
            updated_at=now - timedelta(hours=1), expires_at=now + timedelta(seconds=50)
        )
        assert await tokens.current(link.pk) == "access-2"


async def test_a_short_lived_token_is_not_refreshed_at_once_again(make_link: MakeLink, tokens: Tokens) -> None:
    async with endpoint(granted(expires_in=40)) as server:
        link = await expired_link(make_link, server)
        assert [await tokens.current(link.pk) for _ in range(3)] == ["access-2"] * 3
    assert len(server.requests) == 1


async def test_a_refresh_sends_what_rfc_6749_says_and_whoop_the_scope(make_link: MakeLink, tokens: Tokens) -> None:
    async with endpoint(granted()) as server:
        link = await expired_link(make_link, server)
        await tokens.current(link.pk)
    [request] = server.requests
    assert (request.method, request.target) == ("POST", "/token")
    assert request.form == {
        "grant_type": "refresh_token",
        "refresh_token": "the-refresh-token",
        "client_id": current_settings.WHOOP_CLIENT_ID,
        "client_secret": current_settings.WHOOP_CLIENT_SECRET,
        "scope": "offline",
    }
    assert await stored(link) == ("access-2", "refresh-2")


async def test_oura_is_asked_for_no_scope_and_may_keep_its_refresh_token(make_link: MakeLink, tokens: Tokens) -> None:
    async with endpoint(granted(refresh_token=None)) as server:
        link = await expired_link(make_link, server, "oura")
        await tokens.current(link.pk)
    assert "scope" not in server.requests[0].form
    assert await stored(link) == ("access-2", "the-refresh-token")


async def test_whoop_without_a_new_refresh_token_is_used_and_noticed(
    make_link: MakeLink, tokens: Tokens, caplog: pytest.LogCaptureFixture
) -> None:
    before = count("auren_token_refreshes_total", vendor="whoop", outcome="without_refresh_token")
    async with endpoint(granted(refresh_token=None)) as server:
        link = await expired_link(make_link, server)
        assert await tokens.current(link.pk) == "access-2"
    assert await stored(link) == ("access-2", "the-refresh-token")
    assert count("auren_token_refreshes_total", vendor="whoop", outcome="without_refresh_token") == before + 1
    assert "no new refresh token" in caplog.text


async def test_only_expires_in_says_how_long_a_token_lives(make_link: MakeLink, tokens: Tokens) -> None:
    async with endpoint(granted(expires_in="86400")) as server:
        link = await expired_link(make_link, server)
        await tokens.current(link.pk)
    left = (await Token.objects.aget(link=link)).expires_at - timezone.now()
    assert timedelta(hours=23) < left <= timedelta(hours=24)


async def test_without_an_issuer_the_token_url_of_the_settings_is_asked(
    make_link: MakeLink, tokens: Tokens, settings: Settings
) -> None:
    async with endpoint(granted()) as server:
        settings.WHOOP_TOKEN_URL = f"{server.url}/from-the-settings"
        link = await expired_link(make_link, server)
        await Token.objects.filter(link=link).aupdate(issued_by="")
        await tokens.current(link.pk)
    assert server.requests[0].target == "/from-the-settings"


async def test_while_a_secret_rotates_the_second_one_is_tried_too(
    make_link: MakeLink, tokens: Tokens, settings: Settings
) -> None:
    settings.WHOOP_CLIENT_SECRETS = ("new-secret", "old-secret")
    async with endpoint(refused("invalid_client", 401), granted()) as server:
        link = await expired_link(make_link, server)
        assert await tokens.current(link.pk) == "access-2"
    assert [request.form["client_secret"] for request in server.requests] == ["new-secret", "old-secret"]


async def test_an_unknown_client_is_our_fault_and_never_the_patients(make_link: MakeLink, tokens: Tokens) -> None:
    async with endpoint(refused("invalid_client", 401)) as server:
        link = await expired_link(make_link, server)
        with pytest.raises(Failed, match="WHOOP_CLIENT_ID") as error:
            await tokens.current(link.pk)
    assert error.value.error_class == "invalid_client"
    assert await status(link) == "active"


async def test_a_429_of_the_token_endpoint_postpones(make_link: MakeLink, tokens: Tokens) -> None:
    async with endpoint(answer(429, retry_after="33"), granted()) as server:
        link = await expired_link(make_link, server)
        with pytest.raises(Postponed) as error:
            await tokens.current(link.pk)
        assert error.value.seconds == 33
        assert await tokens.current(link.pk) == "access-2"


# After a 401.


async def test_a_401_refreshes_a_token_that_looked_good(make_link: MakeLink, tokens: Tokens) -> None:
    async with endpoint(granted()) as server:
        link = await make_link(issued_by=server.url)
        assert await tokens.after_refusal(link.pk, "the-access-token") == "access-2"


async def test_a_401_after_anothers_refresh_reads_the_token_again_and_asks_nobody(
    make_link: MakeLink, tokens: Tokens
) -> None:
    async with endpoint(granted()) as server:
        link = await make_link(issued_by=server.url)
        assert await tokens.after_refusal(link.pk, "an-older-access-token") == "the-access-token"
    assert server.requests == []


# The patient has to connect again: when, and when not.


@pytest.mark.parametrize(
    "answer_", [refused("invalid_grant"), refused("invalid_request"), refused("invalid_grant", 401)]
)
async def test_a_refused_refresh_token_expires_the_link(make_link: MakeLink, tokens: Tokens, answer_: bytes) -> None:
    async with endpoint(answer_) as server:
        link = await expired_link(make_link, server)
        with pytest.raises(LinkExpired, match=REFUSED):
            await tokens.current(link.pk)
        with pytest.raises(LinkExpired, match=REFUSED):
            await tokens.current(link.pk)
    assert await status(link) == "expired"
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer_", [answer(403), answer(400), answer(400, b"<html>"), refused("invalid_scope")])
async def test_any_other_refusal_is_a_passing_fault(make_link: MakeLink, tokens: Tokens, answer_: bytes) -> None:
    async with endpoint(answer_, granted()) as server:
        link = await expired_link(make_link, server)
        with pytest.raises(Failed, match="answered 40"):
            await tokens.current(link.pk)
        assert await status(link) == "active"
        assert await tokens.current(link.pk) == "access-2"


async def test_a_refusal_while_the_patient_connects_again_expires_nothing(make_link: MakeLink, tokens: Tokens) -> None:
    async def refuse_too_late(request: Request) -> bytes:
        await sync_to_async(store_grant)(
            link, access_token="fresh", refresh_token="fresh-refresh", expires_in=3600, issued_by=server.url
        )
        return refused()

    async with listening(refuse_too_late) as server:
        link = await expired_link(make_link, server)
        assert await tokens.current(link.pk) == "fresh"
    assert await status(link) == "active"
    assert await stored(link) == ("fresh", "fresh-refresh")


async def test_a_late_reply_never_overwrites_a_newer_grant(make_link: MakeLink, tokens: Tokens) -> None:
    async def grant_too_late(request: Request) -> bytes:
        await sync_to_async(store_grant)(
            link, access_token="fresh", refresh_token="fresh-refresh", expires_in=3600, issued_by=server.url
        )
        return granted()

    async with listening(grant_too_late) as server:
        link = await expired_link(make_link, server)
        assert await tokens.current(link.pk) == "fresh"
    assert await stored(link) == ("fresh", "fresh-refresh")


async def test_a_reused_refresh_token_never_expires_the_link_that_another_refreshed(
    make_link: MakeLink, tokens: Tokens, pool: Pool, client: Client
) -> None:
    async def grant_the_second_and_refuse_the_first(request: Request) -> bytes:
        if len(server.requests) > 1:
            return granted()
        await left_behind(link, -1)  # the first one's lease ran out, and another takes over
        assert await Tokens(pool, client).current(link.pk) == "access-2"
        return refused()

    async with listening(grant_the_second_and_refuse_the_first) as server:
        link = await expired_link(make_link, server)
        assert await tokens.current(link.pk) == "access-2"
    assert [request.form["refresh_token"] for request in server.requests] == ["the-refresh-token"] * 2
    assert await status(link) == "active"


async def test_a_revoked_link_stays_revoked(make_link: MakeLink, tokens: Tokens) -> None:
    async def revoke_meanwhile(request: Request) -> bytes:
        await Link.objects.filter(pk=link.pk).aupdate(status="revoked")
        return refused()

    async with listening(revoke_meanwhile) as server:
        link = await expired_link(make_link, server)
        with pytest.raises(LinkExpired, match="revoked"):
            await tokens.current(link.pk)
    assert await status(link) == "revoked"


async def test_a_link_without_a_token_needs_the_patient(make_link: MakeLink, tokens: Tokens) -> None:
    link = await make_link(access_token="")
    with pytest.raises(LinkExpired, match="no token"):
        await tokens.current(link.pk)
    assert await status(link) == "expired"


# Replies that are lost.


@pytest.mark.parametrize(
    "lost",
    [
        b"",
        answer(502),
        answer(200, b"not json"),
        answer(200, b'{"access_token": ""}'),
        answer(302),
        granted(access_token="\u00e9"),
    ],
)
async def test_a_lost_reply_is_a_passing_fault_and_the_next_try_uses_the_token_once_more(
    make_link: MakeLink, tokens: Tokens, lost: bytes
) -> None:
    async with endpoint(lost, granted()) as server:
        link = await expired_link(make_link, server)
        with pytest.raises(Failed):
            await tokens.current(link.pk)
        assert await status(link) == "active"
        assert await tokens.current(link.pk) == "access-2"
    assert [request.form["refresh_token"] for request in server.requests] == ["the-refresh-token"] * 2


async def test_a_refusal_after_a_lost_reply_says_why(make_link: MakeLink, tokens: Tokens) -> None:
    async with endpoint(b"", refused()) as server:
        link = await expired_link(make_link, server)
        with pytest.raises(Failed):
            await tokens.current(link.pk)
        for _ in range(2):
            with pytest.raises(LinkExpired, match=SPENT):
                await tokens.current(link.pk)
    assert await status(link) == "expired"


async def test_a_vendor_that_could_not_be_reached_leaves_no_doubt(make_link: MakeLink, tokens: Tokens) -> None:
    async with endpoint(refused()) as server:
        link = await make_link(issued_by="http://127.0.0.1:1/token")
        await expire(link)
        with pytest.raises(Failed, match="ClientConnectorError"):
            await tokens.current(link.pk)
        await Token.objects.filter(link=link).aupdate(issued_by=server.url)
        with pytest.raises(LinkExpired, match=REFUSED):
            await tokens.current(link.pk)


async def test_a_doubt_outlives_a_vendor_that_could_not_be_reached(make_link: MakeLink, tokens: Tokens) -> None:
    async with endpoint(b"", refused()) as server:
        link = await expired_link(make_link, server)
        with pytest.raises(Failed):
            await tokens.current(link.pk)
        await Token.objects.filter(link=link).aupdate(issued_by="http://127.0.0.1:1/token")
        with pytest.raises(Failed):
            await tokens.current(link.pk)
        await Token.objects.filter(link=link).aupdate(issued_by=server.url)
        with pytest.raises(LinkExpired, match=SPENT):
            await tokens.current(link.pk)


async def left_behind(link: Link, seconds: float) -> None:
    await Token.objects.filter(link=link).aupdate(
        refresh_token_lease=uuid4(), refresh_until=timezone.now() + timedelta(seconds=seconds)
    )


async def test_a_crash_before_the_call_heals_when_the_lease_has_run_out(make_link: MakeLink, tokens: Tokens) -> None:
    async with endpoint(granted()) as server:
        link = await expired_link(make_link, server)
        await left_behind(link, -1)
        assert await tokens.current(link.pk) == "access-2"
    assert (await Token.objects.aget(link=link)).refresh_token_lease is None


async def test_a_crash_after_the_call_says_why_the_patient_must_connect_again(
    make_link: MakeLink, tokens: Tokens
) -> None:
    async with endpoint(refused()) as server:
        link = await expired_link(make_link, server)
        await left_behind(link, -1)
        with pytest.raises(LinkExpired, match=SPENT):
            await tokens.current(link.pk)


async def test_a_lease_that_holds_is_waited_for_only_so_long(make_link: MakeLink, pool: Pool, client: Client) -> None:
    async with endpoint(granted()) as server:
        link = await expired_link(make_link, server)
        await left_behind(link, 60)
        with pytest.raises(Failed, match="did not end") as error:
            await Tokens(pool, client, wait_seconds=0.2).current(link.pk)
    assert error.value.error_class == "refresh_wait"
    assert server.requests == []


async def test_whoever_waits_takes_the_token_that_another_process_refreshed(
    make_link: MakeLink, tokens: Tokens
) -> None:
    link = await make_link()
    await expire(link)
    await left_behind(link, 60)
    before = count("auren_token_refreshes_reused_total", vendor="whoop")
    waiting = [asyncio.create_task(tokens.current(link.pk)) for _ in range(3)]
    while not any(task.get_name() == f"refresh of link {link.pk}" for task in asyncio.all_tasks()):
        await asyncio.sleep(0)
    theirs = timezone.now() + timedelta(hours=1)
    await Token.objects.filter(link=link).aupdate(
        access_token=seal("theirs"), refresh_token_lease=None, expires_at=theirs
    )
    assert await asyncio.gather(*waiting) == ["theirs"] * 3
    assert count("auren_token_refreshes_reused_total", vendor="whoop") > before


# The result is written, whatever happens meanwhile.


async def test_no_connection_is_held_while_the_vendor_takes_its_time(
    make_link: MakeLink, database: str, client: Client
) -> None:
    asked, release = asyncio.Event(), asyncio.Event()

    async def slowly(request: Request) -> bytes:
        asked.set()
        await release.wait()
        return granted()

    one: Pool = AsyncConnectionPool(database, min_size=1, max_size=1, open=False)
    async with one as pool, listening(slowly) as server:
        link = await expired_link(make_link, server)
        waiting = asyncio.create_task(Tokens(pool, client).current(link.pk))
        await asked.wait()
        async with pool.connection(timeout=1) as connection:
            rows = await connection.execute("SELECT refresh_token_lease FROM devices_token")
            assert await rows.fetchone() != (None,)
            held = "SELECT FROM pg_locks WHERE relation = 'devices_token'::regclass AND pid <> pg_backend_pid()"
            assert await (await connection.execute(held)).fetchall() == []
        release.set()
        assert await waiting == "access-2"


async def test_a_waiter_that_leaves_does_not_take_the_refresh_with_it(make_link: MakeLink, tokens: Tokens) -> None:
    asked, release = asyncio.Event(), asyncio.Event()

    async def slowly(request: Request) -> bytes:
        asked.set()
        await release.wait()
        return granted()

    async with listening(slowly) as server:
        link = await expired_link(make_link, server)
        leaving = asyncio.create_task(tokens.current(link.pk))
        await asked.wait()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        release.set()
        await tokens.close(5)
    assert await stored(link) == ("access-2", "refresh-2")


async def test_a_result_is_written_when_postgresql_is_back(
    make_link: MakeLink, tokens: Tokens, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    missed = Missed()
    monkeypatch.setattr(logging.getLogger("devices.tokens"), "handlers", [missed])

    async def grant_and_vanish(request: Request) -> bytes:
        await run(pool, "ALTER TABLE devices_token RENAME TO devices_token_away")
        return granted()

    async def come_back() -> None:
        await missed.event.wait()
        await run(pool, "ALTER TABLE devices_token_away RENAME TO devices_token")

    async with listening(grant_and_vanish) as server:
        link = await expired_link(make_link, server)
        token, _ = await asyncio.gather(tokens.current(link.pk), come_back())
    assert token == "access-2"
    assert await stored(link) == ("access-2", "refresh-2")


async def run(pool: Pool, statement: LiteralString) -> None:
    async with pool.connection() as connection:
        await connection.execute(statement)


class Missed(logging.Handler):
    """Tells when a write was tried in vain."""

    def __init__(self) -> None:
        super().__init__()
        self.event = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.event.set()


async def test_postgresql_being_away_is_told_as_it_is(database: str, client: Client) -> None:
    nowhere: Pool = AsyncConnectionPool(
        "postgresql://auren@127.0.0.1:1/auren", open=False, timeout=0.2, min_size=0, max_size=1
    )
    await nowhere.open()
    try:
        with pytest.raises(psycopg.OperationalError):
            await Tokens(nowhere, client).current(1)
    finally:
        await nowhere.close()


# Nothing leaks.


async def test_no_token_and_no_secret_is_in_a_log_line_or_an_exception(
    make_link: MakeLink, tokens: Tokens, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = json.dumps({"error": "the-refresh-token", "error_description": "the-refresh-token the-access-token"})
    said: list[str] = []
    for reply in (b"", answer(500, echo.encode()), answer(400, echo.encode()), answer(200, echo.encode()), granted()):
        async with endpoint(reply) as server:
            link = await expired_link(make_link, server, "whoop" if not said else f"whoop{len(said)}")
            await Link.objects.filter(pk=link.pk).aupdate(vendor="whoop", vendor_user_id=uuid4().hex)
            said.append(await outcome(tokens.current(link.pk)))
    everything = caplog.text + "".join(said[:-1])
    for secret in ("the-refresh-token", "the-access-token", "access-2", current_settings.WHOOP_CLIENT_SECRET):
        assert secret not in everything


async def outcome(call: Awaitable[Any]) -> str:
    try:
        return str(await call)
    except Failed as error:
        return f"{error!r} {error.__cause__!r} {error.__context__!r}"


async def test_as_many_tokens_are_refreshed_side_by_side_as_deliveries_are_processed(
    make_link: MakeLink, settings: Settings
) -> None:
    settings.MAX_CONCURRENT_WEBHOOKS = 12
    everybody = asyncio.Barrier(12)

    async def say(request: Request) -> bytes:
        if request.target != "/token":
            return answer(200, b"{}")
        await everybody.wait()
        return granted()

    async with listening(say) as server, AsyncExitStack() as stack:
        settings.OURA_API_URL = settings.WHOOP_API_URL = server.url
        links = [await make_link(user=f"user_{number}", issued_by=f"{server.url}/token") for number in range(12)]
        await Token.objects.aupdate(expires_at=timezone.now())
        asking = await open_asking(stack, DatabaseClock(), None)
        asks = (Ask("body_measurement", link.vendor_user_id) for link in links)
        async with asyncio.timeout(5):
            asked = [
                asking.ask("whoop", link.pk, ask, since=timezone.now()) for link, ask in zip(links, asks, strict=True)
            ]
            await asyncio.gather(*asked)
