import asyncio
import sys

import pytest
from django.conf import settings

from auren.sandbox.grants import Vendor
from auren.sandbox.server import RunningSandbox
from devices.connection import Client, open_client
from devices.limits import RateLimit
from devices.models import Link, Token
from devices.spare_redis import open_redis
from devices.tokens import SPENT, Pool, Tokens, seal, unseal
from devices.vendors.client import Failed, LinkExpired
from tests.devices.conftest import MakeApi, MakeLink

PROFILE = "/v2/user/profile/basic"
DEAD_REDIS = "redis://127.0.0.1:1/0"
VENDORS: list[Vendor] = ["oura", "whoop"]


def refreshes(sandbox: RunningSandbox) -> int:
    return len(sandbox.calls(path="/oauth", method="POST"))


async def status(link: Link) -> str:
    return (await Link.objects.aget(pk=link.pk)).status


async def access_token(link: Link) -> str:
    return unseal((await Token.objects.aget(link=link)).access_token)


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_hundred_tasks_with_one_expired_token_make_one_refresh(
    sandbox: RunningSandbox, connect: MakeLink, tokens: Tokens, vendor: Vendor
) -> None:
    link = await connect(vendor, expires_in=0)
    answers = await asyncio.gather(*(tokens.current(link.pk) for _ in range(100)))
    assert set(answers) == {await access_token(link)}
    assert refreshes(sandbox) == 1


async def test_several_workers_with_one_expired_token_make_one_refresh(
    sandbox: RunningSandbox, connect: MakeLink, pool: Pool, client: Client
) -> None:
    link = await connect("whoop", expires_in=0)
    workers = [Tokens(pool, client) for _ in range(5)]
    answers = await asyncio.gather(*(worker.current(link.pk) for worker in workers for _ in range(20)))
    assert set(answers) == {await access_token(link)}
    assert refreshes(sandbox) == 1


async def test_several_processes_with_one_expired_token_make_one_refresh(
    sandbox: RunningSandbox, connect: MakeLink
) -> None:
    link = await connect("whoop", expires_in=0)
    processes = [await start_process(link, waiters=20) for _ in range(3)]
    assert [await process.stdout.readline() for process in processes if process.stdout] == [b"ready\n"] * 3
    outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    answers = [answer for out, _ in outputs for answer in out.decode().split()]
    assert answers == [await access_token(link)] * 60
    assert refreshes(sandbox) == 1


async def start_process(link: Link, waiters: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.devices.refreshing", str(link.pk), str(waiters)),
        cwd=settings.BASE_DIR,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def test_a_hundred_calls_without_redis_make_one_refresh_and_all_succeed(
    sandbox: RunningSandbox, connect: MakeLink, make_api: MakeApi
) -> None:
    link = await connect("whoop", expires_in=0)
    redis = open_redis(DEAD_REDIS)
    api = make_api("whoop", RateLimit("whoop", [], redis))
    profiles = await asyncio.gather(*(api.for_link(link.pk).get(PROFILE) for _ in range(100)))
    assert len(profiles) == 100
    assert all("user_id" in profile for profile in profiles)
    assert refreshes(sandbox) == 1
    if redis:
        await redis.aclose()


async def test_a_hundred_401s_make_one_refresh(sandbox: RunningSandbox, connect: MakeLink, make_api: MakeApi) -> None:
    link = await connect("whoop")
    await Token.objects.filter(link=link).aupdate(access_token=seal("one-the-vendor-never-gave"))
    api = make_api("whoop")
    await asyncio.gather(*(api.for_link(link.pk).get(PROFILE) for _ in range(100)))
    assert refreshes(sandbox) == 1


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_5xx_of_the_token_endpoint_heals(
    sandbox: RunningSandbox, connect: MakeLink, tokens: Tokens, vendor: Vendor
) -> None:
    link = await connect(vendor, expires_in=0)
    sandbox.script_fault(vendor, "/oauth", status=502)
    with pytest.raises(Failed):
        await tokens.current(link.pk)
    assert await tokens.current(link.pk) == await access_token(link)
    assert await status(link) == "active"


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_reply_that_was_lost_ends_in_a_link_that_says_why_it_expired(
    sandbox: RunningSandbox, connect: MakeLink, tokens: Tokens, vendor: Vendor
) -> None:
    link = await connect(vendor, expires_in=0)
    sandbox.script_fault(vendor, "/oauth", "lose_reply")
    with pytest.raises(Failed) as lost:
        await tokens.current(link.pk)
    assert lost.value.error_class == "connection"
    with pytest.raises(LinkExpired, match=SPENT):
        await tokens.current(link.pk)
    assert await status(link) == "expired"


async def test_a_token_endpoint_that_hangs_is_given_up(
    sandbox: RunningSandbox, connect: MakeLink, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "VENDOR_TIMEOUT", 0.2)
    link = await connect("whoop", expires_in=0)
    sandbox.script_fault("whoop", "/oauth", "hang")
    async with open_client(connections=1) as impatient:
        with pytest.raises(Failed) as error:
            await Tokens(pool, impatient).current(link.pk)
    assert error.value.error_class == "timeout"


async def test_a_revoked_authorization_expires_the_link(
    sandbox: RunningSandbox, connect: MakeLink, make_api: MakeApi
) -> None:
    link = await connect("whoop")
    sandbox.revoke("whoop", "user_1")
    with pytest.raises(LinkExpired):
        await make_api("whoop").for_link(link.pk).get(PROFILE)
    assert await status(link) == "expired"
