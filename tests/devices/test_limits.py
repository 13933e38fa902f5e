import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest
from django.core.exceptions import ImproperlyConfigured
from redis.asyncio import Redis

from devices import spare_redis
from devices.limits import Alone, RateLimit, Window, parse
from devices.spare_redis import SpareRedis, open_redis
from devices.vendors.client import Postponed

HOUR = Window(20, 3600)
TWO = (Window(3, 60), Window(8, 86_400))


class Time:
    def __init__(self) -> None:
        self.now = 10_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def client(redis: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Redis]:
    """A busy machine may keep Redis from answering in a tenth of a second; that is another test's subject."""
    monkeypatch.setattr(spare_redis, "REDIS_SECONDS", 10.0)
    client = open_redis(redis)
    assert client is not None
    yield client
    await client.aclose()


async def goes(limit: RateLimit, calls: int, *, background: bool = False) -> int:
    """How many of that many calls at once are let through."""
    asked = (limit.admit(background=background) for _ in range(calls))
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert all(result is None or isinstance(result, Postponed) for result in results)
    return results.count(None)


async def refusal(limit: RateLimit) -> Postponed:
    with pytest.raises(Postponed) as refused:
        await limit.admit()
    return refused.value


@pytest.mark.parametrize("text", ["", "0", " "])
def test_an_empty_or_zero_limit_is_no_limit(text: str) -> None:
    assert parse(text) == ()


def test_all_windows_of_a_limit_are_read() -> None:
    assert parse("100/60, 10000/86400") == (Window(100, 60), Window(10_000, 86_400))


@pytest.mark.parametrize("text", ["100", "100/", "a/b", "100/60/2", "-1/60", "100/0", "0/60", "1/60,2/60", "5/60,"])
def test_what_is_no_limit_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=text):
        parse(text)


async def test_a_window_lets_exactly_its_count_through_at_once(client: Redis) -> None:
    limit = RateLimit("oura", [HOUR], client)
    assert await goes(limit, 50) == 20


async def test_two_workers_share_one_limit(client: Redis) -> None:
    here, there = RateLimit("oura", [HOUR], client), RateLimit("oura", [HOUR], client)
    assert sum(await asyncio.gather(goes(here, 15), goes(there, 15))) == 20


async def test_each_vendor_and_each_app_has_its_own_limit(client: Redis) -> None:
    for limit in (
        RateLimit("oura", [HOUR], client, app="one"),
        RateLimit("oura", [HOUR], client, app="two"),
        RateLimit("whoop", [HOUR], client, app="one"),
    ):
        assert await goes(limit, 21) == 20


async def test_every_window_is_kept_and_the_fullest_says_the_wait(client: Redis) -> None:
    limit = RateLimit("whoop", TWO, client)
    assert await goes(limit, 5) == 3
    assert 0 < (await refusal(limit)).seconds <= 61
    await client.delete(*[key async for key in client.scan_iter("*:60")])
    assert await goes(limit, 5) == 3
    await client.delete(*[key async for key in client.scan_iter("*:60")])
    assert await goes(limit, 5) == 2
    assert 86_400 - 60 < (await refusal(limit)).seconds <= 86_400 + 1440


async def test_a_refused_call_is_counted_in_no_window(client: Redis) -> None:
    limit = RateLimit("whoop", TWO, client)
    await goes(limit, 30)
    [day] = [key async for key in client.scan_iter("*:86400")]
    assert [int(calls) for calls in await client.hvals(day)] == [3]


