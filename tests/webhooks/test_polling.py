"""Data that arrive although the vendor said nothing."""

from datetime import timedelta

import msgspec
import pytest
from django.db.models.functions import Now
from django.utils import timezone
from pytest_django import Settings

from auren.biometrics.models import Timeline
from auren.sandbox.server import RunningSandbox
from devices.models import Link, Sync, Token
from tests.webhooks.living import again, announce, connect, patient, push, samples, values, work
from webhooks.models import Delivery
from webhooks.polling import file_polls, file_reconciliations, mark_stale
from webhooks.processing import Window

DAY = timedelta(days=1)


@pytest.fixture
def ring(vendors: RunningSandbox) -> Link:
    return connected(vendors, "oura")


def connected(vendors: RunningSandbox, vendor: str, who: str = "user_1", *, ago: timedelta = 2 * DAY) -> Link:
    link = connect(vendors, "oura" if vendor == "oura" else "whoop", who)
    Link.objects.filter(pk=link.pk).update(connected_at=Now() - ago)
    return link


def lists(origin: str) -> list[tuple[str, str]]:
    """Vendor and kind of every list that is to be asked for."""
    filed = Delivery.objects.filter(origin=origin).order_by("vendor", "event_type")
    return [(delivery.vendor, delivery.event_type.removesuffix(f".{origin}")) for delivery in filed]


def window_of(delivery: Delivery) -> Window:
    return msgspec.json.decode(bytes(delivery.body or b""), type=Window)


def version() -> int:
    return Timeline.objects.get(patient_id=patient().pk).version


def test_what_no_webhook_announces_is_polled(vendors: RunningSandbox) -> None:
    connected(vendors, "oura")
    connected(vendors, "whoop")
    assert file_polls() == 3
    assert lists("poll") == [("oura", "heartrate"), ("whoop", "body_measurement"), ("whoop", "cycle")]


def test_a_poll_stores_what_came_since(ring: Link) -> None:
    file_polls()
    work()
    delivery = Delivery.objects.get(origin="poll")
    assert delivery.state == "stored"
    assert len(samples(metric="heart_rate")) == delivery.sample_count > 100


def test_a_kind_is_polled_again_only_after_its_interval(ring: Link) -> None:
    assert [file_polls(), file_polls()] == [1, 0]
    work()
    assert file_polls() == 0
    Sync.objects.update(polled_at=Now() - timedelta(hours=1))
    assert file_polls() == 1


def test_a_link_that_waits_for_one_poll_is_not_asked_to_wait_for_a_second(ring: Link) -> None:
    file_polls()
    Sync.objects.update(polled_at=Now() - timedelta(hours=5))
    assert file_polls() == 0


def test_a_poll_reaches_back_over_a_day_and_over_polls_that_were_missed(ring: Link) -> None:
    file_polls()
    first = window_of(Delivery.objects.get(origin="poll"))
    assert first.end_at - first.start_at == pytest.approx(2 * DAY, abs=timedelta(minutes=1))
    work()
    Sync.objects.update(polled_at=Now() - timedelta(hours=1))
    file_polls()
    second = window_of(Delivery.objects.filter(origin="poll").latest("id"))
    assert second.end_at - second.start_at == DAY


def test_a_new_link_is_not_polled_before_its_first_interval_is_over(vendors: RunningSandbox) -> None:
    connect(vendors, "oura")
    assert file_polls() == 0


@pytest.mark.parametrize("change", [{"status": "expired"}, {"status": "revoked"}, {"paused_at": timezone.now()}])
def test_links_that_cannot_be_asked_are_left_alone(ring: Link, change: dict[str, object]) -> None:
    Link.objects.filter(pk=ring.pk).update(**change)
    assert file_polls() == file_reconciliations() == 0


