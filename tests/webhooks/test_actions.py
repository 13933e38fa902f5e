"""What support does: every arrow of docs/deliveries.md that a person draws."""

from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now

from devices.models import Link
from tests.devices.conftest import new_link
from tests.webhooks.living import again, announce, heart_rate, patient, push, send_out, tries, values, work
from webhooks.actions import CHANNEL, IGNORABLE, RETRYABLE, ignore, requeue_unlinked, retry
from webhooks.models import Delivery

EVERY_STATE = [state for state, _ in Delivery.STATES]
sam = User(username="sam")


def held(delivery: Delivery, *, seconds: int = 60) -> Delivery:
    """A worker has it under its lease, or had it until so many seconds ago."""
    until = Now() + timedelta(seconds=seconds)
    Delivery.objects.filter(pk=delivery.pk).update(lease_token=uuid4(), lease_until=until)
    return again(delivery)


# Try again


def test_these_are_all_states() -> None:
    assert sorted(RETRYABLE) == sorted(EVERY_STATE)
    assert set(IGNORABLE) < set(EVERY_STATE)


@pytest.mark.parametrize("state", EVERY_STATE)
def test_whatever_is_tried_again_is_received_at_once(database: str, state: str) -> None:
    delivery = push(heart_rate(60), state=state, attempts=3, failures=2, planned_wait=True)
    Delivery.objects.update(next_attempt_at=Now() + timedelta(hours=9))
    assert retry(Delivery.objects.all(), by=sam) == 1
    now = again(delivery)
    assert (now.state, now.planned_wait, now.error) == ("received", False, "tried again by sam")
    assert (now.attempts, now.failures, now.dedup_key) == (3, 2, delivery.dedup_key)
    assert Delivery.objects.filter(next_attempt_at__lte=Now()).exists()


def test_trying_again_is_one_more_attempt_of_the_same_delivery(database: str) -> None:
    patient()
    delivery = push(heart_rate(60))
    work()
    assert retry(Delivery.objects.all(), by=sam) == 1
    work()
    assert Delivery.objects.get().pk == delivery.pk
    assert len(tries(delivery)) == 2
    assert values() == [60]


def test_what_waits_for_kafka_still_goes_out_when_it_is_tried_again(database: str, kafka: str) -> None:
    patient()
    delivery = push(heart_rate(60))
    work()
    Delivery.objects.update(publish_at=Now() + timedelta(hours=1))
    assert retry(Delivery.objects.all(), by=sam) == 1
    send_out()
    assert (again(delivery).state, again(delivery).outbox) == ("received", None)
    work()
    send_out()
    assert again(delivery).outbox is None


@pytest.mark.parametrize("state", ["received", "retrying"])
def test_what_a_worker_holds_is_not_tried_again(database: str, state: str) -> None:
    delivery = held(push(heart_rate(60), state=state))
    assert retry(Delivery.objects.all(), by=sam) == 0
    assert (again(delivery).state, again(delivery).lease_token) == (state, delivery.lease_token)


def test_what_a_worker_held_until_its_lease_ran_out_is_tried_again(database: str) -> None:
    delivery = held(push(heart_rate(60), state="retrying"), seconds=-1)
    assert retry(Delivery.objects.all(), by=sam) == 1
    assert (again(delivery).state, again(delivery).lease_token) == ("received", None)


def test_only_the_chosen_ones_are_tried_again(database: str) -> None:
    chosen, other = push(state="dead"), push(state="dead")
    assert retry(Delivery.objects.filter(pk=chosen.pk), by=sam) == 1
    assert (again(chosen).state, again(other).state) == ("received", "dead")


@pytest.mark.parametrize(
    ("vendor", "origin", "possible"),
    [
        ("oura", "webhook", True),
        ("whoop", "webhook", True),
        ("healthkit", "webhook", False),
        ("oura", "backfill", False),
        ("whoop", "poll", False),
        ("oura", "reconcile", False),
    ],
)
def test_what_cannot_do_without_its_body_is_not_tried_again_after_that_is_gone(
    database: str, vendor: str, origin: str, possible: bool
) -> None:
    delivery = announce(vendor, "sleep.update", "x", state="dead", origin=origin)
    Delivery.objects.update(body=None)
    assert retry(Delivery.objects.all(), by=sam) == int(possible)
    assert again(delivery).state == ("received" if possible else "dead")


