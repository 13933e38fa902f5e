"""Why there is nothing: each reason out of what is stored, as the page and the API hand it on."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.test import Client
from django.utils import timezone

from auren.biometrics import timeline
from auren.biometrics.metrics import BY_NAME
from auren.biometrics.models import Source
from auren.biometrics.timeline import Window
from auren.console import gaps
from auren.console.gaps import Gap
from devices.models import Assignment, Link, Patient
from tests.biometrics.stored import store
from tests.console.test_timeline_json import ask

BERLIN = ZoneInfo("Europe/Berlin")
DAWN = datetime(2026, 11, 13, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
NOON, EVENING = DAWN + 12 * HOUR, DAWN + 20 * HOUR


@pytest.fixture(autouse=True)
def long_connected(link: Link) -> None:
    Link.objects.update(connected_at=DAWN - timedelta(days=60), status_since=DAWN - timedelta(days=60))


def beats(by: Source, patient: Patient, since: datetime, until: datetime) -> None:
    at = since
    while at < until:
        store(by, "heart_rate", 60, at, patient_id=patient.pk)
        at += 5 * MINUTE


def found(patient: Patient, *names: str, days: float = 1, now: datetime = DAWN + 24 * HOUR) -> list[Gap]:
    window = Window(patient.pk, DAWN, DAWN + days * 24 * HOUR, BERLIN)
    metrics = [BY_NAME[name] for name in names or ("heart_rate",)]
    return gaps.of(timeline.read(window, metrics), now).get(metrics[0].number, [])


def whys(some: list[Gap]) -> list[str]:
    return [gap.why for gap in some]


def span(gap: Gap) -> tuple[datetime, datetime]:
    return datetime.fromtimestamp(gap.start, UTC), datetime.fromtimestamp(gap.end, UTC)


def test_without_a_gap_there_is_none(patient: Patient, ring: Source) -> None:
    beats(ring, patient, DAWN, DAWN + 24 * HOUR)
    assert found(patient) == []


def test_a_device_that_sent_other_data_meanwhile_was_not_worn(patient: Patient, ring: Source) -> None:
    beats(ring, patient, DAWN, NOON)
    beats(ring, patient, EVENING, DAWN + 24 * HOUR)
    store(ring, "steps", 0, NOON + HOUR, NOON + 2 * HOUR, patient_id=patient.pk)
    [gap] = found(patient)
    assert (gap.why, span(gap)) == ("not_worn", (NOON - 5 * MINUTE, EVENING))
    assert "Oura ring sent other data of this time (Steps)" in gap.text


def test_a_days_total_does_not_show_that_it_was_alive_for_an_hour_of_it(patient: Patient, ring: Source) -> None:
    beats(ring, patient, DAWN, NOON)
    beats(ring, patient, EVENING, DAWN + 24 * HOUR)
    store(ring, "steps", 9_000, DAWN - HOUR, DAWN + 23 * HOUR, patient_id=patient.pk)
    [gap] = found(patient)
    assert gap.why == "unknown"
    assert "has sent data since, but nothing of this time" in gap.text


def test_what_another_device_sent_meanwhile_says_nothing(patient: Patient, ring: Source, watch: Source) -> None:
    beats(ring, patient, DAWN, NOON)
    beats(ring, patient, EVENING, DAWN + 24 * HOUR)
    store(watch, "steps", 0, NOON + HOUR, NOON + 2 * HOUR, patient_id=patient.pk)
    assert whys(found(patient)) == ["unknown"]


def test_where_another_device_fills_in_there_is_no_gap(patient: Patient, ring: Source, watch: Source) -> None:
    beats(ring, patient, DAWN, NOON)
    beats(watch, patient, NOON, DAWN + 24 * HOUR)
    assert found(patient) == []


def test_data_that_end_before_now_are_not_synced_yet(patient: Patient, ring: Source) -> None:
    beats(ring, patient, DAWN, NOON)
    [gap] = found(patient, now=NOON + 3 * HOUR)
    assert (gap.why, span(gap)) == ("not_synced", (NOON - 5 * MINUTE, NOON + 3 * HOUR))
    assert gap.text == "Not synced: the newest data of Oura ring are of 13 Nov 2026, 12:55."


def test_a_gap_never_reaches_into_the_future(patient: Patient, ring: Source) -> None:
    beats(ring, patient, DAWN, NOON)
    assert found(patient, now=NOON + 5 * MINUTE) == []


@pytest.mark.parametrize(
    ("changes", "why", "said"),
    [
        ({"status": "expired", "status_since": NOON + HOUR}, "expired", "expired 13 Nov 2026, 14:00: the patient must"),
        ({"status": "revoked", "status_since": NOON + HOUR}, "disconnected", "has been disconnected since 13 Nov"),
        ({"paused_at": NOON + HOUR}, "paused", "Oura has been paused since 13 Nov 2026, 14:00."),
    ],
)
def test_a_link_that_was_lost_meanwhile_is_why(
    patient: Patient, ring: Source, changes: dict[str, Any], why: str, said: str
) -> None:
    beats(ring, patient, DAWN, NOON)
    Link.objects.update(**changes)
    [gap] = found(patient)
    assert gap.why == why
    assert said in gap.text


def test_a_link_that_was_lost_later_is_not_why(patient: Patient, ring: Source) -> None:
    beats(ring, patient, DAWN, NOON)
    beats(ring, patient, EVENING, DAWN + 24 * HOUR)
    Link.objects.update(status="expired", status_since=DAWN + 30 * HOUR)
    assert whys(found(patient)) == ["unknown"]


def test_a_gap_that_ended_with_a_new_connection_was_without_one(patient: Patient, ring: Source) -> None:
    beats(ring, patient, DAWN, NOON)
    beats(ring, patient, EVENING, DAWN + 24 * HOUR)
    Link.objects.update(connected_at=EVENING)
    [gap] = found(patient)
    assert (gap.why, gap.text) == ("not_connected", "Oura was not connected until 13 Nov 2026, 21:00.")


def test_before_the_first_data_the_device_was_not_connected(patient: Patient, ring: Source) -> None:
    beats(ring, patient, NOON, DAWN + 24 * HOUR)
    Link.objects.update(connected_at=EVENING)
    [gap] = found(patient)
    assert (gap.why, span(gap)) == ("not_connected", (DAWN, NOON))


def test_a_removed_link_is_said(patient: Patient, ring: Source) -> None:
    beats(ring, patient, DAWN, NOON)
    Link.objects.all().delete()
    assert whys(found(patient)) == ["removed"]


def test_a_device_that_stays_away_while_others_of_its_phone_go_on_is_gone(patient: Patient, watch: Source) -> None:
    Link.objects.update(connected_at=DAWN - timedelta(days=60), status_since=DAWN - timedelta(days=60))
    phone = Source.objects.create(link_id=watch.link_id, name="iPhone", kind="phone")
    beats(watch, patient, DAWN, NOON)
    for day in range(1, 7):
        at = DAWN + day * 24 * HOUR
        store(phone, "steps", 100, at, at + 15 * MINUTE, patient_id=patient.pk)
    [gap] = found(patient, days=7, now=DAWN + timedelta(days=7))
    assert gap.why == "device_gone"
    assert "Nothing from Apple Watch any more, while Apple HealthKit still sends of other devices." in gap.text


def test_a_metric_that_was_there_before_the_window_and_not_in_it_is_one_gap(patient: Patient, ring: Source) -> None:
    beats(ring, patient, DAWN - 30 * HOUR, DAWN - 29 * HOUR)
    [gap] = found(patient)
    assert (gap.why, span(gap)) == ("not_synced", (DAWN, DAWN + 24 * HOUR))
    assert found(patient, "spo2") == []


def test_a_missing_day_of_steps_and_a_missing_night_are_gaps(patient: Patient, ring: Source) -> None:
    for day in (0, 1, 3):
        midnight = DAWN - HOUR + day * 24 * HOUR
        store(ring, "steps", 5_000, midnight, midnight + 24 * HOUR, patient_id=patient.pk)
        store(ring, "sleep_stage", 2, midnight + HOUR, midnight + 7 * HOUR, patient_id=patient.pk)
    now = DAWN + timedelta(days=4)
    [steps] = found(patient, "steps", days=4, now=now)
    assert span(steps) == (DAWN + 47 * HOUR, DAWN + 71 * HOUR)
    [night] = found(patient, "sleep_stage", days=4, now=now)
    assert span(night) == (DAWN + 30 * HOUR, DAWN + 72 * HOUR)


def test_the_page_is_told_and_told_anew_when_the_link_changes(
    clinic: Client, patient: Patient, assigned: Assignment, ring: Source
) -> None:
    beats(ring, patient, DAWN, NOON)

    def told(answer: Any) -> str:
        lane = next(lane for lane in answer.json()["lanes"] if lane["key"] == "heart_rate")
        return str(lane["series"][0]["gaps"][-1]["why"])

    first = ask(clinic, patient)
    assert told(first) == "not_synced"
    Link.objects.update(status="revoked", status_since=NOON)
    again = ask(clinic, patient)
    assert told(again) == "disconnected"
    assert first.headers["ETag"] != again.headers["ETag"]


def test_many_gaps_take_no_more_statements(patient: Patient, ring: Source, django_assert_max_num_queries: Any) -> None:
    for hour in range(0, 24, 2):
        beats(ring, patient, DAWN + hour * HOUR, DAWN + hour * HOUR + 30 * MINUTE)
    window = Window(patient.pk, DAWN, DAWN + 24 * HOUR, BERLIN)
    timed = timeline.read(window, [BY_NAME["heart_rate"]])
    with django_assert_max_num_queries(5):
        assert len(gaps.of(timed, timezone.now())[1]) == 12


def test_what_is_measured_now_and_then_has_no_gaps_to_tell(patient: Patient, ring: Source) -> None:
    store(ring, "body_mass", 80, NOON, patient_id=patient.pk)
    store(ring, "spo2", 97, NOON, patient_id=patient.pk)
    timed = timeline.read(Window(patient.pk, DAWN, EVENING, BERLIN), [BY_NAME["body_mass"], BY_NAME["spo2"]])
    assert gaps.of(timed, EVENING) == {BY_NAME["spo2"].number: []}  # at night alone: an evening without says nothing


def test_a_link_made_today_is_not_why_its_history_ended_days_ago(patient: Patient, ring: Source) -> None:
    beats(ring, patient, DAWN, NOON)
    Link.objects.update(connected_at=DAWN + timedelta(days=5))
    assert whys(found(patient, days=6, now=DAWN + timedelta(days=5.5))) == ["not_synced"]
