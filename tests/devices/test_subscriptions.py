"""Oura's subscriptions, against a stand-in over HTTP whose handshake comes to a real web process."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import TypeVar

import httpx
import pytest
import stamina
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db.models import F
from django.test import Client, override_settings
from django.utils import timezone
from pytest_django import Settings

from auren.console import roles
from auren.sandbox.server import RunningSandbox
from devices import subscriptions
from devices.models import Subscription
from devices.subscription_api import PATH, Pair, Standing, expiry
from devices.subscriptions import WANTED, Check, Step, check_now, check_subscriptions, plan, state_of, verdict
from tests.devices.listening import Request, answer, listening
from tests.webhooks.entry import in_sandbox, served

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ADDRESS = "https://bridge.example.org/webhooks/oura"
NIGHT = Pair("update", "sleep")
SECRETS = ("oura-signs-with-this", "oura-signed-with-that", "oura-shakes-hands")

T = TypeVar("T")
Ask = Callable[..., httpx.Response]


async def apart(act: Callable[[], T]) -> T:
    """Beside the loop that serves, as the scheduler is another process."""
    return await sync_to_async(act)()


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


@pytest.fixture
async def web(sandbox: RunningSandbox, database: str, settings: Settings) -> AsyncIterator[str]:
    """A served web process, under PUBLIC_URL."""
    in_sandbox(settings)
    async with served() as port:
        settings.PUBLIC_URL = f"http://127.0.0.1:{port}"
        yield f"{settings.PUBLIC_URL}/webhooks/oura"


def oura(sandbox: RunningSandbox, method: str, path: str = "", **body: str) -> httpx.Response:
    """What somebody else does with our application's credentials."""
    headers = {"x-client-id": "oura-client", "x-client-secret": SECRETS[0]}
    address = f"{sandbox.settings['OURA_API_URL']}{PATH}{path}"
    return httpx.request(method, address, headers=headers, json=body or None, trust_env=False)


async def subscribe(sandbox: RunningSandbox, event_type: str, data_type: str, address: str) -> dict[str, str]:
    form = {"event_type": event_type, "data_type": data_type, "callback_url": address}
    reply = await asyncio.to_thread(oura, sandbox, "POST", verification_token=SECRETS[2], **form)
    assert reply.status_code == 201
    created: dict[str, str] = reply.json()
    return created


def at_oura(sandbox: RunningSandbox) -> dict[tuple[str, str], str]:
    """The address of each pair."""
    return {(each["event_type"], each["data_type"]): each["callback_url"] for each in oura(sandbox, "GET").json()}


def states() -> set[str]:
    return {state_of(row, timezone.now()) for row in Subscription.objects.all()}


def errors() -> set[str]:
    return set(Subscription.objects.values_list("error", flat=True))


def writes(sandbox: RunningSandbox) -> list[str]:
    return [call.method for call in sandbox.calls("oura", PATH) if call.method != "GET"]


# What is to be done


def standing(pair: Pair, *, days: float = 80, address: str = ADDRESS, number: str = "") -> Standing:
    return Standing(number or str(pair), pair, address, NOW + timedelta(days=days))


def all_standing() -> list[Standing]:
    return [standing(pair) for pair in WANTED]


def test_every_event_of_every_measured_type_is_wanted() -> None:
    assert len(set(WANTED)) == 27
    assert {pair.event_type for pair in WANTED} == {"create", "update", "delete"}
    assert "vo2_max" in {pair.data_type for pair in WANTED}


def test_nothing_is_to_be_done_where_all_stands() -> None:
    assert plan(all_standing(), ADDRESS, NOW) == []


def test_of_two_for_one_pair_the_one_at_our_address_stays() -> None:
    double = standing(NIGHT, days=89, address="https://old.example.org/webhooks/oura", number="double")
    assert plan([*all_standing(), double], ADDRESS, NOW) == [Step("remove", NIGHT, double)]


