import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg
import pytest
from django.utils import timezone
from prometheus_client import REGISTRY
from pytest_django import Settings

from auren.sandbox.server import RunningSandbox
from devices.api import VendorApi
from devices.asking import Asking
from devices.breaker import TOO_MANY
from devices.models import Token
from devices.remembered import Remembered
from devices.tokens import Tokens
from devices.vendors.client import Answer, Api, Ask, NotFound
from devices.vendors.whoop.client import fetch as whoop_fetch
from tests.devices.conftest import MakeApi, MakeLink
from tests.devices.listening import Listening, Request, answer, listening

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
CYCLE = Ask("cycle", "user_1", object_id="7")


def test_what_is_saved_is_counted_from_zero_on() -> None:
    counters = ("auren_vendor_calls_saved", "auren_vendor_cache_hits", "auren_token_refreshes_reused")
    Asking({"newcomer": None}, {}, lambda: NOON, Remembered(None), slots=1)  # type: ignore[dict-item]
    assert [REGISTRY.get_sample_value(f"{name}_total", {"vendor": "newcomer"}) for name in counters] == [0, 0, 0]


class Clock:
    """A hand-turned stand-in for PostgreSQL's clock."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def pass_seconds(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


class Vendor:
    """Holds every call until it is released, and numbers the answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)
        self.release = asyncio.Event()
        self.served = 0

    async def __call__(self, request: Request) -> bytes:
        self.served += 1
        number = self.served
        self.asked.release()
        await self.release.wait()
        return answer(200, b'{"number": %d}' % number)


