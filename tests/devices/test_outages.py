from collections.abc import AsyncIterator

import pytest
from asgiref.sync import sync_to_async

from devices.breaker import OPEN_SECONDS, TOO_MANY, Breaker
from devices.models import Outage
from devices.outages import Outages
from devices.tokens import Pool
from devices.vendors.client import Postponed


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def outages(pool: Pool) -> AsyncIterator[Outages]:
    outages = Outages(pool)
    yield outages
    await outages.close()


async def written(outages: Outages) -> list[Outage]:
    await outages.close()
    return await sync_to_async(lambda: list(Outage.objects.order_by("id")))()


def open_up(breaker: Breaker) -> None:
    for _ in range(TOO_MANY):
        breaker.failed()


async def test_an_outage_begins_with_the_breaker_and_ends_with_an_answer(outages: Outages) -> None:
    clock = Time()
    breaker = Breaker("oura", clock, outages.note)
    open_up(breaker)
    [outage] = await written(outages)
    assert (outage.vendor, outage.closed_at) == ("oura", None)
    clock.now += OPEN_SECONDS
    with breaker.admitted():
        breaker.answered()
    [outage] = await written(outages)
    assert outage.closed_at is not None
    assert outage.closed_at >= outage.opened_at


async def test_a_vendor_that_keeps_failing_is_one_outage_that_was_seen_lately(outages: Outages) -> None:
    clock = Time()
    breaker = Breaker("whoop", clock, outages.note)
    open_up(breaker)
    [first] = await written(outages)
    clock.now += OPEN_SECONDS
    with breaker.admitted():
        breaker.failed()
    [outage] = await written(outages)
    assert (outage.opened_at, outage.closed_at) == (first.opened_at, None)
    assert outage.seen_at > first.seen_at


async def test_every_worker_writes_down_its_own(pool: Pool, outages: Outages) -> None:
    other = Outages(pool)
    open_up(Breaker("oura", Time(), outages.note))
    open_up(Breaker("oura", Time(), other.note))
    await other.close()
    assert len({outage.worker for outage in await written(outages)}) == 2


async def test_a_database_that_is_away_keeps_no_breaker_from_opening(pool: Pool) -> None:
    outages = Outages(pool)
    await pool.close()
    breaker = Breaker("oura", Time(), outages.note)
    open_up(breaker)
    await outages.close()
    with pytest.raises(Postponed), breaker.admitted():
        pass
