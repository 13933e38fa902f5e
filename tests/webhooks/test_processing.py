"""From a claimed delivery to what is written of it: lists, faults of ours, and attempts."""

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import psycopg
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone

from auren.biometrics.models import Record, Timeline
from auren.sandbox.grants import Vendor
from auren.sandbox.server import RunningSandbox
from devices.models import Link
from devices.vendors.registry import VENDORS
from tests.webhooks.living import (
    NOON,
    again,
    announce,
    connect,
    heart_rate,
    let_pass,
    patient,
    push,
    samples,
    stored_metrics,
    tries,
    values,
    work,
)
from webhooks.actions import retry
from webhooks.backfill import file_backfill, file_windows
from webhooks.models import Attempt, Delivery

SLEEP = "/v2/usercollection/sleep"
sam = User(username="sam")


@pytest.fixture
def ring(vendors: RunningSandbox) -> Link:
    return connect(vendors, "oura")


@pytest.fixture
def band(vendors: RunningSandbox) -> Link:
    return connect(vendors, "whoop")


# Lists


def pages() -> list[Delivery]:
    return list(Delivery.objects.filter(origin="backfill").order_by("id"))


def test_a_history_is_filed_as_lists_and_followed_page_by_page(vendors: RunningSandbox, ring: Link) -> None:
    filed = file_backfill(ring, days=30)
    assert file_backfill(ring, days=30) == 0
    work()
    assert len(pages()) > filed
    assert {page.state for page in pages()} <= {"stored", "ignored"}
    nights = {night["id"] for night in vendors.documents("oura", "user_1", "sleep") if night["type"] != "rest"}
    assert nights <= set(Record.objects.values_list("record", flat=True))


def test_a_page_processed_twice_files_its_successor_once(vendors: RunningSandbox, ring: Link) -> None:
    tomorrow = timezone.now() + timedelta(days=1)
    file_windows(ring, tomorrow - timedelta(days=7), tomorrow, origin="backfill")
    work()
    count = len(pages())
    stored = [(sample.record, sample.metric, sample.start_at, sample.value) for sample in samples()]
    assert retry(Delivery.objects.all(), by=sam) == count
    work()
    assert len(pages()) == count
    assert [(sample.record, sample.metric, sample.start_at, sample.value) for sample in samples()] == stored


def test_a_page_that_is_pending_is_followed_at_once_and_only_once(vendors: RunningSandbox, band: Link) -> None:
    vendors.set_scoring(pending_share=1, pending_minutes=3_000)
    tomorrow = timezone.now() + timedelta(days=1)
    file_windows(band, tomorrow - timedelta(days=24), tomorrow, origin="backfill")
    work()
    [pending] = [page for page in pages() if page.event_type == "recovery.backfill" and page.state == "retrying"]
    assert (pending.pending_asks, pending.planned_wait) == (1, True)
    assert pending.sample_count > 0
    count = len(pages())
    let_pass(pending)
    work()
    assert (again(pending).pending_asks, len(pages())) == (2, count)


def test_a_page_whose_body_is_gone_is_dead_and_cannot_be_tried_again(vendors: RunningSandbox, ring: Link) -> None:
    file_windows(ring, NOON - timedelta(days=1), NOON, origin="backfill")
    Delivery.objects.update(body=None)
    work()
    assert {(page.state, page.error) for page in pages()} == {
        ("dead", "the body has been deleted after its retention time")
    }
    assert retry(Delivery.objects.all(), by=sam) == 0


# One call for many


def test_announcements_that_wait_together_share_one_call(vendors: RunningSandbox, ring: Link) -> None:
    night = vendors.documents("oura", "user_1", "sleep")[-1]["id"]
    vendors.set_vendor("oura", latency_ms=100)
    deliveries = [announce("oura", "sleep.update", night) for _ in range(10)]
    work()
    assert len(vendors.calls("oura", SLEEP)) == 1
    assert sorted(again(each).state for each in deliveries) == 9 * ["ignored"] + ["stored"]


def test_a_try_begins_when_its_turn_at_the_vendor_has_come(
    vendors: RunningSandbox, ring: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "MAX_CONCURRENT_WEBHOOKS", 1)
    documents = vendors.documents("oura", "user_1", "daily_activity")[-3:]
    vendors.set_vendor("oura", latency_ms=200)
    deliveries = [announce("oura", "daily_activity.update", document["id"]) for document in documents]
    work()
    begun = sorted(Attempt.objects.get(delivery=each).started_at for each in deliveries)
    assert all(later - earlier >= timedelta(milliseconds=190) for earlier, later in pairwise(begun))


def test_a_document_is_kept_as_the_vendor_gave_it(vendors: RunningSandbox, ring: Link) -> None:
    document = vendors.documents("oura", "user_1", "daily_activity")[-1]
    delivery = announce("oura", "daily_activity.update", document["id"])
    work()
    assert again(delivery).document is not None
    assert re.search(rf'"steps":{document["steps"]}\b', str(again(delivery).document))