@pytest.mark.parametrize(("days", "acts"), [(7.1, []), (6.9, ["renew"]), (-1, ["renew"])])
def test_it_is_renewed_when_under_seven_days_remain(days: float, acts: list[str]) -> None:
    found = [each for each in all_standing() if each.pair != NIGHT]
    assert [step.act for step in plan([*found, standing(NIGHT, days=days)], ADDRESS, NOW)] == acts


def test_an_end_that_cannot_be_read_is_renewed() -> None:
    found = [each if each.pair != NIGHT else each._replace(expires_at=None) for each in all_standing()]
    assert [step.act for step in plan(found, ADDRESS, NOW)] == ["renew"]


@pytest.mark.parametrize("text", ["2026-11-25T12:00:00", "2026-11-25T12:00:00.000000000", "2026-11-25T14:00:00+02:00"])
def test_an_end_without_a_zone_is_utc(text: str) -> None:
    assert expiry(text) == NOW


def test_an_end_that_is_no_time_is_none() -> None:
    assert expiry("soon") is None


# At the vendor


async def test_what_is_missing_is_created_with_a_handshake(sandbox: RunningSandbox, web: str) -> None:
    check = await apart(check_now)
    assert str(check) == "27 created"
    assert at_oura(sandbox) == dict.fromkeys(WANTED, web)
    assert await apart(states) == {"subscribed"}
    assert await apart(errors) == {""}
    assert (await apart(verdict)).startswith("All 27 subscriptions stand. The first ends on ")


async def test_a_second_check_changes_nothing(sandbox: RunningSandbox, web: str) -> None:
    await apart(check_now)
    before = oura(sandbox, "GET").json()
    sandbox.forget_calls()
    assert str(await apart(check_now)) == ""
    assert (writes(sandbox), oura(sandbox, "GET").json()) == ([], before)


async def test_after_two_checks_at_once_another_leaves_one_of_each(sandbox: RunningSandbox, web: str) -> None:
    """The stand-in takes two for one pair when they come together, and nobody knows whether Oura does."""
    first, second = Check(web), Check(web)
    await asyncio.gather(first.run(), second.run())
    assert (first.fault, second.fault, first.problems, second.problems) == ("", "", {}, {})
    doubles = len(oura(sandbox, "GET").json()) - 27
    assert (await apart(check_now)).done["remove"] == doubles
    assert (len(oura(sandbox, "GET").json()), at_oura(sandbox)) == (27, dict.fromkeys(WANTED, web))


async def test_what_ends_within_a_week_is_renewed(sandbox: RunningSandbox, web: str) -> None:
    sandbox.set_clock(datetime.now(UTC) - timedelta(days=84))
    await subscribe(sandbox, *NIGHT, web)
    sandbox.set_clock(datetime.now(UTC))
    await apart(check_now)
    assert writes(sandbox).count("PUT") == 1
    night = await Subscription.objects.aget(event_type="update", data_type="sleep")
    assert night.expires_at is not None
    assert night.expires_at > timezone.now() + timedelta(days=80)


async def test_what_nobody_wants_is_removed(sandbox: RunningSandbox, web: str) -> None:
    await subscribe(sandbox, "create", "tag", web)
    check = await apart(check_now)
    assert ("create", "tag") not in at_oura(sandbox)
    assert check.done["remove"] == 1


async def test_a_type_no_longer_wanted_leaves_the_table_as_well(sandbox: RunningSandbox, web: str) -> None:
    await Subscription.objects.acreate(event_type="create", data_type="tag", vendor_id="old")
    await apart(check_now)
    assert await Subscription.objects.acount() == 27


async def test_one_that_leads_elsewhere_is_moved_to_our_address(sandbox: RunningSandbox, web: str) -> None:
    await subscribe(sandbox, *NIGHT, f"{web}?old=1")
    check = await apart(check_now)
    assert check.done["move"] == 1
    assert at_oura(sandbox)[NIGHT] == web


