import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import REGISTRY
from pytest_django import Settings

from auren.sandbox.server import RunningSandbox
from devices.breaker import State
from devices.limits import RateLimit, Window
from devices.vendors.client import ApiError, Failed, NotFound, Postponed, Rejected
from tests.devices.conftest import MakeApi, MakeLink
from tests.devices.listening import Answers, Request, answer, listening

PROFILE = "/v2/user/profile/basic"
SLEEP = "/v2/activity/sleep"


def always(reply: bytes) -> Answers:
    async def say(request: Request) -> bytes:
        return reply

    return say


async def failure(call: Awaitable[object]) -> ApiError:
    with pytest.raises(ApiError) as error:
        await call
    return error.value


def calls(outcome: str) -> float:
    labels = {"vendor": "whoop", "outcome": outcome}
    return REGISTRY.get_sample_value("auren_vendor_calls_total", labels) or 0.0


type_of_answer = pytest.mark.parametrize(
    ("reply", "error", "error_class"),
    [
        (answer(408), Failed, "http_408"),
        (answer(500), Failed, "http_500"),
        (answer(503), Failed, "http_503"),
        (answer(302), Failed, "http_302"),
        (answer(200, b"<html>"), Failed, "bad_answer"),
        (answer(200, b""), Failed, "bad_answer"),
        (answer(200, b'{"value": NaN}'), Failed, "bad_answer"),
        (answer(200, b"[" * 100_000), Failed, "bad_answer"),
        (b"", Failed, "connection"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", Failed, "timeout"),
        (b"not HTTP at all\r\n\r\n", Failed, "connection"),
        (answer(400), Rejected, "http_400"),
        (answer(403), Rejected, "http_403"),
        (answer(422), Rejected, "http_422"),
    ],
)


@type_of_answer
async def test_each_answer_is_a_fault_of_its_class(
    make_link: MakeLink,
    make_api: MakeApi,
    settings: Settings,
    reply: bytes,
    error: type[Failed | Rejected],
    error_class: str,
) -> None:
    settings.VENDOR_TIMEOUT = 0.3
    async with listening(always(reply)) as server:
        settings.WHOOP_API_URL = server.url
        link = await make_link()
        fault = await failure(make_api().for_link(link.pk).get("/v2/cycle"))
    assert isinstance(fault, error)
    assert fault.error_class == error_class
    # A broken connection is tried again at once, since one that was kept too long breaks; nothing else is. Where not a
    # byte was answered, aiohttp repeats each of the three by itself.
    assert len(server.requests) == (1 if error_class != "connection" else 3 if reply else 6)


async def test_a_connection_that_breaks_once_costs_no_try(
    make_link: MakeLink, make_api: MakeApi, settings: Settings
) -> None:
    replies = iter([b"", answer(200, b'{"id": 7}')])

    async def say(request: Request) -> bytes:
        return next(replies)

    async with listening(say) as server:
        settings.WHOOP_API_URL = server.url
        link = await make_link()
        assert await make_api().for_link(link.pk).get("/v2/cycle/7") == {"id": 7}
    assert len(server.requests) == 2


async def test_an_address_where_nobody_listens_is_a_broken_connection(
    make_link: MakeLink, make_api: MakeApi, settings: Settings
) -> None:
    settings.WHOOP_API_URL = "http://127.0.0.1:1"
    link = await make_link()
    fault = await failure(make_api().for_link(link.pk).get("/v2/cycle"))
    assert isinstance(fault, Failed)
    assert fault.error_class == "connection"


async def test_an_endless_answer_is_cut_off(
    make_link: MakeLink, make_api: MakeApi, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.connection.MAX_ANSWER", 1 << 20)
    async with listening(always(answer(200, b" " * (1 << 21)))) as server:
        settings.WHOOP_API_URL = server.url
        link = await make_link()
        fault = await failure(make_api().for_link(link.pk).get("/v2/cycle"))
    assert isinstance(fault, Failed)
    assert fault.error_class == "bad_answer"
    assert "1 MiB" in str(fault)


async def test_a_document_is_asked_for_with_the_links_token(
    connect: MakeLink, sandbox: RunningSandbox, make_api: MakeApi
) -> None:
    link = await connect("whoop", user="user_3")
    before = calls("ok")
    page = await make_api().for_link(link.pk).get(SLEEP, {"limit": "2"})
    assert len(page["records"]) == 2
    assert [call.user for call in sandbox.calls("whoop", f"/developer{SLEEP}")] == ["user_3"]
    assert calls("ok") == before + 1


async def test_a_missing_document_is_not_found(connect: MakeLink, sandbox: RunningSandbox, make_api: MakeApi) -> None:
    link = await connect("whoop")
    missing = f"{SLEEP}/00000000-0000-4000-8000-000000000000"
    assert isinstance(await failure(make_api().for_link(link.pk).get(missing)), NotFound)


async def test_a_401_is_tried_once_more_with_another_token(
    connect: MakeLink, sandbox: RunningSandbox, make_api: MakeApi
) -> None:
    link = await connect("whoop")
    sandbox.script_fault("whoop", "/developer", status=401)
    profile = await make_api().for_link(link.pk).get(PROFILE)
    assert "user_id" in profile
    assert len(sandbox.calls("whoop", "/oauth")) == 1


async def test_a_second_401_is_a_passing_fault(connect: MakeLink, sandbox: RunningSandbox, make_api: MakeApi) -> None:
    link = await connect("whoop")
    sandbox.script_fault("whoop", "/developer", status=401, count=9)
    fault = await failure(make_api().for_link(link.pk).get(PROFILE))
    assert isinstance(fault, Failed)
    assert fault.error_class == "unauthorised"
    assert len(sandbox.calls("whoop", "/developer")) == 2


async def test_several_calls_of_one_asking_read_the_token_once(
    connect: MakeLink, sandbox: RunningSandbox, make_api: MakeApi, database: str
) -> None:
    link = await connect("whoop")
    api = make_api().for_link(link.pk)
    first = await api.get(PROFILE)
    await link.token.adelete()
    assert await api.get(PROFILE) == first


async def test_a_429_pauses_the_whole_vendor_for_as_long_as_it_says(
    connect: MakeLink, sandbox: RunningSandbox, make_api: MakeApi
) -> None:
    link, other = await connect("whoop"), await connect("whoop", user="user_2")
    api = make_api()
    sandbox.script_fault("whoop", "/developer", status=429, retry_after=40)
    fault = await failure(api.for_link(link.pk).get(PROFILE))
    assert isinstance(fault, Postponed)
    assert fault.seconds == 40
    fault = await failure(api.for_link(other.pk).get(PROFILE))
    assert isinstance(fault, Postponed)
    assert fault.seconds == pytest.approx(40, abs=2)
    assert len(sandbox.calls("whoop", "/developer")) == 1


async def test_a_full_limit_postpones_without_a_call(
    connect: MakeLink, sandbox: RunningSandbox, make_api: MakeApi
) -> None:
    link = await connect("whoop")
    api = make_api("whoop", RateLimit("whoop", [Window(8, 60)], None))  # alone: a quarter, so two
    results = await asyncio.gather(*(api.for_link(link.pk).get(PROFILE) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, Postponed) for result in results) == 3
    assert len(sandbox.calls("whoop", "/developer")) == 2


async def test_retry_after_of_a_503_is_passed_on(connect: MakeLink, sandbox: RunningSandbox, make_api: MakeApi) -> None:
    link = await connect("whoop")
    sandbox.script_fault("whoop", "/developer", status=503, retry_after=90)
    fault = await failure(make_api().for_link(link.pk).get(PROFILE))
    assert isinstance(fault, Failed)
    assert fault.retry_after == 90


async def test_a_vendor_that_keeps_failing_is_left_alone(
    connect: MakeLink, sandbox: RunningSandbox, make_api: MakeApi
) -> None:
    link = await connect("whoop")
    sandbox.set_faults("whoop", error=1)
    api = make_api()
    for _ in range(10):
        assert isinstance(await failure(api.for_link(link.pk).get(PROFILE)), Failed)
    fault = await failure(api.for_link(link.pk).get(PROFILE))
    assert isinstance(fault, Postponed)
    assert 0 < fault.seconds <= 15
    assert len(sandbox.calls("whoop", "/developer")) == 10


async def test_what_a_vendor_refuses_does_not_open_the_breaker(
    connect: MakeLink, sandbox: RunningSandbox, make_api: MakeApi
) -> None:
    link = await connect("whoop")
    sandbox.script_fault("whoop", "/developer", status=404, count=30)
    api = make_api()
    for _ in range(30):
        assert isinstance(await failure(api.for_link(link.pk).get(PROFILE)), NotFound)
    assert api.breaker.state is State.CLOSED


async def test_connections_are_opened_ahead_without_a_token(make_api: MakeApi, settings: Settings) -> None:
    everybody = asyncio.Barrier(4)

    async def together(request: Request) -> bytes:
        await everybody.wait()
        return answer(404, b"")

    async with listening(together) as server:
        settings.WHOOP_API_URL = server.url
        await make_api().warm_up(4)
        assert server.opened == 4
    assert all("authorization" not in request.headers for request in server.requests)


async def test_warming_up_an_absent_vendor_is_no_fault(make_api: MakeApi, settings: Settings) -> None:
    settings.WHOOP_API_URL = "http://127.0.0.1:1"
    await make_api().warm_up()


async def test_calls_one_after_the_other_share_a_connection(
    make_link: MakeLink, make_api: MakeApi, settings: Settings
) -> None:
    async with listening(always(answer(200))) as server:
        settings.WHOOP_API_URL = server.url
        link = await make_link()
        api = make_api().for_link(link.pk)
        for _ in range(3):
            await api.get("/v2/cycle")
        assert server.opened == 1


@pytest.mark.parametrize(
    "body",
    [
        lambda token: json.dumps({"detail": f"no scope for {token} {'x' * 500}"}).encode(),
        lambda token: f"plain {token}\r\n\x1b[31m{'y' * 5000}".encode(),
        lambda token: json.dumps([token]).encode(),
    ],
)
async def test_the_reason_of_a_refusal_is_short_and_holds_no_token(
    make_link: MakeLink,
    make_api: MakeApi,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    body: Callable[[str], bytes],
) -> None:
    caplog.set_level("DEBUG")
    async with listening(always(answer(403, body("the-access-token")))) as server:
        settings.WHOOP_API_URL = server.url
        link = await make_link()
        fault = await failure(make_api().for_link(link.pk).get("/v2/cycle"))
    assert "the-access-token" not in f"{fault!r}{fault.__cause__!r}{caplog.text}"
    assert "[token]" in str(fault)
    assert str(fault).isprintable()
    assert len(str(fault)) < 300
