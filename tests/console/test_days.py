from datetime import UTC, date, datetime, timedelta

import pytest
from django.test import Client

from auren.biometrics.models import Source
from auren.console.days import Day
from devices.models import Assignment, Patient
from tests.biometrics.stored import dispute, store, store_night

BERLIN_MIDNIGHT = datetime(2026, 11, 12, 23, tzinfo=UTC)  # 13 November begins
HOURS = timedelta(hours=1)

pytestmark = pytest.mark.usefixtures("assigned")


def sleep(by: Source, patient: Patient, start_at: datetime, hours: float, **said: float) -> None:
    end_at = start_at + hours * HOURS
    for metric, value in ({"sleep_duration": hours * 3600} | said).items():
        store(by, metric, value, start_at, end_at, patient_id=patient.pk)


def days(client: Client, patient: Patient, to: str = "2026-11-20") -> dict[date, Day]:
    weeks = client.get(f"/patients/{patient.pk}/calendar/?to={to}").context["weeks"]
    return {day.date: day for week in weeks for day in week if day}


def test_the_calendar_has_three_months_of_the_patients_days(clinic: Client, patient: Patient) -> None:
    found = days(clinic, patient)
    assert (min(found), max(found), len(found)) == (date(2026, 8, 22), date(2026, 11, 20), 91)
    changed = found[date(2026, 10, 25)]
    assert changed.end_at - changed.start_at == 25 * HOURS


def test_the_latest_week_comes_first_and_each_begins_on_a_monday(clinic: Client, patient: Patient) -> None:
    weeks = clinic.get(f"/patients/{patient.pk}/calendar/?to=2026-11-20").context["weeks"]
    assert [week[0].date for week in weeks[:-1]] == [date(2026, 11, 16) - number * timedelta(7) for number in range(13)]
    assert [day and day.date for day in weeks[-1]] == [*[None] * 5, date(2026, 8, 22), date(2026, 8, 23)]


def test_steps_stand_on_their_day_and_a_night_on_the_day_it_ends(
    clinic: Client, patient: Patient, ring: Source
) -> None:
    store(ring, "steps", 0, BERLIN_MIDNIGHT, BERLIN_MIDNIGHT + 24 * HOURS, patient_id=patient.pk)
    sleep(ring, patient, BERLIN_MIDNIGHT - 2 * HOURS, 7, resting_heart_rate=47)
    day = days(clinic, patient)[date(2026, 11, 13)]
    assert day.values == {"steps": 0, "sleep_duration": 7 * 3600, "resting_heart_rate": 47}


def test_a_day_says_how_many_conflicts_ended_on_it(
    clinic: Client, patient: Patient, ring: Source, watch: Source
) -> None:
    said = {ring: 9000.0, watch: 4000.0}
    dispute("steps", BERLIN_MIDNIGHT, BERLIN_MIDNIGHT + 24 * HOURS, said, ring, patient_id=patient.pk)
    found = days(clinic, patient)
    assert [day for day, what in found.items() if what.conflicts] == [date(2026, 11, 13)]


def test_the_calendar_leads_to_days_nights_and_earlier_months(clinic: Client, patient: Patient, ring: Source) -> None:
    sleep(ring, patient, BERLIN_MIDNIGHT, 7.5)
    body = clinic.get(f"/patients/{patient.pk}/calendar/?to=2026-11-20").content.decode()
    assert f'href="/patients/{patient.pk}/nights/2026-11-13/">7 h 30 min</a>' in body
    assert "?from=2026-11-12T23:00:00Z&amp;to=2026-11-13T23:00:00Z" in body
    assert "?to=2026-08-21" in body


@pytest.mark.parametrize("to", ["", "yesterday", "2100-01-01", "0001-01-01", "\0"])
def test_a_calendar_of_no_day_or_one_to_come_ends_today(clinic: Client, patient: Patient, to: str) -> None:
    answer = clinic.get(f"/patients/{patient.pk}/calendar/", {"to": to})
    assert answer.status_code == 200
    assert answer.context["later"] is None


def test_a_night_says_what_each_device_measured_in_it(clinic: Client, patient: Patient, ring: Source) -> None:
    sleep(ring, patient, BERLIN_MIDNIGHT, 7, sleep_deep=3600, sleep_efficiency=91)
    answer = clinic.get(f"/patients/{patient.pk}/nights/2026-11-13/")
    said = {one.metric.name: (one.value, one.source) for one in answer.context["night"].said}
    assert said == {
        "sleep_duration": (7 * 3600, "Oura ring"),
        "sleep_deep": (3600, "Oura ring"),
        "sleep_efficiency": (91, "Oura ring"),
    }
    assert "00:00 \N{EN DASH} 07:00" in answer.content.decode()
    assert answer.context["view"]["from"] == (BERLIN_MIDNIGHT - HOURS / 2).timestamp()


def test_of_a_nap_and_a_night_the_night_is_shown(clinic: Client, patient: Patient, ring: Source) -> None:
    sleep(ring, patient, BERLIN_MIDNIGHT, 6)
    sleep(ring, patient, BERLIN_MIDNIGHT + 14 * HOURS, 1)
    night = clinic.get(f"/patients/{patient.pk}/nights/2026-11-13/").context["night"]
    assert night.end_at == BERLIN_MIDNIGHT + 6 * HOURS


def test_a_day_without_sleep_says_so(clinic: Client, patient: Patient) -> None:
    assert (
        "No sleep that ended on this day" in clinic.get(f"/patients/{patient.pk}/nights/2026-11-13/").content.decode()
    )


@pytest.mark.parametrize("day", ["2026-02-30", "today", "1999-01-01", "20261113T"])
def test_no_day_has_no_night(clinic: Client, patient: Patient, day: str) -> None:
    assert clinic.get(f"/patients/{patient.pk}/nights/{day}/").status_code == 404


@pytest.mark.parametrize("page", ["calendar/", "nights/2026-11-13/"])
def test_somebody_elses_patient_has_neither(clinic: Client, patient: Patient, assigned: Assignment, page: str) -> None:
    assigned.delete()
    assert clinic.get(f"/patients/{patient.pk}/{page}").status_code == 404


def test_a_night_asks_for_its_own_lanes_only(clinic: Client, patient: Patient, ring: Source) -> None:
    store_night(ring, BERLIN_MIDNIGHT, 2, 3)
    answer = clinic.get(f"/patients/{patient.pk}/timeline.json", {"lanes": "sleep,hrv"})
    assert [lane["key"] for lane in answer.json()["lanes"]] == ["hrv", "sleep"]
    refused = clinic.get(f"/patients/{patient.pk}/timeline.json", {"lanes": "sleep,moon"})
    assert (refused.status_code, refused.json()["detail"][:20]) == (400, "`lanes` may only nam")