async def test_a_new_public_url_is_noticed_before_the_day_is_over(
    sandbox: RunningSandbox, web: str, settings: Settings
) -> None:
    await apart(check_now)
    assert await apart(check_subscriptions) == ""
    settings.PUBLIC_URL = settings.PUBLIC_URL.replace("127.0.0.1", "localhost")
    assert await apart(check_subscriptions) == "27 moved to our address"
    assert set(at_oura(sandbox).values()) == {f"{settings.PUBLIC_URL}/webhooks/oura"}


async def test_one_that_moves_and_ends_soon_is_renewed_in_the_same_check(sandbox: RunningSandbox, web: str) -> None:
    sandbox.set_clock(datetime.now(UTC) - timedelta(days=84))
    await subscribe(sandbox, *NIGHT, f"{web}?old=1")
    sandbox.set_clock(datetime.now(UTC))
    await apart(check_now)
    assert await apart(states) == {"subscribed"}


async def test_a_403_means_there_is_none_and_it_is_made_anew(sandbox: RunningSandbox, web: str) -> None:
    sandbox.set_clock(datetime.now(UTC) - timedelta(days=84))
    old = (await subscribe(sandbox, *NIGHT, web))["id"]
    sandbox.set_clock(datetime.now(UTC))
    sandbox.script_fault("oura", f"{PATH}/renew", status=403)
    await apart(check_now)
    assert await apart(errors) == {""}
    assert (await Subscription.objects.aget(event_type="update", data_type="sleep")).vendor_id == old


async def test_one_that_vanished_while_we_looked_is_created(sandbox: RunningSandbox, web: str) -> None:
    """Its removal by somebody else is what Oura's 403 says."""
    sandbox.set_clock(datetime.now(UTC) - timedelta(days=84))
    old = await subscribe(sandbox, *NIGHT, web)
    sandbox.set_clock(datetime.now(UTC))
    lists = iter([[old]])

    async def oura_of_yesterday(request: Request) -> bytes:
        """The first list is from before the removal; everything else is asked of the stand-in."""
        if request.method == "GET" and (first := next(lists, None)):
            return answer(200, json.dumps(first).encode())
        return await passed_on(sandbox, request)

    oura(sandbox, "DELETE", f"/{old['id']}")
    async with listening(oura_of_yesterday) as proxy:
        check = await checked_at(proxy.url)
    assert (check.done["create"], check.problems, check.fault) == (27, {}, "")


async def passed_on(sandbox: RunningSandbox, request: Request) -> bytes:
    async with httpx.AsyncClient(trust_env=False) as client:
        kept = {name: value for name, value in request.headers.items() if name.startswith("x-client")}
        address = sandbox.settings["OURA_API_URL"] + request.target
        kept["content-type"] = "application/json"
        reply = await client.request(request.method, address, headers=kept, content=request.body)
    return answer(reply.status_code, reply.content)


async def checked_at(url: str) -> Check:
    with override_settings(OURA_API_URL=url):
        return await apart(check_now)


async def test_a_409_is_answered_by_listing_again(sandbox: RunningSandbox, web: str) -> None:
    sandbox.script_fault("oura", PATH, method="POST", status=409, count=2)
    check = await apart(check_now)
    assert (check.done["create"], check.problems, check.fault) == (27, {}, "")


async def test_a_create_whose_reply_was_lost_is_found_in_the_list(sandbox: RunningSandbox, web: str) -> None:
    sandbox.script_fault("oura", PATH, "lose_reply", method="POST", count=3)
    check = await apart(check_now)
    assert check.done["create"] == 24
    assert len(oura(sandbox, "GET").json()) == 27
    assert await apart(errors) == {""}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_a_passing_5xx_heals_within_the_check(sandbox: RunningSandbox, web: str, method: str) -> None:
    await subscribe(sandbox, "create", "tag", web)
    await subscribe(sandbox, *NIGHT, f"{web}?old=1")
    sandbox.script_fault("oura", PATH, method=method, status=502, count=2)
    await apart(check_now)
    assert at_oura(sandbox) == dict.fromkeys(WANTED, web)
    assert await apart(errors) == {""}