def test_what_the_patient_does_not_share_is_not_asked_for(vendors: RunningSandbox, ring: Link) -> None:
    Link.objects.filter(pk=ring.pk).update(scopes="extapi:personal extapi:daily")
    band = connected(vendors, "whoop")
    Link.objects.filter(pk=band.pk).update(scopes="offline read:cycles")
    assert (file_polls(), lists("poll")) == (1, [("whoop", "cycle")])
    file_reconciliations()
    assert lists("reconcile") == [
        ("oura", "daily_activity"),
        ("oura", "daily_readiness"),
        ("oura", "daily_sleep"),
        ("oura", "daily_stress"),
        ("oura", "sleep"),
        ("whoop", "cycle"),
    ]


def test_links_without_a_token_and_phones_are_left_alone(ring: Link) -> None:
    push()
    work()
    Token.objects.all().delete()
    assert file_polls() == file_reconciliations() == 0


def test_a_poll_without_news_stores_and_says_nothing(vendors: RunningSandbox, ring: Link) -> None:
    vendors.set_clock(timezone.now())
    file_polls()
    work()
    before, known = version(), len(samples())
    Sync.objects.update(polled_at=Now() - timedelta(hours=1))
    file_polls()
    work()
    second = Delivery.objects.filter(origin="poll").latest("id")
    assert (second.state, second.sample_count, second.outbox) == ("ignored", 0, None)
    assert "stored already" in second.error
    assert (version(), len(samples())) == (before, known)


def test_of_a_list_only_what_is_new_is_stored_and_told(vendors: RunningSandbox, ring: Link) -> None:
    nights = vendors.documents("oura", "user_1", "sleep")[-3:]
    announce("oura", "sleep.update", str(nights[0]["id"]))
    work()
    reconcile()
    filed = Delivery.objects.get(event_type="sleep.reconcile")
    told = {sample["record"] for sample in outbox_of(filed)}
    assert str(nights[0]["id"]) not in told
    assert str(nights[1]["id"]) in told


def test_an_edit_that_was_never_announced_is_found(vendors: RunningSandbox, ring: Link) -> None:
    night = vendors.documents("oura", "user_1", "sleep")[-1]
    announce("oura", "sleep.update", str(night["id"]))
    work()
    vendors.edit_document("oura", "user_1", "sleep", str(night["id"]), {"average_hrv": 77})
    reconcile()
    assert 77 in values(metric="hrv_rmssd")
    assert {sample["record"] for sample in outbox_of(Delivery.objects.get(event_type="sleep.reconcile"))} >= {
        str(night["id"])
    }


def reconcile() -> None:
    file_reconciliations()
    work()


def outbox_of(delivery: Delivery) -> list[dict[str, object]]:
    told = msgspec.json.decode(bytes(again(delivery).outbox or b"{}"))
    return [sample for message in told["messages"] for sample in message["value"].get("samples", [])]


def test_every_link_is_reconciled_once_a_day_over_all_its_kinds(ring: Link) -> None:
    assert file_reconciliations() == 10
    assert {kind for _, kind in lists("reconcile")} >= {"sleep", "daily_activity", "heartrate", "workout"}
    assert file_reconciliations() == 0
    Delivery.objects.update(state="published")
    Link.objects.update(reconciled_at=Now() - timedelta(hours=25))
    assert file_reconciliations() == 10


def test_a_link_whose_lists_still_wait_is_not_reconciled_a_second_time(ring: Link) -> None:
    assert file_reconciliations() == 10
    Link.objects.update(reconciled_at=Now() - timedelta(hours=25))
    assert file_reconciliations() == 0
    Delivery.objects.update(state="retrying", pending_asks=1)  # for a score that may never come
    assert file_reconciliations() == 10


def test_a_new_link_has_its_history_and_is_reconciled_a_day_later(vendors: RunningSandbox) -> None:
    connect(vendors, "oura")
    assert file_reconciliations() == 0


def test_three_days_of_silence_heal_by_themselves(vendors: RunningSandbox, ring: Link) -> None:
    vendors.set_faults("oura", drop_webhook=1.0)
    since = timezone.now() - 3 * DAY
    reconcile()
    nights = [
        doc for doc in vendors.documents("oura", "user_1", "sleep") if str(doc["bedtime_end"]) > since.isoformat()
    ]
    records = {sample.record for sample in samples()}
    assert nights
    assert {str(night["id"]) for night in nights if night["type"] != "rest"} <= records