def test_what_a_person_did_is_not_tried_again(database: str) -> None:
    act = announce("auren", "conflict.overridden", state="published", origin="operator")
    assert retry(Delivery.objects.all(), by=sam) == 0
    assert again(act).state == "published"


def test_workers_are_woken(database: str) -> None:
    push(state="dead")
    with psycopg.connect(database, autocommit=True) as listening:
        listening.execute(f"LISTEN {CHANNEL}")
        retry(Delivery.objects.all(), by=sam)
        assert [note.channel for note in listening.notifies(timeout=10, stop_after=1)] == [CHANNEL]


# Let be


@pytest.mark.parametrize("state", EVERY_STATE)
def test_what_is_not_done_yet_can_be_ignored_and_keeps_the_reason(database: str, state: str) -> None:
    delivery = push(heart_rate(60), state=state, planned_wait=True, error="before")
    possible = state in {"received", "retrying", "unlinked", "dead"}
    assert ignore(Delivery.objects.all(), by=sam, reason="a test phone") == int(possible)
    now = again(delivery)
    assert now.state == ("ignored" if possible else state)
    assert now.error.startswith("ignored by sam on ") is possible
    assert now.error.endswith(": a test phone") is possible
    assert now.planned_wait is not possible


def test_what_a_worker_holds_can_be_ignored_and_its_result_does_not_count(database: str) -> None:
    delivery = held(push(heart_rate(60), state="retrying"))
    assert ignore(Delivery.objects.all(), by=sam, reason="a test phone") == 1
    assert (again(delivery).state, again(delivery).lease_token) == ("ignored", None)
    work()
    assert again(delivery).state == "ignored"


def test_an_ignored_one_can_be_tried_again(database: str) -> None:
    patient()
    delivery = push(heart_rate(60), state="unlinked")
    ignore(Delivery.objects.all(), by=sam, reason="a test phone")
    assert requeue_unlinked() == 0
    assert retry(Delivery.objects.all(), by=sam) == 1
    work()
    assert (again(delivery).state, values()) == ("stored", [60])


def test_a_dead_one_that_is_ignored_has_still_been_dead_and_says_so(database: str, kafka: str) -> None:
    delivery = push(state="dead", shard=3, outbox=b'{"key": "somebody", "messages": []}')
    ignore(Delivery.objects.all(), by=sam, reason="a test phone")
    send_out()
    assert (again(delivery).state, again(delivery).outbox) == ("ignored", None)


# A link appears


@pytest.mark.parametrize(
    ("change", "usable"),
    [
        ({"status": "active"}, True),
        ({"status": "stale"}, True),
        ({"status": "expired"}, False),
        ({"status": "revoked"}, False),
        ({"status": "active", "paused_at": Now()}, False),
    ],
)
def test_what_waits_for_a_link_is_received_when_a_usable_one_is_there(
    database: str, change: dict[str, object], usable: bool
) -> None:
    delivery = announce("oura", "sleep.update", "x", state="unlinked", error="no link for this vendor user yet")
    assert requeue_unlinked("oura", "user_1") == 0
    new_link("oura")
    Link.objects.update(**change)
    assert requeue_unlinked("oura", "user_1") == int(usable)
    assert again(delivery).state == ("received" if usable else "unlinked")
    assert (again(delivery).error == "") is usable


@pytest.mark.parametrize("state", [state for state in EVERY_STATE if state != "unlinked"])
def test_a_link_changes_nothing_for_what_does_not_wait_for_it(database: str, state: str) -> None:
    delivery = announce("oura", "sleep.update", "x", state=state)
    new_link("oura")
    assert requeue_unlinked() == 0
    assert again(delivery).state == state
