import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from auren.sandbox import oura, whoop
from auren.sandbox.announce import Announcer, announced_kinds
from auren.sandbox.config import SandboxConfig
from auren.sandbox.grants import Grants
from auren.sandbox.state import Sandbox
from auren.sandbox.subscriptions import Subscriptions
from auren.sandbox.trickle import Trickle
from tests.sandbox.conftest import NOW
from tests.sandbox.receiver import Receiver

SCOPES = (*oura.ALL_SCOPES, *whoop.ALL_SCOPES)


@pytest.fixture
async def announcer(bridge: Receiver) -> AsyncIterator[Announcer]:
    config = SandboxConfig(clock=lambda: NOW, bridge_url=bridge.url, people=4, retry_span_seconds=0)
    sandbox = Sandbox(config)
    announcer = Announcer(sandbox, Subscriptions(sandbox.database))
    yield announcer
    await announcer.close()
    sandbox.close()


def grant(grants: Grants, *users: str) -> None:
    grants.grant_many(users, SCOPES, "legacy", 60, NOW.timestamp())


async def announced(announcer: Announcer, trickle: Trickle, steps: range) -> list[tuple[str, str, str]]:
    """Vendor, person and kind of what these steps announced."""
    before = len(announcer.sent)
    for step in steps:
        trickle.announce_one(step)
    await announcer.settle()
    return [(one.vendor, one.user, one.kind) for one in list(announcer.sent)[before:]]


async def test_nothing_trickles_about_people_who_have_granted_nothing(announcer: Announcer, bridge: Receiver) -> None:
    assert await announced(announcer, Trickle(announcer.sandbox, announcer), range(20)) == []
    assert bridge.received == []


async def test_every_step_announces_something_of_the_granted_and_of_nobody_else(
    announcer: Announcer, bridge: Receiver
) -> None:
    grant(announcer.sandbox.oura.grants, "user_2", "somebody_else")
    told = await announced(announcer, Trickle(announcer.sandbox, announcer), range(12))
    assert len(told) == len(bridge.received) == 12
    assert {(vendor, user) for vendor, user, _ in told} == {("oura", "user_2")}


async def test_the_trickle_spreads_over_both_vendors_and_every_kind(announcer: Announcer) -> None:
    for vendor in (announcer.sandbox.oura, announcer.sandbox.whoop):
        grant(vendor.grants, "user_1", "user_2", "user_3", "user_4")
    told = Counter(
        (vendor, kind)
        for vendor, _, kind in await announced(announcer, Trickle(announcer.sandbox, announcer), range(120))
    )
    assert set(told) == {("oura", kind) for kind in announced_kinds("oura")} | {
        ("whoop", kind) for kind in announced_kinds("whoop")
    }


async def test_a_new_night_is_announced_as_created_before_anything_is_repeated(
    announcer: Announcer, bridge: Receiver
) -> None:
    grant(announcer.sandbox.oura.grants, "user_1")
    trickle = Trickle(announcer.sandbox, announcer)
    await announced(announcer, trickle, range(4))
    bridge.clear()
    announcer.sent.clear()
    announcer.sandbox.clock.fixed = NOW + timedelta(days=1)
    await announced(announcer, trickle, range(4, 14))
    events = [json.loads(webhook.body) for webhook in bridge.received]
    created = {event["data_type"] for event in events if event["event_type"] == "create"}
    assert {"sleep", "daily_sleep", "daily_readiness", "daily_activity"} <= created
    # Each webhook goes out by itself, so the order of arrival is nobody's promise: this is the order of sending.
    assert {one.verb for one in list(announcer.sent)[:4]} == {"create"}


async def test_todays_activity_is_announced_as_updated_when_it_has_grown(
    announcer: Announcer, bridge: Receiver
) -> None:
    grant(announcer.sandbox.oura.grants, "user_1")
    trickle = Trickle(announcer.sandbox, announcer)
    await announced(announcer, trickle, range(1))
    bridge.clear()
    announcer.sandbox.clock.fixed = NOW + timedelta(hours=2)
    await announced(announcer, trickle, range(4, 5))
    [event] = [json.loads(webhook.body) for webhook in bridge.received]
    assert (event["data_type"], event["event_type"]) == ("daily_activity", "update")
