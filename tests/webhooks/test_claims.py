"""Who works on a delivery: one worker at a time, under a lease, and nobody after it."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar
from uuid import uuid4

import psycopg
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection as django_connection
from django.db.models.functions import Now
from pytest_django import Settings

from auren.biometrics.models import Record, Sample
from auren.postgres import connect as connect_to_postgres
from auren.sandbox.server import RunningSandbox
from tests.webhooks.living import (
    NOON,
    again,
    announce,
    connect,
    heart_rate,
    held,
    let_pass,
    patient,
    push,
    running,
    samples,
    tries,
    until,
    values,
    work,
)
from webhooks.actions import ignore
from webhooks.backfill import file_backfill
from webhooks.claims import Claimed, claim, link_phones, release, renew
from webhooks.clock import DatabaseClock
from webhooks.management.commands.process_deliveries import process
from webhooks.models import Attempt, Delivery
from webhooks.processing import Asked, Processor
from webhooks.storing import Connection, Storer

SLEEP = "/v2/usercollection/sleep"


@pytest.fixture
def night(vendors: RunningSandbox) -> str:
    connect(vendors, "oura")
    return str(vendors.documents("oura", "user_1", "sleep")[-1]["id"])


class NoVendor:
    """Phones ask nobody."""

    async def expect(self, _: object) -> None:
        raise AssertionError

    async def ask(self, *_: object, **__: object) -> Asked:
        raise AssertionError


T = TypeVar("T")


def over_a_connection(act: Callable[[Connection], Awaitable[T]]) -> T:
    async def acting() -> T:
        async with await connect_to_postgres("test") as connection:
            return await act(connection)

    return asyncio.run(acting())


def take(limit: int = 100, lease: float = 30, background: int = 100) -> list[Claimed]:
    """What a worker claims before it is delayed."""

    async def act(connection: Connection) -> list[Claimed]:
        claimed = await claim(connection, limit, lease, DatabaseClock(), background=background)
        await link_phones(connection, claimed, sandbox=True)
        return claimed

    return over_a_connection(act)


def finish_late(claimed: list[Claimed]) -> set[int]:
    """The delayed worker's results, written at last; the ids of those that counted."""

    async def act(connection: Connection) -> set[int]:
        processor = Processor(NoVendor(), DatabaseClock(), recent_days=3)
        outcomes = [await processor.process(each) for each in claimed]
        return await Storer(DatabaseClock()).write(connection, outcomes)

    return over_a_connection(act)


def run_out() -> None:
    """Every lease has run out."""
    Delivery.objects.filter(lease_until__isnull=False).update(lease_until=Now() - timedelta(seconds=1))


def lease_seconds(delivery: Delivery) -> float:
    with django_connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM lease_until - now()) FROM webhooks_delivery WHERE id = %s", [delivery.pk]
        )
        return float(cursor.fetchone()[0])