# What is not the vendor's fault


def test_a_fault_of_ours_is_a_failed_try_and_says_where_to_look(
    vendors: RunningSandbox, ring: Link, caplog: pytest.LogCaptureFixture
) -> None:
    delivery = push(heart_rate(60))
    Delivery.objects.update(body=b"[]")  # ingest would not have taken it
    patient()
    work()
    assert (again(delivery).state, again(delivery).failures) == ("retrying", 1)
    assert "the worker's log has the details" in again(delivery).error
    assert f"delivery {delivery.pk}" in caplog.text


def test_a_fault_with_one_delivery_holds_nobody_else_up(vendors: RunningSandbox) -> None:
    patient()
    bad, good = push(heart_rate(60)), push(heart_rate(61))
    Delivery.objects.filter(pk=bad.pk).update(body=b"null")
    work()
    assert (again(bad).state, again(good).state) == ("retrying", "stored")


@pytest.fixture
def refusing(database: str) -> Iterator[None]:
    """A PostgreSQL that refuses one heart rate, as it may refuse any value that we did not think of."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("ALTER TABLE biometrics_sample ADD CONSTRAINT refusing CHECK (value <> 66.6)")
        yield
        connection.execute("ALTER TABLE biometrics_sample DROP CONSTRAINT refusing")


def test_what_postgresql_refuses_is_a_failed_try_and_holds_nobody_up(vendors: RunningSandbox, refusing: None) -> None:
    patient()
    deliveries = [push(heart_rate(value, NOON + timedelta(hours=value))) for value in range(60, 68)]
    bad = push(heart_rate(66.6, NOON))
    work()
    assert values() == list(range(60, 68))
    assert {again(each).state for each in deliveries} == {"stored"}
    refused = again(bad)
    assert (refused.state, refused.error_class, refused.failures) == ("retrying", "unstorable", 1)
    assert refused.error == "the database refuses what it yields (CheckViolation)"
    assert tries(bad) == [("store", "failed")]
    assert Timeline.objects.get().version == 8


@pytest.fixture
def raising(database: str) -> Iterator[None]:
    """A PostgreSQL that fails on one heart rate in a way no class of psycopg's data errors covers."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("""
            CREATE FUNCTION raising() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF new.value = 66.6 THEN RAISE EXCEPTION 'odd' USING ERRCODE = '54000'; END IF;
                RETURN new;
            END $$;
            CREATE TRIGGER raising BEFORE INSERT ON biometrics_sample FOR EACH ROW EXECUTE FUNCTION raising();
        """)
        yield
        connection.execute("DROP FUNCTION raising CASCADE")


def test_an_odd_refusal_does_not_stop_the_worker_for_good(vendors: RunningSandbox, raising: None) -> None:
    patient()
    bad, good = push(heart_rate(66.6)), push(heart_rate(61, NOON + timedelta(hours=1)))
    work()
    assert (again(bad).error_class, again(good).state) == ("unstorable", "stored")


def test_what_cannot_be_stored_is_dead_when_its_schedule_has_run_out(vendors: RunningSandbox, refusing: None) -> None:
    patient()
    bad = push(heart_rate(66.6), failures=9)
    work()
    assert (again(bad).state, again(bad).error_class) == ("dead", "unstorable")


def test_a_link_removed_while_its_document_is_fetched_makes_the_delivery_wait(
    vendors: RunningSandbox, ring: Link
) -> None:
    delivery = announce("oura", "sleep.update", "x")
    Link.objects.all().delete()
    work()
    assert again(delivery).state == "unlinked"


# What is written down


def test_refused_samples_are_listed_on_the_delivery_and_the_rest_is_stored(vendors: RunningSandbox) -> None:
    patient()
    bad = [heart_rate(5), {"type": "heart_rate", "value": 60}, heart_rate(60) | {"unit": "furlongs"}, 7]
    delivery = push(heart_rate(61), *bad)  # type: ignore[arg-type]
    work()
    stored = again(delivery)
    assert (stored.state, stored.sample_count, values()) == ("stored", 1, [61])
    assert stored.refused is not None
    assert len(stored.refused) == 4
    assert all(each["what"] and each["why"] for each in stored.refused)


def test_a_hundred_refusals_are_listed_and_the_rest_is_counted(vendors: RunningSandbox) -> None:
    patient()
    delivery = push(heart_rate(61), *(heart_rate(5) for _ in range(130)))
    work()
    refused = again(delivery).refused
    assert refused is not None
    assert len(refused) == 101
    assert refused[-1]["what"] == "30 more"


def test_a_refusal_may_quote_what_postgresql_cannot_hold(vendors: RunningSandbox) -> None:
    patient()
    delivery = push(heart_rate(61), {"type": "heart_rate", "value": "6\0", "timestamp": NOON.isoformat()})
    work()
    refused = again(delivery).refused
    assert again(delivery).state == "stored"
    assert refused is not None
    assert "\0" not in refused[0]["why"]


def test_types_that_are_not_ours_are_counted_not_refused(vendors: RunningSandbox) -> None:
    patient()
    delivery = push(heart_rate(61), heart_rate(1) | {"type": "HKQuantityTypeIdentifierInhalerUsage"})
    work()
    assert (again(delivery).ignored_count, again(delivery).refused) == (1, None)


def test_zero_is_stored_as_zero(vendors: RunningSandbox, ring: Link) -> None:
    day = vendors.documents("oura", "user_1", "daily_activity")[-1]
    vendors.edit_document("oura", "user_1", "daily_activity", day["id"], {"steps": 0, "active_calories": None})
    announce("oura", "daily_activity.update", day["id"])
    work()
    assert values(metric="steps") == [0]
    assert "active_energy" not in stored_metrics()


def test_a_synced_link_says_when(vendors: RunningSandbox, ring: Link) -> None:
    received_at = datetime(2026, 11, 1, tzinfo=UTC)
    night = vendors.documents("oura", "user_1", "sleep")[-1]["id"]
    announce("oura", "sleep.update", night, received_at=received_at)
    work()
    ring.refresh_from_db()
    assert ring.last_synced_at is not None
    assert ring.last_delivery_at == received_at


def test_postgresql_going_away_while_results_are_written_loses_none(vendors: RunningSandbox, database: str) -> None:
    patient()
    deliveries = [push(heart_rate(60 + place, NOON + timedelta(hours=place))) for place in range(30)]

    async def cut_off_again_and_again() -> None:
        from webhooks.management.commands.process_deliveries import process

        working = asyncio.create_task(process(asyncio.Event(), until_idle=True))
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as other:
            for _ in range(3):
                await asyncio.sleep(0.15)
                await other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'auren worker%'"
                )
        await working

    asyncio.run(cut_off_again_and_again())
    assert {again(each).state for each in deliveries} == {"stored"}
    assert {len(tries(each)) for each in deliveries} == {1}
    assert len(values()) == 30


# Documents that yield nothing any more


def edited(vendors: RunningSandbox, vendor: Vendor, kind: str, **changes: object) -> Delivery:
    """The newest document that has samples, announced, stored, edited by the vendor, and announced again."""
    record = newest(vendors, vendor, kind)
    verb = "update" if vendor == "oura" else "updated"
    announce(vendor, f"{kind}.{verb}", record)
    work()
    assert Record.objects.filter(start_at__isnull=False).exists()
    vendors.edit_document(vendor, "user_1", kind, record, dict(changes))
    delivery = announce(vendor, f"{kind}.{verb}", record)
    work()
    return again(delivery)


def newest(vendors: RunningSandbox, vendor: Vendor, kind: str) -> str:
    found = vendors.documents(vendor, "user_1", kind)
    yielding = [document for document in found if VENDORS[vendor].normalise(kind, document).samples]
    return str(yielding[-1]["id"])


def test_a_night_that_turns_out_to_be_rest_takes_its_samples_with_it(vendors: RunningSandbox, ring: Link) -> None:
    delivery = edited(vendors, "oura", "sleep", type="rest")
    assert delivery.state == "stored"
    assert samples() == []


def test_a_day_that_turns_out_unworn_takes_its_samples_with_it(vendors: RunningSandbox, ring: Link) -> None:
    delivery = edited(vendors, "oura", "daily_activity", non_wear_time=86_400)
    assert delivery.state == "stored"
    assert samples() == []


def test_a_night_that_cannot_be_scored_after_all_takes_its_samples_with_it(vendors: RunningSandbox, band: Link) -> None:
    delivery = edited(vendors, "whoop", "sleep", score_state="UNSCORABLE", score=None)
    assert delivery.state == "stored"
    assert samples() == []


def test_a_score_that_is_taken_back_goes_and_what_stays_stays(vendors: RunningSandbox, ring: Link) -> None:
    edited(vendors, "oura", "daily_readiness", score=None, temperature_deviation=0.4)
    assert stored_metrics() == {"skin_temperature_deviation"}


def test_what_yields_nothing_is_found_in_a_list_as_well(vendors: RunningSandbox, ring: Link) -> None:
    record = newest(vendors, "oura", "sleep")
    announce("oura", "sleep.update", record)
    work()
    vendors.edit_document("oura", "user_1", "sleep", record, {"type": "rest"})
    tomorrow = timezone.now() + timedelta(days=1)
    file_windows(ring, tomorrow - timedelta(days=5), tomorrow, origin="reconcile")
    work()
    assert record not in {sample.record for sample in samples()}


def test_what_never_yielded_anything_is_ignored(vendors: RunningSandbox, ring: Link) -> None:
    record = newest(vendors, "oura", "sleep")
    vendors.edit_document("oura", "user_1", "sleep", record, {"type": "rest"})
    delivery = announce("oura", "sleep.update", record)
    work()
    assert (again(delivery).state, again(delivery).error) == ("ignored", "no sample in it")
