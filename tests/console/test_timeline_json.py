from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client

from auren.biometrics.models import Source
from auren.console.lanes import LANES, METRICS
from devices.models import Assignment, Patient
from tests.biometrics.stored import dispute, store

NOON = datetime(2026, 11, 13, 12, tzinfo=UTC)
MINUTES = timedelta(minutes=1)
ASKED = {"from": "2026-11-13T00:00:00Z", "to": "2026-11-14T00:00:00Z"}

pytestmark = pytest.mark.usefixtures("assigned")


def ask(client: Client, patient: Patient, **asked: str) -> Any:
    return client.get(f"/patients/{patient.pk}/timeline.json?{urlencode({**ASKED, **asked})}")


def lanes(answer: Any) -> dict[str, Any]:
    return {lane["key"]: lane for lane in answer.json()["lanes"]}


def test_every_line_says_what_it_is_and_from_which_device(clinic: Client, patient: Patient, ring: Source) -> None:
    store(ring, "heart_rate", 50, NOON, patient_id=patient.pk)
    answer = ask(clinic, patient)
    (line,) = lanes(answer)["heart_rate"]["series"][0]["lines"]
    at = NOON.timestamp()
    assert line == {
        "label": "Heart rate · Oura ring",
        "sources": [ring.pk],
        "start": [at],
        "end": [at],
        "value": [50],
        "low": None,
        "high": None,
    }
    assert answer.json()["zone"] == "Europe/Berlin"
    assert list(lanes(answer)) == [lane.key for lane in LANES]


def test_a_crowded_line_comes_with_its_band(clinic: Client, patient: Patient, ring: Source) -> None:
    for place in range(40):
        store(ring, "heart_rate", 50 + place, NOON + place * MINUTES, patient_id=patient.pk)
    (line,) = lanes(ask(clinic, patient, points="10"))["heart_rate"]["series"][0]["lines"]
    assert (line["value"], line["low"], line["high"]) == ([69.5], [50], [89])


def test_zero_steps_are_zero_and_not_nothing(clinic: Client, patient: Patient, watch: Source) -> None:
    store(watch, "steps", 0, NOON, NOON + 15 * MINUTES, patient_id=patient.pk)
    (line,) = lanes(ask(clinic, patient))["steps"]["series"][0]["lines"]
    assert line["value"] == [0]


def test_a_conflict_says_who_said_what_who_won_and_why(
    clinic: Client, patient: Patient, ring: Source, watch: Source
) -> None:
    said = {ring: 48.0, watch: 61.0}
    dispute("heart_rate", NOON, NOON + 5 * MINUTES, said, watch, patient_id=patient.pk, rule="metric_order")
    (conflict,) = ask(clinic, patient).json()["conflicts"]
    assert conflict["lane"] == "heart_rate"
    assert conflict["values"] == [
        {"source": "Oura ring", "low": 48, "high": 48},
        {"source": "Apple Watch", "low": 61, "high": 61},
    ]
    assert conflict["count"] == 1
    assert (conflict["winner"], conflict["unit"]) == ("Apple Watch", "bpm")
    assert conflict["why"] == "for heart rate the order is watch, band, ring, phone"


def test_neighbouring_conflicts_are_one_that_says_how_many(
    clinic: Client, patient: Patient, ring: Source, watch: Source
) -> None:
    for place in (0, 1, 2, 5):  # 15 minutes without one are near
        at = NOON + place * 5 * MINUTES
        said = {ring: 48.0 + place, watch: 61.0 - place}
        dispute("heart_rate", at, at + 5 * MINUTES, said, watch, patient_id=patient.pk)
    (conflict,) = ask(clinic, patient).json()["conflicts"]
    assert (conflict["start"], conflict["end"]) == (NOON.timestamp(), (NOON + 30 * MINUTES).timestamp())
    assert conflict["count"] == 4
    assert conflict["values"] == [
        {"source": "Oura ring", "low": 48, "high": 53},
        {"source": "Apple Watch", "low": 56, "high": 61},
    ]


def test_conflicts_that_are_far_apart_or_of_another_winner_or_metric_stay_apart(
    clinic: Client, patient: Patient, ring: Source, watch: Source
) -> None:
    said = {ring: 48.0, watch: 61.0}
    for metric, minute, winner in (
        ("heart_rate", 0, watch),
        ("heart_rate", 5, ring),
        ("hrv_rmssd", 5, ring),
        ("heart_rate", 30, ring),
    ):
        at = NOON + minute * MINUTES
        dispute(metric, at, at + 5 * MINUTES, said, winner, patient_id=patient.pk)
    conflicts = ask(clinic, patient).json()["conflicts"]
    assert [conflict["count"] for conflict in conflicts] == [1, 1, 1, 1]


def test_the_nights_conflict_is_marked_on_the_sleep_lane(clinic: Client, patient: Patient, ring: Source) -> None:
    dispute("sleep_duration", NOON, NOON + 5 * MINUTES, {ring: 48}, ring, patient_id=patient.pk)
    (conflict,) = ask(clinic, patient).json()["conflicts"]
    assert conflict["lane"] == "sleep"


def test_with_nothing_to_draw_the_answer_says_when_there_last_was(
    clinic: Client, patient: Patient, ring: Source
) -> None:
    assert ask(clinic, patient).json()["last_at"] is None
    before = NOON - timedelta(days=400)
    store(ring, "heart_rate", 50, before, patient_id=patient.pk)
    assert ask(clinic, patient).json()["last_at"] == before.timestamp()


