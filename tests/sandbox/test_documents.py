from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from auren.sandbox import oura, whoop
from auren.sandbox.physiology import person
from devices.vendors.oura.normalise import normalise as normalise_oura
from devices.vendors.whoop.normalise import normalise as normalise_whoop
from tests.sandbox.conftest import NOW

Document = dict[str, Any]
USERS = [f"user_{number}" for number in range(1, 9)]
DAYS = [date(2026, 3, 20) - timedelta(days=index) for index in range(45)]
SCORED = whoop.Scoring(pending_share=0)

# The fields that vendors.md 1.6 and 2.5 name, required or not.
OURA_FIELDS = {
    "sleep": "id day bedtime_start bedtime_end time_in_bed period low_battery_alert total_sleep_duration "
    "deep_sleep_duration light_sleep_duration rem_sleep_duration awake_time latency efficiency average_heart_rate "
    "lowest_heart_rate average_hrv average_breath restless_periods sleep_phase_5_min sleep_phase_30_sec "
    "app_sleep_phase_5_min movement_30_sec heart_rate hrv readiness type sleep_algorithm_version "
    "sleep_analysis_reason ring_id",
    "daily_sleep": "id day timestamp score contributors",
    "daily_readiness": "id day timestamp score temperature_deviation temperature_trend_deviation contributors",
    "heartrate": "timestamp timestamp_unix bpm source",
    "daily_activity": "id day timestamp score steps active_calories total_calories equivalent_walking_distance "
    "high_activity_time medium_activity_time low_activity_time high_activity_met_minutes medium_activity_met_minutes "
    "low_activity_met_minutes sedentary_time resting_time non_wear_time inactivity_alerts target_calories "
    "target_meters meters_to_target average_met_minutes class_5_min met contributors",
    "daily_spo2": "id day spo2_percentage breathing_disturbance_index",
    "vO2_max": "id day timestamp vo2_max",
    "daily_stress": "id day stress_high recovery_high day_summary",
    "daily_cardiovascular_age": "id day vascular_age pulse_wave_velocity",
    "daily_resilience": "id day level contributors",
    "workout": "id day activity start_datetime end_datetime intensity source calories distance label",
}
WHOOP_FIELDS = {
    "recovery": "cycle_id sleep_id user_id created_at updated_at score_state score",
    "sleep": "id cycle_id v1_id user_id created_at updated_at start end timezone_offset nap score_state score",
    "workout": "id v1_id user_id created_at updated_at start end timezone_offset sport_name score_state score",
    "cycle": "id user_id created_at updated_at start end timezone_offset score_state score",
}


def oura_documents(kind: str, now: datetime = NOW) -> list[Document]:
    return [each for user in USERS for day in DAYS for each in oura.build(kind, person(user), day, now)]


def whoop_documents(kind: str, now: datetime = NOW, scoring: whoop.Scoring = SCORED) -> list[Document]:
    return [each for user in USERS for day in DAYS for each in whoop.build(kind, person(user), day, now, scoring)]


@pytest.mark.parametrize("kind", OURA_FIELDS)
def test_an_oura_document_has_every_field_of_the_vendors(kind: str) -> None:
    documents = oura_documents(kind)
    assert documents
    assert all(set(OURA_FIELDS[kind].split()) <= set(document) for document in documents)


@pytest.mark.parametrize("kind", WHOOP_FIELDS)
def test_a_scored_whoop_document_has_every_field_of_the_vendors(kind: str) -> None:
    scored = [document for document in whoop_documents(kind) if document["score_state"] == "SCORED"]
    finished = [document for document in scored if kind != "cycle" or "end" in document]
    assert finished
    assert all(set(WHOOP_FIELDS[kind].split()) == set(document) for document in finished)


@pytest.mark.parametrize("kind", OURA_FIELDS)
def test_the_bridge_refuses_nothing_of_oura(kind: str) -> None:
    for document in oura_documents(kind)[:400]:
        asked = {"data": [document]} if kind == "heartrate" else document
        assert normalise_oura(kind, asked, "Europe/Berlin").refused == []


@pytest.mark.parametrize("kind", WHOOP_FIELDS)
def test_the_bridge_refuses_nothing_of_whoop(kind: str) -> None:
    for document in whoop_documents(kind):
        assert normalise_whoop(kind, document, "Europe/Berlin").refused == []


def test_a_hypnogram_is_as_long_as_the_time_in_bed_and_adds_up_to_the_totals() -> None:
    for document in oura_documents("sleep"):
        phases = document["sleep_phase_30_sec"]
        start, end = (datetime.fromisoformat(document[name]) for name in ("bedtime_start", "bedtime_end"))
        assert len(phases) * 30 == document["time_in_bed"] == (end - start).total_seconds()
        assert len(document["movement_30_sec"]) == len(phases)
        assert phases.count("1") * 30 == document["deep_sleep_duration"]
        assert phases.count("4") * 30 == document["awake_time"]
        assert min(filter(None, document["heart_rate"]["items"])) == document["lowest_heart_rate"]