async def test_calls_that_are_too_old_leave_the_window_and_redis(client: Redis) -> None:
    limit = RateLimit("oura", [HOUR], client)
    await goes(limit, 1)
    [key] = [key async for key in client.scan_iter("*:3600")]
    part = int(time.time() // 60)
    await client.hset(key, mapping={str(part - 62): 5, str(part - 59): 16})
    assert await goes(limit, 9) == 3
    assert str(part - 62).encode() not in await client.hkeys(key)
    assert (await refusal(limit)).seconds <= 120


async def test_the_keys_expire(client: Redis) -> None:
    limit = RateLimit("whoop", TWO, client)
    await limit.admit()
    await limit.pause(50)
    keys = [key async for key in client.scan_iter("*")]
    assert len(keys) == 3
    for key in keys:
        assert 0 < await client.ttl(key) <= 86_400 * 1.11


async def test_no_limit_lets_everything_through(client: Redis) -> None:
    assert await goes(RateLimit("oura", [], client), 100) == 100


async def test_a_pause_holds_for_every_worker(client: Redis) -> None:
    here, there = RateLimit("oura", [HOUR], client), RateLimit("oura", [], client)
    await here.pause(40)
    assert (await refusal(here)).seconds == pytest.approx(40, abs=1)
    assert (await refusal(there)).seconds == pytest.approx(40, abs=1)


async def test_a_shorter_pause_does_not_cut_a_longer_one(client: Redis) -> None:
    here, there = RateLimit("oura", [], client), RateLimit("oura", [], client)
    await here.pause(40)
    await there.pause(5)
    assert (await refusal(RateLimit("oura", [], client))).seconds == pytest.approx(40, abs=1)


async def test_without_redis_each_process_takes_a_quarter() -> None:
    limit = RateLimit("oura", [HOUR], None)
    assert await goes(limit, 50) == 5


async def test_a_quarter_is_never_nothing() -> None:
    assert await goes(RateLimit("oura", [Window(2, 60)], None), 9) == 1


async def test_without_redis_a_pause_holds_in_the_process() -> None:
    limit = RateLimit("oura", [], None)
    await limit.pause(40)
    assert (await refusal(limit)).seconds == pytest.approx(40, abs=1)


async def test_a_redis_that_refuses_connections_is_as_good_as_none() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = open_redis(f"redis://127.0.0.1:{taken.getsockname()[1]}/0")
        assert client is not None
        assert await goes(RateLimit("oura", [HOUR], client), 50) == 5
        await client.aclose()


async def test_calls_side_by_side_say_once_that_redis_is_away(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = open_redis(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        assert client is not None
        away = SpareRedis(client, "nothing is shared")
        await asyncio.gather(*(away.ask(lambda client: client.get("key")) for _ in range(5)))
        await client.aclose()
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == ["Redis is away"]


async def test_a_redis_that_never_answers_costs_a_tenth_of_a_second_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = open_redis(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        assert client is not None
        limit = RateLimit("oura", [HOUR], client)
        started = time.monotonic()
        passed = [await goes(limit, 1) for _ in range(8)]
        assert time.monotonic() - started < 0.5
        assert sum(passed) == 5
        await client.aclose()


def test_alone_a_call_leaves_after_its_window_and_at_most_a_sixtieth_more() -> None:
    clock = Time()
    alone = Alone([Window(2, 60)], clock)
    assert [alone.admit() for _ in range(2)] == [0.0, 0.0]
    wait = alone.admit()
    assert 60 <= wait <= 61
    clock.now += wait - 0.001
    assert alone.admit() > 0
    clock.now += 0.001
    assert alone.admit() == 0.0


def test_alone_the_wait_ends_when_the_first_call_leaves_not_the_last() -> None:
    clock = Time()
    alone = Alone([Window(2, 60)], clock)
    alone.admit()
    clock.now += 30
    alone.admit()
    assert 30 <= alone.admit() <= 31


async def test_what_can_wait_leaves_half_of_every_window_to_what_cannot(client: Redis) -> None:
    limit = RateLimit("whoop", [HOUR], client)
    assert await goes(limit, 30, background=True) == 10
    assert await goes(limit, 30) == 10


async def test_what_can_wait_stays_away_while_half_is_used_by_others(client: Redis) -> None:
    limit = RateLimit("whoop", [HOUR], client)
    assert await goes(limit, 10) == 10
    assert await goes(limit, 1, background=True) == 0
    assert await goes(limit, 30) == 10


async def test_alone_what_can_wait_takes_half_of_the_quarter() -> None:
    limit = RateLimit("whoop", [HOUR], None)
    assert await goes(limit, 30, background=True) == 2
    assert await goes(limit, 30) == 3