async def test_while_oura_is_away_what_was_seen_stays_and_support_is_told(sandbox: RunningSandbox, web: str) -> None:
    await apart(check_now)
    sandbox.set_faults("oura", error=1.0)
    check = await apart(check_now)
    assert check.fault == "Oura answered 503: Oura is away, the next check tries again"
    assert (await apart(states), await apart(errors)) == ({"subscribed"}, {check.fault})
    assert await apart(verdict) == (
        f"All 27 subscriptions stand. {check.fault}. {(await apart(verdict)).rpartition('. ')[2]}"
    )


async def test_without_a_web_process_nothing_is_created_and_the_next_check_does_it(
    sandbox: RunningSandbox, database: str, settings: Settings
) -> None:
    in_sandbox(settings)
    settings.PUBLIC_URL = "http://127.0.0.1:9"
    await apart(check_now)
    assert at_oura(sandbox) == {}
    why = "422: callback_url did not answer the verification challenge."
    assert await apart(errors) == {f"Oura refused it ({why}). Is our address the right one, and does it answer?"}
    assert (await apart(verdict)).startswith("Of 27 subscriptions 27 are missing")
    async with served() as port:
        settings.PUBLIC_URL = f"http://127.0.0.1:{port}"
        await apart(check_now)
        assert len(at_oura(sandbox)) == 27


async def test_a_wrong_secret_is_named_by_its_setting(sandbox: RunningSandbox, web: str, settings: Settings) -> None:
    settings.OURA_CLIENT_SECRETS = ("wrong-secret-one", "wrong-secret-two")
    check = await apart(check_now)
    assert check.fault == "Oura does not know our client id and secret: set OURA_CLIENT_ID and OURA_CLIENT_SECRET"
    assert len(sandbox.calls("oura", PATH)) == 2


async def test_while_a_secret_rotates_the_older_one_is_tried_too(
    sandbox: RunningSandbox, web: str, settings: Settings
) -> None:
    settings.OURA_CLIENT_SECRETS = ("not-known-at-oura-yet", SECRETS[0])
    assert str(await apart(check_now)) == "27 created"


@pytest.mark.parametrize("name", ["PUBLIC_URL", "OURA_CLIENT_ID", "OURA_VERIFICATION_TOKEN"])
def test_without_a_setting_nothing_is_asked_and_support_is_told_which(
    sandbox: RunningSandbox, database: str, settings: Settings, name: str
) -> None:
    settings.PUBLIC_URL = "http://127.0.0.1:9"
    setattr(settings, name, "")
    check_now()
    assert errors() == {f"Nothing can be subscribed: set {name}."}
    assert sandbox.calls("oura", PATH) == []