@pytest.mark.parametrize("user", USERS)
def test_ids_do_not_depend_on_when_they_are_asked_for(user: str) -> None:
    who, day = person(user), date(2026, 3, 10)
    later = NOW + timedelta(days=400)
    for kind in OURA_FIELDS:
        now_ids, later_ids = (
            [oura.record_of(kind, each) for each in oura.build(kind, who, day, at)] for at in (NOW, later)
        )
        assert now_ids == later_ids


def instants(value: object) -> list[datetime]:
    """Every time written anywhere in a document."""
    if isinstance(value, dict):
        return [at for each in value.values() for at in instants(each)]
    if isinstance(value, str) and value[4:5] == "-" and "T" in value:
        return [datetime.fromisoformat(value)]
    return []


@pytest.mark.parametrize("now", [NOW + timedelta(hours=hours) for hours in range(0, 24, 3)])
def test_nothing_comes_from_the_future(now: datetime) -> None:
    for kind in OURA_FIELDS:
        assert all(at <= now for document in oura_documents(kind, now)[-200:] for at in instants(document))
    for kind in WHOOP_FIELDS:
        assert all(at <= now for document in whoop_documents(kind, now) for at in instants(document))


def test_todays_activity_grows_through_the_day_and_then_stands() -> None:
    who, day = person("user_1"), date(2026, 3, 18)
    hours = [datetime(2026, 3, 18, hour, tzinfo=UTC) for hour in (5, 9, 13, 17, 21)]
    steps = [oura.build("daily_activity", who, day, at)[0]["steps"] for at in [*hours, NOW, NOW + timedelta(days=9)]]
    assert steps == sorted(steps)
    assert steps[0] < steps[2] < steps[-1]
    assert steps[-2] == steps[-1]


def test_a_pending_night_gets_its_score_later_and_then_says_so() -> None:
    scoring = whoop.Scoring(pending_share=1, pending_minutes=40)
    build = partial(whoop.build, "sleep", person("user_2"), date(2026, 3, 18), scoring=scoring)
    created = datetime.fromisoformat(build(now=NOW)[0]["created_at"])
    waiting, scored = build(now=created), build(now=created + timedelta(minutes=40))
    assert waiting[0]["score_state"] == "PENDING_SCORE"
    assert "score" not in waiting[0]
    assert scored[0]["score_state"] == "SCORED"
    assert scored[0]["updated_at"] > waiting[0]["updated_at"]


def test_only_the_newest_night_is_ever_pending() -> None:
    scoring = whoop.Scoring(pending_share=1)
    for hours in range(24):
        now = NOW + timedelta(hours=hours)
        nights = whoop_documents("sleep", now, scoring)
        for user in USERS:
            own = sorted((each for each in nights if each["user_id"] == user), key=lambda each: str(each["start"]))
            assert all(each["score_state"] != "PENDING_SCORE" for each in own[:-1])


def test_a_few_nights_are_never_scored_and_carry_no_score() -> None:
    nights = whoop_documents("sleep")
    unscorable = [night for night in nights if night["score_state"] == "UNSCORABLE"]
    assert 0 < len(unscorable) < 0.06 * len(nights)
    assert not any("score" in night for night in unscorable)


def test_only_the_cycle_that_runs_has_no_end() -> None:
    cycles = whoop_documents("cycle")
    for user in USERS:
        own = sorted((each for each in cycles if each["user_id"] == user), key=lambda each: str(each["start"]))
        assert all("end" in cycle for cycle in own[:-1])
    assert any("end" not in cycle for cycle in cycles)


def test_a_cycles_id_is_a_whole_number_that_json_can_carry() -> None:
    ids = {cycle["id"] for cycle in whoop_documents("cycle")}
    assert len(ids) == len(whoop_documents("cycle"))
    assert all(isinstance(each, int) and 0 < each < 2**53 for each in ids)


def test_a_person_who_slept_badly_scores_lower_with_both_vendors() -> None:
    readiness: dict[bool, list[float]] = {True: [], False: []}
    recovery: dict[bool, list[float]] = {True: [], False: []}
    for user in USERS:
        who = person(user)
        for day in DAYS:
            bad = who.night(day).bad
            readiness[bad] += [each["score"] for each in oura.build("daily_readiness", who, day, NOW)]
            scored = whoop.build("recovery", who, day, NOW, SCORED)
            recovery[bad] += [each["score"]["recovery_score"] for each in scored if "score" in each]
    for scores in (readiness, recovery):
        assert sum(scores[True]) / len(scores[True]) + 10 < sum(scores[False]) / len(scores[False])
