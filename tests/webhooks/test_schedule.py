"""What happens again and again: by one process at a time, whatever one chore runs into."""

import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from django.db.models.functions import Now

from auren.biometrics.partitions import create_missing
from tests.webhooks.living import again, patient, push, running, until
from webhooks import schedule
from webhooks.models import Delivery, Lease
from webhooks.schedule import Chore, Done, Forgetting, Schedule

OLD = timedelta(days=31)


def old(state: str, **fields: Any) -> Delivery:
    """A delivery from before the retention time, with all it carried."""
    delivery = push(state=state, document="{}", **fields)
    Delivery.objects.filter(pk=delivery.pk).update(received_at=Now() - OLD)
    return delivery


def carried(delivery: Delivery) -> list[bool]:
    now = again(delivery)
    return [now.body is not None, now.document is not None]


def holder() -> object:
    return Lease.objects.filter(name="schedule", until__gt=Now()).values_list("holder", flat=True).first()


@pytest.fixture
def nobody(database: str) -> Iterator[Schedule]:
    """A scheduler without chores."""
    active = Schedule()
    active.chores = []
    yield active
    active.give_back()


# One at a time


def test_one_scheduler_is_active_and_another_takes_over_when_it_gives_back(nobody: Schedule) -> None:
    second = Schedule()
    second.chores = []
    assert [nobody.turn(), second.turn(), nobody.turn(), second.turn()] == [True, False, True, False]
    nobody.give_back()
    assert [second.turn(), nobody.turn()] == [True, False]
    second.give_back()


def test_the_one_that_waits_does_no_chore(nobody: Schedule) -> None:
    assert nobody.turn()
    done: list[str] = []
    second = Schedule()
    second.chores = [Chore("never", 1, lambda: done.append("once"))]
    assert not second.turn()
    assert done == []


def test_a_lease_lost_during_a_chore_ends_the_turn(nobody: Schedule) -> None:
    def lose_it() -> None:
        Lease.objects.update(holder="00000000-0000-0000-0000-000000000001", until=Now() + timedelta(hours=1))

    done: list[str] = []
    nobody.chores = [Chore("slow", 1, lose_it), Chore("later", 1, lambda: done.append("once"))]
    assert not nobody.turn()
    assert done == []


def test_a_killed_scheduler_is_followed_by_another_once_its_lease_has_run_out(database: str) -> None:
    with running("run_schedule") as first:
        until(holder)
        killed = holder()
        first.kill()
        first.wait()
        with running("run_schedule") as second:
            until(lambda: connections_of("auren") or True)
            assert holder() == killed
            Lease.objects.filter(name="schedule").update(until=Now())
            until(lambda: holder() not in (None, killed))
            second.send_signal(signal.SIGTERM)
            assert second.wait(10) == 0
    assert holder() is None