def test_a_cycle_that_still_runs_is_left_to_the_next_list(vendors: RunningSandbox) -> None:
    # Whose band was off last night has no running cycle.
    people = [f"user_{number}" for number in range(1, 21)]
    who = next(one for one in people if "end" not in vendors.documents("whoop", one, "cycle")[-1])
    connected(vendors, "whoop", who)
    reconcile()
    cycles = Delivery.objects.get(event_type="cycle.reconcile")
    assert (cycles.state, cycles.pending_asks) == ("stored", 0)
    assert values(who, metric="day_strain")


def test_what_is_polled_is_a_sign_of_life_only_with_news(vendors: RunningSandbox, ring: Link) -> None:
    vendors.set_clock(timezone.now())
    file_polls()
    work()
    Link.objects.update(last_delivery_at=Now() - 9 * DAY)
    Sync.objects.update(polled_at=Now() - timedelta(hours=1))
    file_polls()
    work()
    ring.refresh_from_db()
    assert ring.last_synced_at is not None
    assert ring.last_synced_at > timezone.now() - timedelta(minutes=5)
    assert ring.last_delivery_at is not None
    assert ring.last_delivery_at < timezone.now() - 8 * DAY


def test_each_kind_remembers_when_the_vendor_last_answered_for_it(vendors: RunningSandbox, ring: Link) -> None:
    announce("oura", "sleep.update", str(vendors.documents("oura", "user_1", "sleep")[-1]["id"]))
    announce("oura", "daily_stress.update", "gone")
    work()
    assert {sync.kind for sync in Sync.objects.filter(link=ring, synced_at__isnull=False)} == {"sleep"}


def heard(link: Link, *days_ago: float) -> None:
    """Webhooks that came so many days ago, the last of which is the last that was heard."""
    for days in days_ago:
        announce("oura", "sleep.update", "x", link=link, state="ignored", received_at=timezone.now() - days * DAY)
    Link.objects.filter(pk=link.pk).update(last_delivery_at=timezone.now() - min(days_ago) * DAY)


def test_a_link_quiet_beyond_its_habit_becomes_stale(ring: Link) -> None:
    heard(ring, *(4 + day for day in range(20)))
    assert mark_stale() == 1
    ring.refresh_from_db()
    assert ring.status == "stale"


def test_a_link_that_is_often_quiet_for_so_long_stays_active(ring: Link) -> None:
    heard(ring, *(4 + 2 * day for day in range(10)))
    assert mark_stale() == 0


def test_two_days_without_a_word_are_nothing(ring: Link) -> None:
    heard(ring, *(1.9 + day / 10 for day in range(10)))
    assert mark_stale() == 0


def test_a_paused_link_is_not_called_stale(ring: Link) -> None:
    heard(ring, *(9 + day for day in range(20)))
    Link.objects.update(paused_at=Now())
    assert mark_stale() == 0


def test_a_link_whose_tries_fail_for_hours_becomes_stale(ring: Link) -> None:
    announce("oura", "sleep.update", "x", link=ring, state="retrying", failures=5, next_attempt_at=Now() + DAY)
    Link.objects.update(last_delivery_at=Now(), last_synced_at=Now() - timedelta(hours=7))
    assert mark_stale() == 1


def test_a_stale_link_that_is_heard_from_is_active_again(vendors: RunningSandbox, ring: Link) -> None:
    Link.objects.update(status="stale")
    announce("oura", "sleep.update", str(vendors.documents("oura", "user_1", "sleep")[-1]["id"]))
    work()
    ring.refresh_from_db()
    assert ring.status == "active"


def test_reconciliation_reaches_back_as_far_as_it_is_told(ring: Link, settings: Settings) -> None:
    settings.RECONCILE_DAYS = 3
    file_reconciliations()
    window = window_of(Delivery.objects.get(event_type="sleep.reconcile"))
    assert window.end_at - window.start_at == 3 * DAY
