import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from uuid import uuid4

import psycopg
import pytest
from asgiref.sync import sync_to_async
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from django.db.models.functions import Now
from pytest_django import Settings

from auren.sandbox.server import RunningSandbox
from devices import rotation
from devices.models import Link, Token
from devices.rotation import batches, read, write
from devices.tokens import REFUSED, Tokens, TokenUnreadable, seal, unseal
from devices.vendors.client import LinkExpired
from tests.devices.conftest import MakeApi, MakeLink, new_link
from tests.devices.listening import Listening, Request, answer, listening
from tests.webhooks.entry import somebody, somebody_waits

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()
PAIR = ("the-access-token", "the-refresh-token")


@pytest.fixture(autouse=True)
def old_key(settings: Settings) -> None:
    settings.TOKEN_KEYS = (OLD,)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh under way is not waited for."""
    monkeypatch.setattr(rotation, "PATIENCE_SECONDS", 0)


def rotate() -> str:
    out = StringIO()
    call_command("rotate_token_keys", stdout=out, stderr=out)
    return out.getvalue()


def failing() -> str:
    out = StringIO()
    with pytest.raises(CommandError, match="Keep the older keys"):
        call_command("rotate_token_keys", stdout=out, stderr=out)
    return out.getvalue()


def pair(link: Link) -> tuple[str, str]:
    token = Token.objects.get(link=link)
    return unseal(token.access_token), unseal(token.refresh_token)


def links(count: int) -> list[Link]:
    return [new_link(user=f"user_{number}") for number in range(count)]


def test_every_token_opens_with_the_newest_key_alone_afterwards(database: str, settings: Settings) -> None:
    made = links(3)
    settings.TOKEN_KEYS = (NEW, OLD)
    assert rotate() == "3 re-encrypted, 0 were already.\n"
    settings.TOKEN_KEYS = (NEW,)
    assert [pair(link) for link in made] == [PAIR] * 3


def test_a_second_time_there_is_nothing_to_do(database: str, settings: Settings) -> None:
    links(2)
    settings.TOKEN_KEYS = (NEW, OLD)
    rotate()
    before = list(Token.objects.values())
    assert rotate() == "0 re-encrypted, 2 were already.\n"
    assert list(Token.objects.values()) == before


def test_it_goes_on_batch_after_batch(database: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "BATCH", 2)
    links(5)
    settings.TOKEN_KEYS = (NEW, OLD)
    assert rotate() == "5 re-encrypted, 0 were already.\n"


def test_a_pair_of_which_half_is_sealed_with_the_older_key_is_sealed_anew(database: str, settings: Settings) -> None:
    [link] = links(1)
    settings.TOKEN_KEYS = (NEW, OLD)
    Token.objects.update(access_token=seal(PAIR[0]))
    assert rotate() == "1 re-encrypted, 0 were already.\n"
    settings.TOKEN_KEYS = (NEW,)
    assert pair(link) == PAIR


def test_nothing_else_of_the_row_changes(database: str, settings: Settings) -> None:
    links(1)
    kept = ("expires_at", "issued_by", "refresh_token_lease", "refresh_until", "updated_at")
    before = Token.objects.values(*kept).get()
    settings.TOKEN_KEYS = (NEW, OLD)
    rotate()
    assert Token.objects.values(*kept).get() == before


def test_what_no_key_opens_is_listed_by_its_link_and_the_others_are_sealed_anew(
    database: str, settings: Settings
) -> None:
    lost, kept = links(2)
    sealed = Token.objects.get(link=lost).access_token
    Token.objects.filter(link=kept).delete()
    settings.TOKEN_KEYS = (Fernet.generate_key().decode(),)
    again = new_link("oura", user="user_1")
    settings.TOKEN_KEYS = (NEW, *settings.TOKEN_KEYS)
    said = failing()
    assert said.startswith("1 re-encrypted, 0 were already.\n1 open with none of TOKEN_KEYS")
    assert said.endswith(f"connected again: {lost.pk}.\n")
    assert sealed not in said
    assert Token.objects.get(link=lost).access_token == sealed
    assert pair(again) == PAIR


def test_without_keys_it_says_so(database: str, settings: Settings) -> None:
    settings.TOKEN_KEYS = ()
    with pytest.raises(CommandError, match="TOKEN_KEYS is not set"):
        call_command("rotate_token_keys")


def test_a_newer_pair_is_never_overwritten(database: str, settings: Settings) -> None:
    [link] = links(1)
    settings.TOKEN_KEYS = (NEW, OLD)
    [[seen]] = batches()
    Token.objects.update(access_token=seal("newer"), refresh_token=seal("newer-still"))
    assert write([(*seen, seal(PAIR[0]), seal(PAIR[1]))]) == set()
    assert pair(link) == ("newer", "newer-still")


def test_a_trace_that_a_refresh_left_stays(database: str, settings: Settings) -> None:
    """A lease that ran out says that the refresh token may be spent."""
    [link] = links(1)
    Token.objects.update(refresh_token_lease=uuid4(), refresh_until=Now())
    before = Token.objects.values("refresh_token_lease", "refresh_until").get()
    settings.TOKEN_KEYS = (NEW, OLD)
    assert rotate() == "1 re-encrypted, 0 were already.\n"
    assert Token.objects.values("refresh_token_lease", "refresh_until").get() == before
    assert read([link.pk])


# Beside a refresh

rotating = sync_to_async(rotate)
ending_busy = sync_to_async(failing)
pair_of = sync_to_async(pair)


class Endpoint:
    """A token endpoint that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.reply = answer(200, b'{"access_token": "new-access", "refresh_token": "new-refresh", "expires_in": 60000}')

    async def __call__(self, request: Request) -> bytes:
        self.asked.set()
        await self.go.wait()
        return self.reply


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
async def server(endpoint: Endpoint) -> AsyncIterator[Listening]:
    async with listening(endpoint) as server:
        yield server