def test_a_series_comes_with_the_patients_own_usual_range(clinic: Client, patient: Patient, ring: Source) -> None:
    for day in range(25):
        at = NOON - timedelta(days=25 - day)
        store(ring, "resting_heart_rate", 50, at, at + MINUTES, patient_id=patient.pk)
    _, resting = lanes(ask(clinic, patient))["heart_rate"]["series"]
    assert resting["usual"] == {"low": 46, "high": 54, "days": 25}


def test_every_source_comes_when_asked_for(clinic: Client, patient: Patient, ring: Source, watch: Source) -> None:
    for by in (ring, watch):
        store(by, "heart_rate", 50, NOON, patient_id=patient.pk)
    series, _resting = lanes(ask(clinic, patient, sources="all"))["heart_rate"]["series"]
    assert [len(series["lines"]), len(series["every_source"])] == [1, 2]


def test_without_a_range_it_is_the_last_fourteen_days(clinic: Client, patient: Patient) -> None:
    asked_at = datetime.now(UTC).timestamp()
    body = clinic.get(f"/patients/{patient.pk}/timeline.json").json()
    assert body["from"] <= asked_at - 14 * 86_400
    assert asked_at <= body["to"]
    assert body["to"] - body["from"] == 14 * 86_400 + 15 * 60  # widened to whole quarters of an hour


def test_an_answer_that_the_caller_has_is_not_sent_again(clinic: Client, patient: Patient, ring: Source) -> None:
    address = f"/patients/{patient.pk}/timeline.json?{urlencode(ASKED)}"
    etag = clinic.get(address).headers["ETag"]
    again = clinic.get(address, headers={"If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    assert "no-store" in again.headers["Cache-Control"]
    store(ring, "heart_rate", 50, NOON, patient_id=patient.pk)
    assert clinic.get(address, headers={"If-None-Match": etag}).status_code == 200


def test_who_may_not_see_the_patient_any_more_is_not_told_that_nothing_changed(
    clinic: Client, patient: Patient, assigned: Assignment
) -> None:
    address = f"/patients/{patient.pk}/timeline.json?{urlencode(ASKED)}"
    etag = clinic.get(address).headers["ETag"]
    assigned.delete()
    assert clinic.get(address, headers={"If-None-Match": etag}).status_code == 404


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        ({"from": "yesterday"}, "`from` is not a time"),
        ({"to": "2026-11-14T00:00:00"}, "`to` has no time zone"),
        ({"from": "0001-01-01T00:00:00%2B14:00"}, "`from` is not a time"),
        ({"to": "0001-01-01T00:00:00Z"}, "`to` must lie between"),
        ({"from": "2026-11-15T00:00:00Z"}, "`from` must be before `to`"),
        ({"from": "2026-01-01T00:00:00Z"}, "190 days or less"),
        ({"days": "1000"}, "`days` must be a number up to 190"),
        ({"days": "nan"}, "`days` must be a number"),
        ({"points": "9"}, "`points` must be a whole number"),
        ({"points": "1e3"}, "`points` must be a whole number"),
        ({"points": "9" * 5_000}, "`points` must be a whole number"),
        ({"sources": "some"}, "`sources` may only be"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_what_is_wrong(
    clinic: Client, patient: Patient, asked: dict[str, str], detail: str
) -> None:
    answer = ask(clinic, patient, **asked)
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert detail in answer.json()["detail"]


def test_without_a_session_the_scripts_are_told_so(patient: Patient) -> None:
    assert ask(Client(), patient).status_code == 401


def test_a_zone_that_is_none_falls_back_to_utc(clinic: Client, patient: Patient) -> None:
    for name in ("Middle/Earth", "../etc/passwd", "Europe", ""):
        Patient.objects.update(timezone=name)
        assert ask(clinic, patient).json()["zone"] == "UTC"


def test_two_weeks_of_five_minute_heart_rate_take_few_queries(
    clinic: Client, patient: Patient, django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(len(METRICS) + 20):
        ask(clinic, patient)


def test_a_metrics_name_keeps_its_abbreviation_within_a_sentence(
    clinic: Client, patient: Patient, ring: Source, watch: Source
) -> None:
    said = {ring: 50.0, watch: 84.0}
    dispute("hrv_rmssd", NOON, NOON + 5 * MINUTES, said, ring, patient_id=patient.pk, rule="metric_order")
    (conflict,) = ask(clinic, patient).json()["conflicts"]
    assert conflict["why"].startswith("for HRV (RMSSD) the order is ")


def test_the_total_of_a_day_and_a_quarter_of_it_are_no_neighbours(
    clinic: Client, patient: Patient, ring: Source, watch: Source
) -> None:
    midnight = NOON - timedelta(hours=13)
    day = dispute(
        "steps", midnight, midnight + timedelta(days=1), {ring: 9_000, watch: 12_000}, watch, patient_id=patient.pk
    )
    day.daily = True
    day.save()
    dispute("steps", NOON, NOON + 15 * MINUTES, {ring: 200, watch: 900}, watch, patient_id=patient.pk)
    found = [(one["daily"], one["values"][1]) for one in ask(clinic, patient).json()["conflicts"]]
    assert found == [
        (True, {"source": "Apple Watch", "low": 12_000, "high": 12_000}),
        (False, {"source": "Apple Watch", "low": 900, "high": 900}),
    ]
