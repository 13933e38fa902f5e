import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from devices import spare_redis
from devices.remembered import KEPT_SECONDS, LOOKS_AT_ONCE, MOST_ANSWERS, MOST_BYTES, Asked, Remembered, key_of
from devices.spare_redis import open_redis
from devices.vendors.client import Answer, Ask

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
NIGHT = Ask("sleep", "user_1", object_id="a-night")


@pytest.fixture
async def client(redis: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Redis]:
    monkeypatch.setattr(spare_redis, "REDIS_SECONDS", 10.0)
    client = open_redis(redis)
    assert client is not None
    yield client
    await client.aclose()


def asked(at: datetime = NOON, **document: object) -> Asked:
    return Asked(Answer("sleep", {"id": "a-night", **document}, next_page="more"), at)


async def test_another_worker_finds_what_was_asked_for_after_its_delivery_came(client: Redis) -> None:
    await Remembered(client).keep(7, NIGHT, asked(score=80))
    assert await Remembered(client).find("oura", 7, NIGHT, since=NOON - SECOND) == asked(score=80)


@pytest.mark.parametrize("later", [0, 1, 60])
async def test_an_answer_from_before_the_delivery_came_is_not_found(client: Redis, later: float) -> None:
    await Remembered(client).keep(7, NIGHT, asked())
    assert await Remembered(client).find("oura", 7, NIGHT, since=NOON + timedelta(seconds=later)) is None


async def test_another_link_and_another_question_have_their_own_answers(client: Redis) -> None:
    await Remembered(client).keep(7, NIGHT, asked())
    assert await Remembered(client).find("oura", 8, NIGHT, since=NOON - SECOND) is None
    other = Ask("sleep", "user_1", object_id="another-night")
    assert await Remembered(client).find("oura", 7, other, since=NOON - SECOND) is None


async def test_many_who_look_at_once_find_each_their_own(client: Redis) -> None:
    remembered, links = Remembered(client), range(2 * LOOKS_AT_ONCE + 1)
    for link_id in links[::2]:
        await remembered.keep(link_id, NIGHT, asked(score=link_id))
    found = await asyncio.gather(*(remembered.find("oura", link_id, NIGHT, since=NOON - SECOND) for link_id in links))
    assert found == [None if link_id % 2 else asked(score=link_id) for link_id in links]


async def test_all_answers_of_a_link_lie_under_one_key_and_go_by_themselves(client: Redis) -> None:
    for number in range(3):
        await Remembered(client).keep(7, Ask("sleep", "user_1", object_id=str(number)), asked())
    assert await client.keys("*") == [key_of(7).encode()]
    assert 0 < await client.ttl(key_of(7)) <= KEPT_SECONDS


async def test_a_link_keeps_a_bounded_number_of_answers_of_a_bounded_size(client: Redis) -> None:
    remembered = Remembered(client)
    for number in range(MOST_ANSWERS + 1):
        await remembered.keep(7, Ask("sleep", "user_1", object_id=str(number)), asked())
    assert await client.hlen(key_of(7)) == 1
    await remembered.keep(8, NIGHT, asked(text="x" * MOST_BYTES))
    assert await client.exists(key_of(8)) == 0


async def test_without_redis_nothing_is_remembered_and_nothing_fails() -> None:
    remembered = Remembered(None)
    await remembered.keep(7, NIGHT, asked())
    assert await remembered.find("oura", 7, NIGHT, since=NOON - SECOND) is None


async def test_a_redis_that_is_down_is_as_good_as_none() -> None:
    client = open_redis("redis://127.0.0.1:1/0")
    remembered = Remembered(client)
    await remembered.keep(7, NIGHT, asked())
    assert await remembered.find("oura", 7, NIGHT, since=NOON - SECOND) is None
    assert client is not None
    await client.aclose()