def connections_of(name: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s", [f"{name}%"])
        return int(cursor.fetchone()[0])


def test_a_stop_ends_it_and_gives_the_lease_back(nobody: Schedule) -> None:
    stop = threading.Event()
    nobody.chores = [Chore("the last", 1, stop.set)]
    nobody.run(stop)
    assert Lease.objects.get(name="schedule").holder is None


# Chores


@pytest.mark.parametrize("fault", [RuntimeError("odd"), psycopg.OperationalError("away"), ValueError(), KeyError("x")])
def test_a_chore_that_raises_anything_ends_neither_the_scheduler_nor_the_other_chores(
    nobody: Schedule, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise fault

    done: list[str] = []
    nobody.chores = [Chore("the odd one", 3600, fail), Chore("another", 3600, lambda: done.append("once"))]
    assert nobody.turn()
    assert done == ["once"]
    assert "the odd one failed" in caplog.text


def times(work: Callable[[], object], seconds: float, moments: list[float]) -> list[float]:
    """At which of the moments a chore was done."""
    ran: list[float] = []
    chore = Chore("counted", seconds, work)
    for moment in moments:
        before = chore.due_at
        chore.run_if_due(moment)
        if chore.due_at != before:
            ran.append(moment)
    return ran


def test_a_chore_is_done_when_it_is_due_and_not_before() -> None:
    assert times(lambda: None, 100, [1, 50, 100, 101, 150, 202]) == [1, 101, 202]


def test_a_chore_that_failed_is_tried_again_within_a_minute() -> None:
    def fail() -> None:
        raise RuntimeError

    assert times(fail, 3600, [1, 60, 61, 100, 121]) == [1, 61, 121]


def test_a_chore_that_has_more_to_do_goes_on_at_the_next_turn() -> None:
    assert times(lambda: Done(5, more=True), 3600, [1, 2, 3]) == [1, 2, 3]


def test_the_real_chores_run_on_an_empty_database(database: str, caplog: pytest.LogCaptureFixture) -> None:
    active = Schedule()
    assert active.turn()
    active.give_back()
    assert "failed" not in caplog.text
    assert len(active.chores) >= 3


# Retention


@pytest.mark.parametrize("state", ["published", "ignored", "dead"])
def test_what_a_finished_delivery_carried_is_forgotten_after_its_retention_time(database: str, state: str) -> None:
    delivery, recent = old(state), push(state=state, document="{}")
    assert Forgetting().forget() == Done(1)
    assert (carried(delivery), carried(recent)) == ([False, False], [True, True])
    assert again(delivery).state == state
    assert Forgetting().forget() == Done(0)


@pytest.mark.parametrize("state", ["received", "retrying", "stored", "unlinked"])
def test_what_is_still_to_be_done_keeps_what_it_carries(database: str, state: str) -> None:
    delivery = old(state)
    assert Forgetting().forget() == Done(0)
    assert carried(delivery) == [True, True]


def test_a_dead_one_that_is_not_published_yet_keeps_what_it_carries(database: str) -> None:
    delivery = old("dead", outbox=b"{}")
    assert Forgetting().forget() == Done(0)
    assert carried(delivery) == [True, True]


def test_the_retention_time_is_a_setting(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "BODY_RETENTION_DAYS", 60)
    old("published")
    assert Forgetting().forget() == Done(0)


def test_many_are_forgotten_slice_by_slice_and_a_turn_goes_on_where_the_last_one_ended(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO webhooks_delivery (vendor, dedup_key, event_type, vendor_user_id, state, body, received_at) "
            "SELECT 'oura', n::text, 'x', 'u', 'published', 'x', now() - make_interval(days => 40, secs => n %% 7) "
            "FROM generate_series(1, 2500) n",
            [],
        )
    forgetting = Forgetting()
    monkeypatch.setattr(schedule, "AT_ONCE_SECONDS", 0.0)
    assert forgetting.forget() == Done(0, more=True)
    monkeypatch.setattr(schedule, "AT_ONCE_SECONDS", 20.0)
    assert forgetting.forget() == Done(2500)
    assert not Delivery.objects.filter(body__isnull=False).exists()


def test_a_delivery_that_somebody_holds_does_not_stop_the_others(database: str) -> None:
    held, free = old("published"), old("published")
    with psycopg.connect(database) as other:
        other.execute("SELECT FROM webhooks_delivery WHERE id = %s FOR UPDATE", [held.pk])
        assert Forgetting().forget() == Done(1)
    assert (carried(held)[0], carried(free)[0]) == (True, False)


# Partitions


def partitions() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'biometrics_sample'::regclass"
        )
        return {name for (name,) in cursor.fetchall()}


@pytest.fixture
def made(database: str) -> Iterator[set[str]]:
    """Partitions as they were; those made meanwhile go again."""
    before = partitions()
    yield before
    with connection.cursor() as cursor:
        for name in partitions() - before:
            cursor.execute(f"DROP TABLE {name}")


def test_partitions_are_there_three_months_ahead(made: set[str]) -> None:
    today = datetime.now(UTC).date()
    months = [divmod(today.year * 12 + today.month - 1 + ahead, 12) for ahead in range(4)]
    assert {f"biometrics_sample_{year}_{month + 1:02d}" for year, month in months} <= made
    assert set(create_missing()) <= made


def test_when_months_go_by_the_missing_ones_are_made_and_take_samples(made: set[str]) -> None:
    later = date(datetime.now(UTC).year + 1, 11, 5)
    names = create_missing(later)
    assert f"biometrics_sample_{later.year + 1}_02" in names
    assert partitions() == made | set(names)
    create_missing(later)
    assert partitions() == made | set(names)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO biometrics_sample (patient_id, metric, start_at, end_at, source_id, record, value, revised_at,"
            " delivery_id) VALUES (1, 1, %(at)s, %(at)s, 1, 'r', 60, %(at)s, 1) RETURNING tableoid::regclass::text",
            {"at": datetime(later.year + 1, 2, 28, 23, 59, tzinfo=UTC)},
        )
        assert cursor.fetchone() == (f"biometrics_sample_{later.year + 1}_02",)


def test_a_table_that_is_locked_holds_the_scheduler_up_for_seconds_only(
    made: set[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("auren.biometrics.partitions.LOCK_TIMEOUT", "50ms")
    later = date(datetime.now(UTC).year + 1, 11, 5)
    active = Schedule()
    active.chores = [Chore("partitions", 60, lambda: create_missing(later))]
    with psycopg.connect(settings.DATABASE_URL) as other:
        other.execute("LOCK TABLE biometrics_sample_default IN ACCESS SHARE MODE")
        assert active.turn()
    active.give_back()
    assert "partitions failed" in caplog.text
    assert partitions() == made


# Waiting deliveries


def test_waiting_deliveries_are_set_back_by_the_schedule_when_their_patient_is_there(database: str) -> None:
    waiting, other = push(user="somebody", state="unlinked"), push(user="nobody", state="unlinked")
    active = Schedule()
    assert active.turn()
    assert again(waiting).state == "unlinked"
    patient("somebody")
    active.chores[0].due_at = 0
    assert active.turn()
    active.give_back()
    assert (again(waiting).state, again(other).state) == ("received", "unlinked")