async def test_no_secret_is_in_any_log_or_error(
    sandbox: RunningSandbox, web: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even when Oura quotes what it was sent, as its framework does in a 422."""

    async def quoting(request: Request) -> bytes:
        if request.method == "GET":
            return answer(200, b"[]")
        said = json.dumps({"detail": [{"input": request.body.decode(), "ctx": dict(request.headers)}]}).encode()
        return answer(422, said)

    with caplog.at_level(logging.DEBUG):
        async with listening(quoting) as proxy:
            check = await checked_at(proxy.url)
        sandbox.set_faults("oura", error=1.0)
        await apart(check_now)
    assert len(check.problems) == 27
    everything = [*caplog.messages, *map(str, caplog.records), *await apart(errors), *check.problems.values()]
    extras = [str(vars(record)) for record in caplog.records]
    assert [text for text in (*everything, *extras) for secret in SECRETS if secret in text] == []


# When


async def test_the_chore_looks_once_a_day_while_all_is_well(sandbox: RunningSandbox, web: str) -> None:
    assert await apart(check_subscriptions) == "27 created"
    sandbox.forget_calls()
    for age, calls in ((timedelta(hours=23), 0), (timedelta(hours=25), 1)):
        await Subscription.objects.aupdate(checked_at=timezone.now() - age)
        await apart(check_subscriptions)
        assert len(sandbox.calls("oura", PATH)) == calls


async def test_the_chore_looks_every_ten_minutes_while_something_is_missing(sandbox: RunningSandbox, web: str) -> None:
    sandbox.script_fault("oura", PATH, method="POST", status=422)
    await apart(check_subscriptions)
    assert await Subscription.objects.exclude(error="").acount() == 1
    assert await apart(check_subscriptions) == ""
    await Subscription.objects.aupdate(checked_at=F("checked_at") - timedelta(minutes=11))
    assert await apart(check_subscriptions) == "1 created"


async def test_the_chore_looks_every_minute_while_nothing_stands(
    sandbox: RunningSandbox, database: str, settings: Settings
) -> None:
    settings.PUBLIC_URL = "http://127.0.0.1:9"
    await apart(check_subscriptions)
    await apart(check_subscriptions)
    assert len(sandbox.calls("oura", PATH, method="GET")) == 1
    await Subscription.objects.aupdate(checked_at=F("checked_at") - timedelta(seconds=61))
    await apart(check_subscriptions)
    assert len(sandbox.calls("oura", PATH, method="GET")) == 2


async def test_a_check_that_takes_too_long_leaves_the_rest_to_the_next(
    sandbox: RunningSandbox, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "CHECK_SECONDS", 0.3)
    sandbox.script_fault("oura", PATH, "hang", method="POST", count=4)
    check = await apart(check_now)
    assert check.fault == "Oura took longer than 0.3 s: the next check goes on"
    assert await apart(errors) == {check.fault}


# For people


async def test_the_command_prints_what_stands(sandbox: RunningSandbox, web: str) -> None:
    out = StringIO()
    await apart(lambda: call_command("subscribe_oura", stdout=out))
    lines = out.getvalue().splitlines()
    assert lines[0].split() == ["data", "type", "event", "state", "until", "(UTC)", "error"]
    assert len([line for line in lines if " subscribed " in line]) == 27
    assert lines[-2] == "Done: 27 created."
    assert lines[-1].startswith("All 27 subscriptions stand.")


def test_the_command_fails_while_something_is_wrong(database: str, settings: Settings) -> None:
    settings.PUBLIC_URL = ""
    with pytest.raises(SystemExit):
        call_command("subscribe_oura", stdout=StringIO())


def signed_in(role: str) -> Client:
    user = User.objects.create(username=role)
    roles.give(user, role)
    client = Client(headers={"host": "127.0.0.1"})
    client.force_login(user)
    return client


LIST = "/admin/devices/subscription/"


async def test_support_checks_now_and_reads_that_all_is_well(sandbox: RunningSandbox, web: str) -> None:
    support = await apart(lambda: signed_in("support"))
    before = (await apart(lambda: support.get(LIST))).content.decode()
    assert "have not been checked yet" in before
    pressed = {"action": "check_now", "_selected_action": "0"}
    after = (await apart(lambda: support.post(LIST, pressed, follow=True))).content.decode()
    assert "Oura was asked: 27 created." in after
    assert "All 27 subscriptions stand." in after


def test_what_is_missing_or_ends_soon_comes_first(database: str) -> None:
    for number, (vendor_id, days) in enumerate([("a", 80), ("b", 5), ("", 0)]):
        Subscription.objects.create(
            event_type="create",
            data_type=f"type_{number}",
            vendor_id=vendor_id,
            expires_at=timezone.now() + timedelta(days=days) if days else None,
            error="" if vendor_id else "refused",
        )
    response = signed_in("support").get(LIST)
    assert [row.data_type for row in response.context["cl"].result_list] == ["type_2", "type_1", "type_0"]
    assert "refused" in response.content.decode()


def test_who_may_only_look_has_no_button(database: str) -> None:
    user = User.objects.create(username="looker", is_staff=True)
    user.user_permissions.set(roles._permissions(["devices.view_subscription"]))
    client = Client(headers={"host": "127.0.0.1"})
    client.force_login(user)
    assert "Check now" not in client.get(LIST).content.decode()
    client.post(LIST, {"action": "check_now", "_selected_action": "0"})
    assert not Subscription.objects.exists()
