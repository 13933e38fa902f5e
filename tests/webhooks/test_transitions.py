"""Every arrow of the table in docs/deliveries.md, through the real worker and the vendors' real HTTP."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from prometheus_client import REGISTRY

from auren.sandbox.grants import Vendor
from auren.sandbox.server import RunningSandbox
from devices.models import Link
from tests.webhooks.living import (
    again,
    age,
    announce,
    connect,
    heart_rate,
    let_pass,
    patient,
    push,
    samples,
    send_out,
    stored_metrics,
    tries,
    values,
    wait_of,
    work,
)
from webhooks.actions import requeue_unlinked, retry
from webhooks.models import Delivery
from webhooks.schedule import Schedule
from webhooks.transitions import ASK_AGAIN_AFTER, RETRY_AFTER

SLEEP = "/v2/usercollection/sleep"
RECOVERY = "/developer/v2/cycle"


def night_of(vendors: RunningSandbox, vendor: Vendor = "oura", user: str = "user_1") -> str:
    return str(vendors.documents(vendor, user, "sleep")[-1]["id"])


@pytest.fixture
def night(vendors: RunningSandbox) -> str:
    """The newest sleep of user_1, whose ring is linked."""
    connect(vendors, "oura")
    return night_of(vendors)


@pytest.fixture
def scored(vendors: RunningSandbox) -> str:
    """The newest WHOOP sleep of user_1, whose band is linked."""
    connect(vendors, "whoop")
    return night_of(vendors, "whoop")


def fail_with(vendors: RunningSandbox, status: int, *, count: int = 1, retry_after: int | None = None) -> None:
    vendors.script_fault("oura", SLEEP, status=status, count=count, retry_after=retry_after)


def until_it_ends(delivery: Delivery, at_most: int = 12) -> Iterator[float]:
    """Try after try: the wait that was planned after each, none after the last."""
    for _ in range(at_most):
        work()
        if again(delivery).state != "retrying":
            return
        yield wait_of(delivery)
        let_pass(delivery)
    pytest.fail(f"still retrying after {at_most} tries")


# received -> stored -> published


def test_an_announced_document_is_fetched_stored_and_published(night: str, kafka: str) -> None:
    delivery = announce("oura", "sleep.update", night)
    work()
    stored = again(delivery)
    assert (stored.state, stored.error, stored.sequence) == ("stored", "", 1)
    assert stored.sample_count == len(samples()) > 0
    assert {"sleep_duration", "sleep_stage", "heart_rate"} <= stored_metrics()
    assert stored.document is not None
    assert night in stored.document
    send_out()
    published = again(delivery)
    assert (published.state, published.outbox, published.lease_token) == ("published", None, None)
    assert published.published_at is not None
    assert published.stored_at is not None
    assert tries(delivery) == [("store", "stored"), ("publish", "published")]


def test_a_batch_from_a_phone_needs_no_link_made_beforehand(vendors: RunningSandbox) -> None:
    patient()
    delivery = push(heart_rate(61), heart_rate(500))
    work()
    stored = again(delivery)
    assert (stored.state, stored.sample_count, values()) == ("stored", 1, [61])
    assert stored.refused is not None
    assert [each["why"] for each in stored.refused] == ["500 /min is outside the plausible range 20 to 300"]
    assert stored.link is not None
    assert stored.link.vendor == "healthkit"


def test_an_announcement_without_an_id_asks_for_the_recent_days(vendors: RunningSandbox) -> None:
    connect(vendors, "whoop")
    delivery = announce("whoop", "recovery.updated")
    work()
    assert again(delivery).state == "stored"
    assert len(samples("user_1", "whoop_recovery_score")) >= 2


def test_a_deletion_needs_no_call_to_the_vendor(vendors: RunningSandbox, night: str) -> None:
    announce("oura", "sleep.create", night, event_time=timezone.now())
    work()
    vendors.forget_calls()
    gone = announce("oura", "sleep.delete", night, event_time=timezone.now() + timedelta(seconds=2))
    work()
    assert (again(gone).state, samples()) == ("stored", [])
    assert vendors.calls("oura", "/v2") == []


# received -> ignored


@pytest.mark.parametrize(
    ("vendor", "event_type", "object_id", "why"),
    [
        ("oura", "moods.update", "m-1", "moods.update is not a type we know"),
        ("oura", "session.update", "s-1", "session.update is of no interest"),
        ("whoop", "sleep.updated", "10235", "an id of the vendor's first API, which is gone"),
        ("oura", "sleep.delete", "", "a deletion that names no object"),
    ],
)
def test_what_is_of_no_interest_is_ignored_and_says_why(
    vendors: RunningSandbox, vendor: Vendor, event_type: str, object_id: str, why: str
) -> None:
    connect(vendors, vendor)
    vendors.forget_calls()
    delivery = announce(vendor, event_type, object_id)
    work()
    ignored = again(delivery)
    assert (ignored.state, ignored.error, ignored.outbox, ignored.sequence) == ("ignored", why, None, None)
    assert tries(delivery) == [("read", "ignored")]
    assert vendors.calls(method="GET") == []


@pytest.mark.parametrize(
    ("documents", "why"),
    [
        ([], "no sample in it"),
        ([heart_rate(4)], "no sample in it: 1 refused"),
    ],
)
def test_a_document_without_a_sample_is_ignored(
    vendors: RunningSandbox, documents: list[dict[str, object]], why: str
) -> None:
    patient()
    delivery = push(*documents)
    work()
    assert (again(delivery).state, again(delivery).error) == ("ignored", why)


# received -> unlinked -> received


def test_a_delivery_without_a_link_waits_for_one(vendors: RunningSandbox) -> None:
    delivery = announce("oura", "sleep.update", night_of(vendors))
    work()
    waiting = again(delivery)
    assert (waiting.state, waiting.error) == ("unlinked", "no link for this vendor user yet")
    assert requeue_unlinked() == 0
    connect(vendors, "oura")
    assert requeue_unlinked("oura", "user_1") == 1
    work()
    assert again(delivery).state == "stored"
    assert tries(delivery) == [("link", "unlinked"), ("store", "stored")]


def test_a_new_link_wakes_only_the_deliveries_of_its_vendor_user(vendors: RunningSandbox) -> None:
    others = [announce("oura", "sleep.update", "x", user="user_2"), announce("whoop", "sleep.updated", "x")]
    work()
    for vendor, user in (("oura", "user_2"), ("whoop", "user_1")):
        connect(vendors, vendor, user)  # type: ignore[arg-type]
    assert requeue_unlinked("oura", "user_1") == 0
    assert {again(each).state for each in others} == {"unlinked"}


@pytest.mark.parametrize("change", [{"status": "expired"}, {"status": "revoked"}, {"paused_at": timezone.now()}])
def test_a_link_that_may_not_be_used_makes_it_wait_until_the_schedule_finds_it_revived(
    vendors: RunningSandbox, night: str, change: dict[str, object]
) -> None:
    Link.objects.update(**change)
    vendors.forget_calls()
    delivery = announce("oura", "sleep.update", night)
    work()
    assert (again(delivery).state, again(delivery).error) == ("unlinked", "the link is expired, revoked or paused")
    assert vendors.calls(method="GET") == []
    schedule = Schedule()
    assert schedule.turn()
    assert again(delivery).state == "unlinked"
    Link.objects.update(status="stale", paused_at=None)
    schedule.chores[0].due_at = 0
    schedule.turn()
    assert again(delivery).state == "received"
    schedule.give_back()


def test_the_schedule_looks_for_new_links_once_a_minute() -> None:
    assert [chore.seconds for chore in Schedule().chores if chore.work is requeue_unlinked] == [60]


def test_a_grant_that_the_patient_withdrew_makes_it_wait_for_the_patient(vendors: RunningSandbox, night: str) -> None:
    vendors.revoke("oura", "user_1")
    delivery = announce("oura", "sleep.update", night)
    work()
    assert again(delivery).state == "unlinked"
    assert "the patient must connect again" in again(delivery).error
    assert Link.objects.get().status == "expired"


def test_a_phones_delivery_waits_for_its_patient(vendors: RunningSandbox) -> None:
    delivery = push(heart_rate(60), user="somebody")
    work()
    assert again(delivery).state == "unlinked"
    patient("somebody")
    assert requeue_unlinked() == 1
    work()
    assert again(delivery).state == "stored"


def test_the_sandboxes_unknown_users_become_patients(vendors: RunningSandbox) -> None:
    delivery = push(heart_rate(60), user="user_77")
    work()
    assert (again(delivery).state, values("user_77")) == ("stored", [60])


# received -> retrying -> stored, or dead


def test_a_passing_fault_is_tried_again(vendors: RunningSandbox, night: str) -> None:
    fail_with(vendors, 503)
    delivery = announce("oura", "sleep.update", night)
    work()
    failed = again(delivery)
    assert (failed.state, failed.failures, failed.planned_wait, failed.error_class) == (
        "retrying",
        1,
        False,
        "http_503",
    )
    assert "503" in failed.error
    assert 24 <= wait_of(delivery) <= 36
    let_pass(delivery)
    work()
    assert (again(delivery).state, again(delivery).error, again(delivery).error_class) == ("stored", "", "")
    assert tries(delivery) == [("fetch", "failed"), ("store", "stored")]


def test_the_schedule_of_tries_runs_out_and_the_delivery_is_dead(vendors: RunningSandbox, night: str) -> None:
    fail_with(vendors, 500, count=100)
    delivery = announce("oura", "sleep.update", night)
    waits = list(until_it_ends(delivery))
    assert len(waits) == len(RETRY_AFTER) == 9
    for wait, planned in zip(waits, RETRY_AFTER, strict=True):
        assert 0.8 * planned - 2 <= wait <= 1.2 * planned
    dead = again(delivery)
    assert (dead.state, dead.attempts, dead.failures) == ("dead", 10, 10)
    assert dead.error.startswith("given up: the schedule of tries has run out; oura answered 500")
    assert tries(delivery) == 9 * [("fetch", "failed")] + [("fetch", "dead")]
    assert dead.outbox is not None


def test_waits_are_spread_so_that_not_all_come_back_at_once(vendors: RunningSandbox, night: str) -> None:
    fail_with(vendors, 503, count=5)
    deliveries = [announce("oura", "sleep.update", f"{night}-{place}") for place in range(5)]
    work()
    assert len({round(wait_of(each), 3) for each in deliveries}) == 5


@pytest.mark.parametrize(("status", "retry_after"), [(503, 7200), (500, 90)])
def test_retry_after_is_obeyed(vendors: RunningSandbox, night: str, status: int, retry_after: int) -> None:
    fail_with(vendors, status, retry_after=retry_after)
    delivery = announce("oura", "sleep.update", night)
    work()
    assert retry_after - 2 <= wait_of(delivery) <= 1.2 * retry_after
    assert again(delivery).failures == 1


def test_a_shorter_retry_after_does_not_hurry_the_schedule(vendors: RunningSandbox, night: str) -> None:
    fail_with(vendors, 503, retry_after=1)
    delivery = announce("oura", "sleep.update", night)
    work()
    assert wait_of(delivery) > 20


@pytest.mark.parametrize("status", [400, 403, 410, 422])
def test_a_refusal_for_good_is_dead_at_once(vendors: RunningSandbox, night: str, status: int) -> None:
    fail_with(vendors, status)
    delivery = announce("oura", "sleep.update", night)
    work()
    dead = again(delivery)
    assert (dead.state, dead.error_class, dead.sequence) == ("dead", f"http_{status}", 1)
    assert tries(delivery) == [("fetch", "dead")]


@pytest.mark.parametrize(("status", "count"), [(408, 1), (401, 2)])
def test_a_client_error_that_may_pass_is_tried_again(
    vendors: RunningSandbox, night: str, status: int, count: int
) -> None:
    fail_with(vendors, status, count=count)
    delivery = announce("oura", "sleep.update", night)
    work()
    assert (again(delivery).state, again(delivery).failures) == ("retrying", 1)


def test_one_401_costs_no_try(vendors: RunningSandbox, night: str) -> None:
    fail_with(vendors, 401)
    delivery = announce("oura", "sleep.update", night)
    work()
    assert tries(delivery) == [("store", "stored")]


def test_a_vendor_that_never_answers_is_tried_again(
    vendors: RunningSandbox, night: str, settings_of_vendor_timeout: None
) -> None:
    vendors.script_fault("oura", SLEEP, "hang")
    delivery = announce("oura", "sleep.update", night)
    work()
    assert (again(delivery).state, again(delivery).error_class) == ("retrying", "timeout")


@pytest.fixture
def settings_of_vendor_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django.conf.settings.VENDOR_TIMEOUT", 0.2)


# 404


def test_a_document_that_is_not_there_yet_is_asked_for_again(vendors: RunningSandbox, night: str) -> None:
    fail_with(vendors, 404)
    delivery = announce("oura", "sleep.update", night)
    work()
    assert (again(delivery).state, again(delivery).failures) == ("retrying", 1)
    let_pass(delivery)
    work()
    assert again(delivery).state == "stored"


def test_a_document_that_stays_away_for_an_hour_is_ignored(vendors: RunningSandbox, night: str) -> None:
    fail_with(vendors, 404, count=100)
    delivery = announce("oura", "sleep.update", night)
    waits = list(until_it_ends(delivery))
    assert 1800 < sum(waits) < 3600
    ignored = again(delivery)
    assert ignored.state == "ignored"
    assert ignored.error.startswith("the vendor no longer has it")
    assert tries(delivery)[-1] == ("fetch", "ignored")


def test_a_404_an_hour_after_receipt_is_the_last_one(vendors: RunningSandbox, night: str) -> None:
    fail_with(vendors, 404, count=2)
    delivery = announce("oura", "sleep.update", night)
    work()
    age(delivery, timedelta(minutes=61))
    let_pass(delivery)
    work()
    assert again(delivery).state == "ignored"


# Postponed


def test_a_429_postpones_without_a_try(vendors: RunningSandbox, night: str) -> None:
    fail_with(vendors, 429, retry_after=300)
    delivery = announce("oura", "sleep.update", night)
    work()
    postponed = again(delivery)
    assert (postponed.state, postponed.attempts, postponed.failures) == ("retrying", 0, 0)
    assert postponed.planned_wait
    assert "429" in postponed.error
    assert 295 <= wait_of(delivery) <= 365
    assert tries(delivery) == []
    let_pass(delivery)
    work()
    assert tries(delivery) == [("store", "stored")]
    assert not again(delivery).planned_wait


def test_an_open_breaker_postpones_without_a_try(vendors: RunningSandbox, night: str) -> None:
    fail_with(vendors, 500, count=100)
    deliveries = [announce("oura", "sleep.update", f"{night}-{place}") for place in range(20)]
    vendors.forget_calls()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.conf.settings.MAX_CONCURRENT_WEBHOOKS", 1)
        work()
    asked = [delivery for delivery in deliveries if tries(delivery)]
    waiting = [delivery for delivery in deliveries if not tries(delivery)]
    assert (len(asked), len(waiting)) == (10, 10)
    assert len(vendors.calls("oura", SLEEP)) == 10
    assert {(again(each).state, again(each).planned_wait, again(each).failures) for each in waiting} == {
        ("retrying", True, 0)
    }
    assert all("keeps failing and is not asked for now" in again(each).error for each in waiting)
    assert REGISTRY.get_sample_value("auren_vendor_breaker", {"vendor": "oura"}) == 2


# Pending


def pend(vendors: RunningSandbox, sleep: str) -> None:
    vendors.edit_document("whoop", "user_1", "recovery", sleep, {"score_state": "PENDING_SCORE"})


def test_an_unscored_document_is_asked_for_again_and_stored_once_it_is_scored(
    vendors: RunningSandbox, scored: str
) -> None:
    pend(vendors, scored)
    delivery = announce("whoop", "recovery.updated", scored)
    work()
    pending = again(delivery)
    assert (pending.state, pending.pending_asks, pending.failures, pending.planned_wait) == ("retrying", 1, 0, True)
    assert pending.error == "the vendor has not finished it yet"
    vendors.edit_document("whoop", "user_1", "recovery", scored, {"score_state": "SCORED"})
    let_pass(delivery)
    work()
    assert again(delivery).state == "stored"
    assert "whoop_recovery_score" in stored_metrics()
    assert tries(delivery) == [("fetch", "pending"), ("store", "stored")]


def test_a_document_that_is_never_scored_is_asked_for_six_times_more_and_ignored(
    vendors: RunningSandbox, scored: str
) -> None:
    pend(vendors, scored)
    delivery = announce("whoop", "recovery.updated", scored)
    waits = list(until_it_ends(delivery))
    assert len(waits) == len(ASK_AGAIN_AFTER) == 6
    for wait, planned in zip(waits, ASK_AGAIN_AFTER, strict=True):
        assert planned - 2 <= wait <= planned
    ignored = again(delivery)
    assert (ignored.state, ignored.error, ignored.failures) == ("ignored", "the vendor never scored it", 0)
    assert len(tries(delivery)) == 7


@pytest.fixture
def workout(vendors: RunningSandbox) -> str:
    """A WHOOP workout whose strain is not known yet, but its duration is."""
    connect(vendors, "whoop")
    document = next(iter(vendors.documents("whoop", "user_1", "workout")))
    vendors.put_document("whoop", "user_1", "workout", document | {"score_state": "PENDING_SCORE"})
    return str(document["id"])


def test_the_samples_a_pending_document_has_so_far_are_stored_at_once(workout: str) -> None:
    delivery = announce("whoop", "workout.updated", workout)
    work()
    assert (again(delivery).state, again(delivery).sample_count) == ("retrying", 1)
    assert stored_metrics() == {"workout_duration"}


def test_a_pending_document_that_yielded_a_sample_ends_stored(workout: str, kafka: str) -> None:
    delivery = announce("whoop", "workout.updated", workout)
    list(until_it_ends(delivery))
    assert (again(delivery).state, again(delivery).sample_count) == ("stored", 1)
    send_out()
    assert again(delivery).state == "published"


def test_a_pending_document_whose_early_sample_was_refused_in_the_end_still_ends_stored(
    vendors: RunningSandbox, workout: str, kafka: str
) -> None:
    delivery = announce("whoop", "workout.updated", workout)
    work()
    Delivery.objects.update(pending_asks=6)
    vendors.edit_document("whoop", "user_1", "workout", workout, {"end": "2014-01-01T00:00:00.000Z"})
    let_pass(delivery)
    work()
    assert (again(delivery).state, again(delivery).sample_count) == ("stored", 1)
    send_out()
    assert again(delivery).state == "published"


def test_a_fault_while_pending_counts_as_one_and_the_asking_goes_on(vendors: RunningSandbox, scored: str) -> None:
    pend(vendors, scored)
    delivery = announce("whoop", "recovery.updated", scored)
    work()
    vendors.script_fault("whoop", RECOVERY, status=500)
    let_pass(delivery)
    work()
    assert (again(delivery).failures, again(delivery).pending_asks, again(delivery).planned_wait) == (1, 1, False)
    let_pass(delivery)
    work()
    assert (again(delivery).failures, again(delivery).pending_asks) == (1, 2)
    assert 1798 <= wait_of(delivery) <= 1800


# Dead, and back


def test_reviving_a_dead_delivery_is_one_more_attempt_of_the_same(
    vendors: RunningSandbox, night: str, kafka: str
) -> None:
    fail_with(vendors, 403)
    delivery = announce("oura", "sleep.update", night)
    work()
    send_out()
    assert again(delivery).state == "dead"
    assert retry(Delivery.objects.all(), by=User(username="sam")) == 1
    work()
    send_out()
    assert again(delivery).state == "published"
    assert again(delivery).sequence == 2
    assert tries(delivery) == [
        ("fetch", "dead"),
        ("publish", "published"),
        ("store", "stored"),
        ("publish", "published"),
    ]


def test_a_revived_delivery_whose_schedule_has_run_out_has_that_one_try(vendors: RunningSandbox, night: str) -> None:
    fail_with(vendors, 500, count=100)
    delivery = announce("oura", "sleep.update", night, state="dead", failures=10)
    assert retry(Delivery.objects.all(), by=User(username="sam")) == 1
    work()
    assert again(delivery).state == "dead"
    assert len(tries(delivery)) == 1