@asynccontextmanager
async def refreshing(tokens: Tokens, link: Link, endpoint: Endpoint) -> AsyncIterator[asyncio.Task[str]]:
    """The vendor has been asked, and has not answered before the block ends."""
    refresh = asyncio.create_task(tokens.current(link.pk))
    await endpoint.asked.wait()
    yield refresh
    endpoint.go.set()
    await asyncio.wait([refresh])


@pytest.mark.usefixtures("quick")
async def test_a_refresh_under_way_keeps_its_new_pair(
    make_link: MakeLink, tokens: Tokens, endpoint: Endpoint, server: Listening, settings: Settings
) -> None:
    link = await make_link(expires_in=0, issued_by=server.url)
    settings.TOKEN_KEYS = (NEW, OLD)
    async with refreshing(tokens, link, endpoint) as refresh:
        said = await ending_busy()
    assert said.startswith("0 re-encrypted, 0 were already.\n1 are being refreshed at this moment")
    assert said.endswith(f"links {link.pk}.\n")
    assert await refresh == "new-access"
    settings.TOKEN_KEYS = (NEW,)
    assert await pair_of(link) == ("new-access", "new-refresh")
    assert await rotating() == "0 re-encrypted, 1 were already.\n"


@pytest.mark.usefixtures("quick")
async def test_a_refresh_that_is_refused_meanwhile_expires_the_link_and_says_why(
    make_link: MakeLink, tokens: Tokens, endpoint: Endpoint, server: Listening, settings: Settings
) -> None:
    link = await make_link(expires_in=0, issued_by=server.url)
    endpoint.reply = answer(400, b'{"error": "invalid_grant"}')
    settings.TOKEN_KEYS = (NEW, OLD)
    async with refreshing(tokens, link, endpoint) as refresh:
        await ending_busy()
    with pytest.raises(LinkExpired, match=REFUSED):
        await refresh
    assert (await Link.objects.aget(pk=link.pk)).status == "expired"
    assert await rotating() == "1 re-encrypted, 0 were already.\n"


async def test_it_waits_for_a_refresh_under_way(
    make_link: MakeLink, tokens: Tokens, endpoint: Endpoint, server: Listening, settings: Settings
) -> None:
    link = await make_link(expires_in=0, issued_by=server.url)
    settings.TOKEN_KEYS = (NEW, OLD)
    async with refreshing(tokens, link, endpoint):
        whole = asyncio.create_task(rotating())
        endpoint.go.set()
        assert (await whole).endswith("1 were already.\n")


async def test_a_refresh_that_read_the_row_before_and_leases_it_after_harms_nothing(
    database: str,
    sandbox: RunningSandbox,
    connect: MakeLink,
    make_api: MakeApi,
    settings: Settings,
) -> None:
    """The lease is for the row as it was read: it is refused, and the worker looks at the row again."""
    link = await connect("whoop", expires_in=0)
    settings.TOKEN_KEYS = (NEW, OLD)
    async with somebody() as holder, somebody() as looking:
        async with holder.transaction():
            await hold(holder, link)
            asking = asyncio.create_task(make_api("whoop").for_link(link.pk).get("/v2/user/profile/basic"))
            await somebody_waits(looking)
            rotation_of_it = asyncio.create_task(rotating())
            await asyncio.wait([rotation_of_it], timeout=0)
        assert "user_id" in await asking
        await rotation_of_it
    assert await rotating() == "0 re-encrypted, 1 were already.\n"
    assert (await Link.objects.aget(pk=link.pk)).status == "active"


async def hold(holder: psycopg.AsyncConnection[object], link: Link) -> None:
    await holder.execute("SELECT FROM devices_token WHERE link_id = %s FOR UPDATE", [link.pk])


async def test_a_token_rotated_under_a_worker_that_saw_the_old_text_is_refreshed_once(
    sandbox: RunningSandbox, connect: MakeLink, tokens: Tokens, settings: Settings
) -> None:
    link = await connect("whoop", expires_in=0)
    settings.TOKEN_KEYS = (NEW, OLD)
    stale = await tokens._read(link.pk)
    await rotating()
    first = await tokens._renewed(link.pk, stale)
    assert first == (await pair_of(link))[0]
    assert await tokens.current(link.pk) != first
    assert len(sandbox.calls("whoop", "/oauth", method="POST")) == 1


@pytest.fixture
def unreadable(database: str, settings: Settings) -> Link:
    [link] = links(1)
    settings.TOKEN_KEYS = (NEW,)
    return link


def test_a_key_taken_away_too_soon_is_an_error_and_never_raw_text(unreadable: Link) -> None:
    with pytest.raises(TokenUnreadable):
        pair(unreadable)