async def fetch(ask: Ask, api: Api) -> Answer:
    return Answer(ask.kind, await api.get(f"/v2/{ask.kind}/{ask.object_id}"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


def asking_of(server: Listening, make_api: MakeApi, settings: Settings, clock: Clock, slots: int = 40) -> Asking:
    settings.WHOOP_API_URL = server.url
    api: VendorApi = make_api("whoop", clock=clock)
    return Asking({"whoop": api}, {"whoop": fetch}, clock, Remembered(None), slots=slots)


def saved() -> float:
    return REGISTRY.get_sample_value("auren_vendor_calls_saved_total", {"vendor": "whoop"}) or 0.0


async def test_deliveries_received_before_the_call_was_sent_share_it(
    make_link: MakeLink, make_api: MakeApi, settings: Settings, clock: Clock, vendor: Vendor
) -> None:
    link, before = await make_link(), saved()
    async with listening(vendor) as server:
        asking = asking_of(server, make_api, settings, clock)
        earlier = [NOON - timedelta(seconds=second) for second in range(1, 6)]
        waiting = [asyncio.create_task(asking.ask("whoop", link.pk, CYCLE, since=at)) for at in earlier]
        await vendor.asked.acquire()
        late = asyncio.create_task(asking.ask("whoop", link.pk, CYCLE, since=earlier[0]))
        await asyncio.sleep(0)
        vendor.release.set()
        answers = [asked.answer.document for asked in await asyncio.gather(*waiting, late)]
    assert answers == [{"number": 1}] * 6
    assert len(server.requests) == 1
    assert saved() == before + 5


@pytest.mark.parametrize("seconds_after", [0, 1])
async def test_a_delivery_received_after_the_call_was_sent_gets_one_of_its_own(
    make_link: MakeLink, make_api: MakeApi, settings: Settings, clock: Clock, vendor: Vendor, seconds_after: int
) -> None:
    link = await make_link()
    async with listening(vendor) as server:
        asking = asking_of(server, make_api, settings, clock)
        first = asyncio.create_task(asking.ask("whoop", link.pk, CYCLE, since=NOON - timedelta(seconds=1)))
        await vendor.asked.acquire()
        since = clock.pass_seconds(seconds_after)
        edits = [asyncio.create_task(asking.ask("whoop", link.pk, CYCLE, since=since)) for _ in range(3)]
        await vendor.asked.acquire()
        vendor.release.set()
        answers = [asked.answer.document["number"] for asked in await asyncio.gather(first, *edits)]
    assert answers == [1, 2, 2, 2]


async def test_no_more_than_the_slots_are_at_the_vendor_and_the_others_hear_when_their_turn_has_come(
    make_link: MakeLink, make_api: MakeApi, settings: Settings, clock: Clock, vendor: Vendor
) -> None:
    link = await make_link()
    begun: list[str] = []
    async with listening(vendor) as server:
        asking = asking_of(server, make_api, settings, clock, slots=2)
        asks = [Ask("cycle", "user_1", object_id=str(number)) for number in range(5)]
        turns = [partial(begun.append, ask.object_id) for ask in asks]
        waiting = [
            asyncio.create_task(asking.ask("whoop", link.pk, ask, since=NOON, begun=turn))
            for ask, turn in zip(asks, turns, strict=True)
        ]
        await vendor.asked.acquire()
        await vendor.asked.acquire()
        assert begun == ["0", "1"]
        assert vendor.served == 2
        vendor.release.set()
        await asyncio.gather(*waiting)
    assert begun == ["0", "1", "2", "3", "4"]


async def test_a_call_that_waits_for_its_turn_serves_a_delivery_that_comes_meanwhile(
    make_link: MakeLink, make_api: MakeApi, settings: Settings, clock: Clock, vendor: Vendor
) -> None:
    link, before = await make_link(), saved()
    begun: list[str] = []
    async with listening(vendor) as server:
        asking = asking_of(server, make_api, settings, clock, slots=1)
        other = Ask("cycle", "user_1", object_id="8")
        first = asyncio.create_task(asking.ask("whoop", link.pk, other, since=NOON))
        await vendor.asked.acquire()
        waits = asyncio.create_task(asking.ask("whoop", link.pk, CYCLE, since=NOON, begun=partial(begun.append, "1")))
        await asyncio.sleep(0)
        since = clock.pass_seconds(5)
        joins = asyncio.create_task(asking.ask("whoop", link.pk, CYCLE, since=since, begun=partial(begun.append, "2")))
        await asyncio.sleep(0)
        clock.pass_seconds(1)
        vendor.release.set()
        await asyncio.gather(first, waits, joins)
    assert vendor.served == 2
    assert begun == ["1", "2"]
    assert saved() == before + 1


async def test_a_call_that_has_ended_answers_nobody_else(
    make_link: MakeLink, make_api: MakeApi, settings: Settings, clock: Clock, vendor: Vendor
) -> None:
    link = await make_link()
    vendor.release.set()
    async with listening(vendor) as server:
        asking = asking_of(server, make_api, settings, clock)
        early = NOON - timedelta(hours=1)
        numbers = [(await asking.ask("whoop", link.pk, CYCLE, since=early)).answer.document["number"] for _ in range(2)]
    assert numbers == [1, 2]


async def test_other_documents_and_other_links_are_other_calls(
    make_link: MakeLink, make_api: MakeApi, settings: Settings, clock: Clock, vendor: Vendor
) -> None:
    one, two = await make_link(), await make_link(user="user_2")
    vendor.release.set()
    asks = [(one, CYCLE), (two, CYCLE), (one, Ask("cycle", "user_1", object_id="8")), (one, Ask("cycle", "user_1"))]
    async with listening(vendor) as server:
        asking = asking_of(server, make_api, settings, clock)
        await asyncio.gather(*(asking.ask("whoop", link.pk, ask, since=NOON) for link, ask in asks))
    assert len(server.requests) == 4


async def test_an_answer_says_when_its_first_call_was_sent(
    make_link: MakeLink, make_api: MakeApi, settings: Settings, clock: Clock, vendor: Vendor
) -> None:
    link = await make_link()
    async with listening(vendor) as server:
        asking = asking_of(server, make_api, settings, clock)
        waiting = asyncio.create_task(asking.ask("whoop", link.pk, CYCLE, since=NOON))
        await vendor.asked.acquire()
        clock.pass_seconds(60)
        vendor.release.set()
        assert (await waiting).sent_at == NOON


async def test_after_a_401_the_second_sending_counts(
    make_link: MakeLink, make_api: MakeApi, settings: Settings, clock: Clock
) -> None:
    async def refuse_once(request: Request) -> bytes:
        if request.method == "POST":
            return answer(200, b'{"access_token": "a", "refresh_token": "r", "expires_in": 60}')
        if request.bearer == "a":
            return answer(200)
        clock.pass_seconds(5)
        return answer(401)

    async with listening(refuse_once) as server:
        link = await make_link(issued_by=f"{server.url}/token")
        asking = asking_of(server, make_api, settings, clock)
        asked = await asking.ask("whoop", link.pk, CYCLE, since=NOON)
    assert asked.sent_at == NOON + timedelta(seconds=5)


async def test_a_waiter_that_is_cancelled_leaves_the_call_to_the_others(
    make_link: MakeLink, make_api: MakeApi, settings: Settings, clock: Clock, vendor: Vendor
) -> None:
    link = await make_link()
    early = NOON - timedelta(seconds=1)
    async with listening(vendor) as server:
        asking = asking_of(server, make_api, settings, clock)
        leaving, staying = (asyncio.create_task(asking.ask("whoop", link.pk, CYCLE, since=early)) for _ in range(2))
        await vendor.asked.acquire()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        vendor.release.set()
        assert (await staying).answer.document == {"number": 1}


async def test_a_fault_is_told_to_all_who_share_the_call(
    connect: MakeLink, sandbox: RunningSandbox, make_api: MakeApi
) -> None:
    link = await connect("whoop")
    asking = Asking({"whoop": make_api("whoop")}, {"whoop": whoop_fetch}, timezone.now, Remembered(None), slots=40)
    missing = Ask("sleep", "user_1", object_id="00000000-0000-4000-8000-000000000000")
    early = timezone.now()
    results = await asyncio.gather(
        *(asking.ask("whoop", link.pk, missing, since=early) for _ in range(5)), return_exceptions=True
    )
    assert all(isinstance(result, NotFound) for result in results)
    assert len(sandbox.calls("whoop", "/developer")) == 1


async def test_closing_cuts_off_what_is_under_way(
    make_link: MakeLink, make_api: MakeApi, settings: Settings, clock: Clock, vendor: Vendor
) -> None:
    link = await make_link()
    async with listening(vendor) as server:
        asking = asking_of(server, make_api, settings, clock)
        waiting = asyncio.create_task(asking.ask("whoop", link.pk, CYCLE, since=NOON))
        await vendor.asked.acquire()
        await asking.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_vendor_that_keeps_failing_is_not_asked_for_tokens_ahead(
    make_link: MakeLink, make_api: MakeApi, settings: Settings, tokens: Tokens, clock: Clock, vendor: Vendor
) -> None:
    async with listening(vendor) as server:
        link = await make_link(issued_by=f"{server.url}/token")
        await Token.objects.aupdate(expires_at=timezone.now())
        settings.WHOOP_API_URL = server.url
        api = make_api("whoop", clock=clock)
        for _ in range(TOO_MANY):
            api.breaker.failed()
        asking = Asking({"whoop": api}, {"whoop": fetch}, clock, Remembered(None), slots=40)
        await asking.expect([("whoop", link.pk)])
        await tokens.close(1)
        assert server.requests == []


async def test_a_postgresql_that_says_nothing_keeps_nobody_from_claiming(
    make_link: MakeLink, make_api: MakeApi, clock: Clock, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = await make_link()
    monkeypatch.setattr("devices.asking.EXPECT_WITHIN", 0.05)
    asking = Asking({"whoop": make_api("whoop", clock=clock)}, {"whoop": fetch}, clock, Remembered(None), slots=40)
    async with await psycopg.AsyncConnection.connect(database) as other:
        await other.execute("LOCK TABLE devices_token IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(5):
            await asking.expect([("whoop", link.pk)])