def test_a_writer_remembers_a_bounded_number_of_sources_and_stores_everything_all_the_same(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhooks.storing.MOST_SOURCES", 2)
    deliveries = [push(heart_rate(60 + number, source=f"Watch {number % 4}")) for number in range(8)]
    claimed, remembered = take(), []

    async def act(connection: Connection) -> None:
        processor, storer = Processor(NoVendor(), DatabaseClock(), recent_days=3), Storer(DatabaseClock())
        for each in claimed:
            await storer.write(connection, [await processor.process(each)])
            remembered.append(len(storer.sources))

    over_a_connection(act)
    assert max(remembered) == 2
    assert [Delivery.objects.get(pk=each.pk).sample_count for each in deliveries] == [1] * 8


def test_a_writer_that_gathers_goes_on_as_soon_as_enough_have_come(
    database: str, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """All for one patient, and so for one writer. It would gather for longer than the test has."""
    monkeypatch.setattr("webhooks.writing.GATHER_SECONDS", 1_000.0)
    settings.MAX_CONCURRENT_WEBHOOKS = 20
    deliveries = [push(heart_rate(60 + number % 9, NOON + timedelta(minutes=number))) for number in range(60)]
    asyncio.run(asyncio.wait_for(process(asyncio.Event(), until_idle=True), 30))
    assert {again(delivery).state for delivery in deliveries} == {"stored"}


def test_two_claims_at_once_share_what_is_due(database: str) -> None:
    deliveries = [push(heart_rate(60)) for _ in range(20)]

    async def side_by_side() -> list[list[Claimed]]:
        one, two = await connect_to_postgres("one"), await connect_to_postgres("two")
        async with one, two:
            return await asyncio.gather(*(claim(each, 12, 30, DatabaseClock()) for each in (one, two)))

    first, second = asyncio.run(side_by_side())
    taken = [claimed.id for claimed in (*first, *second)]
    assert sorted(taken) == [delivery.pk for delivery in deliveries]


def test_a_claim_skips_what_another_is_taking_at_this_moment(database: str) -> None:
    first, second = push(heart_rate(60)), push(heart_rate(61))
    with psycopg.connect(database) as other:
        other.execute("SELECT FROM webhooks_delivery WHERE id = %s FOR UPDATE", [first.pk])
        assert [claimed.id for claimed in take()] == [second.pk]


def test_what_is_due_longest_is_claimed_first(database: str) -> None:
    late, early = push(heart_rate(60)), push(heart_rate(61))
    Delivery.objects.filter(pk=early.pk).update(next_attempt_at=Now() - timedelta(hours=1))
    assert [claimed.id for claimed in take(limit=1)] == [early.pk]
    assert [claimed.id for claimed in take(limit=1)] == [late.pk]
    assert take() == []


@pytest.mark.parametrize("plan", ["nestloop", "hashjoin", "mergejoin"])
def test_the_oldest_come_first_by_whatever_plan_they_are_found(database: str, plan: str) -> None:
    """Filed in neither order of their age."""
    deliveries = [push(heart_rate(60)) for _ in range(6)]
    by_age = [deliveries[place] for place in (3, 0, 5, 1, 4, 2)]
    for hours, delivery in enumerate(reversed(by_age)):
        Delivery.objects.filter(pk=delivery.pk).update(next_attempt_at=Now() - timedelta(hours=hours))

    async def act(connection: Connection) -> list[Claimed]:
        for other in {"nestloop", "hashjoin", "mergejoin"} - {plan}:
            await connection.execute(f"SET enable_{other} = off")
        return await claim(connection, 100, 30, DatabaseClock())

    assert [claimed.id for claimed in over_a_connection(act)] == [delivery.pk for delivery in by_age]


def test_what_can_wait_is_taken_after_what_has_just_happened(database: str) -> None:
    history = announce("oura", "sleep.backfill", origin="backfill")
    poll = announce("oura", "heartrate.poll", origin="poll")
    webhook = announce("oura", "sleep.update", "x")
    assert [claimed.id for claimed in take(limit=1)] == [webhook.pk]
    assert [claimed.id for claimed in take()] == [history.pk, poll.pk]


def test_no_more_of_what_can_wait_is_taken_than_there_is_room_for(database: str) -> None:
    for _ in range(3):
        announce("oura", "sleep.backfill", origin="backfill")
    webhook = announce("oura", "sleep.update", "x")
    assert webhook.pk in {claimed.id for claimed in take(background=2)}
    assert len(take(background=0)) == 0
    assert len(take()) == 1


def test_what_is_not_due_yet_is_not_claimed(database: str) -> None:
    delivery = push(heart_rate(60), state="retrying")
    Delivery.objects.update(next_attempt_at=Now() + timedelta(seconds=5))
    assert take() == []
    let_pass(delivery)
    assert len(take()) == 1


@pytest.mark.parametrize("state", ["stored", "published", "ignored", "unlinked", "dead"])
def test_a_delivery_that_waits_for_no_worker_is_not_claimed(database: str, state: str) -> None:
    push(heart_rate(60), state=state)
    assert take() == []


def test_two_workers_process_everything_once(vendors: RunningSandbox, night: str) -> None:
    deliveries = [push(heart_rate(60, NOON + timedelta(hours=place))) for place in range(60)]
    deliveries += [announce("oura", "sleep.update", night) for _ in range(20)]

    async def both() -> None:
        await asyncio.gather(*(process(asyncio.Event(), until_idle=True) for _ in range(2)))

    asyncio.run(both())
    assert {again(each).state for each in deliveries} <= {"stored", "ignored"}  # one revision needs storing once
    assert len(values()) > 60
    assert Attempt.objects.count() == len(deliveries)
    assert {len(tries(each)) for each in deliveries} == {1}


def test_a_lease_that_ran_out_is_taken_by_another_and_the_late_one_undoes_nothing(vendors: RunningSandbox) -> None:
    patient()
    delivery = push(heart_rate(60))
    late = take()
    run_out()
    work()
    [done] = Delivery.objects.values()
    assert (done["state"], done["attempts"], done["sequence"]) == ("stored", 1, 1)
    Sample.objects.update(value=61)  # so that a second writing would show
    assert finish_late(late) == set()
    assert Delivery.objects.values().get() == done
    assert tries(delivery) == [("store", "stored")]
    assert values() == [61]


def test_a_late_result_is_dropped_while_another_still_works_on_it(vendors: RunningSandbox) -> None:
    patient()
    delivery = push(heart_rate(60))
    late = take()
    run_out()
    [current] = take()
    assert finish_late(late) == set()
    held_still = again(delivery)
    assert (held_still.state, held_still.attempts, held_still.lease_token) == ("received", 0, current.lease_token)
    assert samples() == []
    assert Record.objects.count() == 0
    assert finish_late([current]) == {delivery.pk}
    assert values() == [60]


def test_one_lost_lease_in_a_batch_costs_the_others_nothing(vendors: RunningSandbox) -> None:
    patient()
    lost, kept = push(heart_rate(60)), push(heart_rate(70, NOON + timedelta(hours=1)))
    claimed = take()
    Delivery.objects.filter(pk=lost.pk).update(lease_token=uuid4())
    assert finish_late(claimed) == {kept.pk}
    assert (again(lost).state, again(kept).state, values()) == ("received", "stored", [70])


def test_one_delivery_that_a_worker_has_claimed_twice_counts_once(vendors: RunningSandbox) -> None:
    patient()
    first, second = push(heart_rate(60)), push(heart_rate(61, NOON + timedelta(minutes=1)))
    early = take(limit=1)
    run_out()
    assert finish_late(early + take()) == {first.pk, second.pk}
    assert [again(each).sequence for each in (first, second)] == [1, 2]
    assert tries(first) == [("store", "stored")]
    assert values() == [60, 61]


def test_what_support_has_decided_meanwhile_stands(vendors: RunningSandbox) -> None:
    patient()
    delivery = push(heart_rate(60))
    claimed = take()
    assert ignore(Delivery.objects.all(), by=User(username="sam"), reason="a test phone") == 1
    assert finish_late(claimed) == set()
    assert (again(delivery).state, samples(), tries(delivery)) == ("ignored", [], [])


def test_a_lease_is_renewed_only_by_its_holder(database: str) -> None:
    delivery = push(heart_rate(60))
    claimed = take(lease=5)
    over_a_connection(lambda connection: renew(connection, claimed, 60))
    assert 55 < lease_seconds(delivery) <= 60
    Delivery.objects.update(lease_token=uuid4())
    over_a_connection(lambda connection: renew(connection, claimed, 600))
    assert lease_seconds(delivery) <= 60


def test_a_renewal_does_not_wait_for_what_is_being_written(database: str) -> None:
    written, other = push(heart_rate(60)), push(heart_rate(61))
    claimed = take(lease=5)

    async def act(connection: Connection) -> None:
        async with await connect_to_postgres("writer") as writer, writer.transaction():
            await writer.execute("SELECT FROM webhooks_delivery WHERE id = %s FOR UPDATE", [written.pk])
            async with asyncio.timeout(5):
                await renew(connection, claimed, 60)

    over_a_connection(act)
    assert 55 < lease_seconds(other) <= 60
    assert lease_seconds(written) <= 5


def test_a_lease_is_given_back_only_by_its_holder(database: str) -> None:
    delivery = push(heart_rate(60))
    late = take()
    run_out()
    [current] = take()
    over_a_connection(lambda connection: release(connection, late))
    assert again(delivery).lease_token == current.lease_token
    over_a_connection(lambda connection: release(connection, [current]))
    assert again(delivery).lease_token is None


def test_a_lease_shorter_than_the_work_is_renewed_while_it_lasts(
    vendors: RunningSandbox, night: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendors.set_vendor("oura", latency_ms=1000)
    monkeypatch.setattr(settings, "DELIVERY_LEASE", 0.4)
    monkeypatch.setattr(settings, "POLL_INTERVAL", 0.05)
    delivery = announce("oura", "sleep.update", night)

    async def both() -> None:
        await asyncio.gather(*(process(asyncio.Event(), until_idle=True) for _ in range(2)))

    asyncio.run(both())
    assert tries(delivery) == [("store", "stored")]
    assert len(vendors.calls("oura", SLEEP)) == 1


def test_the_lease_token_is_gone_with_every_outcome(vendors: RunningSandbox, night: str) -> None:
    vendors.script_fault("oura", f"{SLEEP}/bad", status=500)
    deliveries = [announce("oura", "sleep.update", object_id) for object_id in (night, "bad", "missing")]
    deliveries += [announce("oura", "session.update", "x"), announce("oura", "sleep.update", night, user="nobody")]
    work()
    assert {again(each).state for each in deliveries} == {"stored", "retrying", "ignored", "unlinked"}
    assert not held()


# Real processes


def test_sigterm_lets_a_worker_finish_what_is_under_way(vendors: RunningSandbox, night: str) -> None:
    vendors.set_vendor("oura", latency_ms=500)
    delivery = announce("oura", "sleep.update", night)
    with running("process_deliveries", vendors) as worker:
        until(held)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
    assert tries(delivery) == [("store", "stored")]


def test_sigterm_makes_a_worker_release_within_ten_seconds_what_it_cannot_finish(
    vendors: RunningSandbox, night: str
) -> None:
    vendors.script_fault("oura", SLEEP, "hang", count=100)
    deliveries = [announce("oura", "sleep.update", night) for _ in range(14)]
    with running("process_deliveries", vendors, MAX_CONCURRENT_WEBHOOKS="2", VENDOR_TIMEOUT="60") as worker:
        until(lambda: Delivery.objects.filter(lease_token__isnull=False).count() == 12)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
    assert not held()
    assert {(again(each).state, again(each).attempts) for each in deliveries} == {("received", 0)}


def test_a_phone_waits_for_no_vendor(vendors: RunningSandbox, night: str) -> None:
    vendors.script_fault("oura", SLEEP, "hang", count=100)
    hangs = announce("oura", "sleep.update", night)
    batch = push(heart_rate(60))
    with running("process_deliveries", vendors, MAX_CONCURRENT_WEBHOOKS="1", VENDOR_TIMEOUT="300"):
        until(lambda: again(batch).state == "stored")
        assert again(hangs).state == "received"


def test_after_a_sigkill_the_lease_runs_out_and_another_worker_finishes(vendors: RunningSandbox, night: str) -> None:
    vendors.script_fault("oura", SLEEP, "hang", count=1)
    delivery = announce("oura", "sleep.update", night)
    with running("process_deliveries", vendors) as worker:
        until(lambda: vendors.calls("oura", "/", method="GET") or held())
        worker.kill()
        worker.wait()
    assert again(delivery).lease_token is not None
    vendors.clear_faults()
    run_out()
    work()
    assert tries(delivery) == [("store", "stored")]


def test_history_goes_on_as_soon_as_there_is_room_and_not_only_at_the_next_look(vendors: RunningSandbox) -> None:
    filed = file_backfill(connect(vendors, "oura"), days=60)
    assert filed > 10
    under_way = Delivery.objects.filter(state__in=["received", "retrying"])
    with running("process_deliveries", vendors, POLL_INTERVAL="60", MAX_CONCURRENT_WEBHOOKS="4"):
        until(lambda: not under_way.exists())
