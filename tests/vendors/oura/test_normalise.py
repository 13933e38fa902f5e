from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.vendors.normalised import Document, Normalised
from devices.vendors.oura.normalise import READERS, normalise
from tests.vendors.recorded import (
    ANYTHING,
    Payload,
    assert_storable,
    assert_yields,
    patient,
    payloads_in,
    spoiled,
)

PAYLOADS = payloads_in(Path(__file__).parent)
DOCUMENTS = {found.name: found.document for found in PAYLOADS}


def changed(name: str, **changes: Any) -> Document:
    """A recorded document with some fields changed, and those changed to `...` left out."""
    merged = deepcopy(DOCUMENTS[name]) | changes
    return {field: value for field, value in merged.items() if value is not ...}


def values(found: Normalised, metric: str) -> list[float]:
    return [sample.value for sample in found.samples if sample.metric == metric]


def metrics(found: Normalised) -> set[str]:
    return {sample.metric for sample in found.samples}


def reasons(found: Normalised) -> str:
    return "; ".join(f"{refusal.what}: {refusal.why}" for refusal in found.refused)


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.name)
def test_a_recorded_document_yields_what_is_expected_of_it(payload: Payload) -> None:
    found = normalise(payload.expected["kind"], payload.document, payload.expected.get("zone", "UTC"))
    assert_yields(found, payload.expected)
    assert_storable(found)


@pytest.mark.parametrize("payload", [one for one in PAYLOADS if "data" not in one.document], ids=lambda one: one.name)
def test_one_document_and_a_page_with_it_yield_the_same(payload: Payload) -> None:
    kind, zone = payload.expected["kind"], payload.expected.get("zone", "UTC")
    page = {"data": [payload.document], "next_token": None}
    assert normalise(kind, page, zone) == normalise(kind, payload.document, zone)


def test_the_ring_is_the_source_and_the_worker_sets_the_revision() -> None:
    found = normalise("daily_stress", DOCUMENTS["daily_stress"])
    assert {sample.source for sample in found.samples} == {"Oura"}
    assert {sample.revised_at for sample in found.samples} == {None}
    assert found.source_kinds == {"Oura": "ring"}


@pytest.mark.parametrize("kind", ["tag", "session", "daily_resilience", "ring_configuration", "sleeep", "", "recovery"])
def test_a_kind_without_a_metric_is_ignored(kind: str) -> None:
    found = normalise(kind, DOCUMENTS["sleep_long_full"])
    assert found.ignored == 1
    assert (found.samples, found.refused) == ([], [])


def test_both_spellings_of_vo2_max_are_read() -> None:
    assert normalise("vo2_max", DOCUMENTS["vo2_max"]) == normalise("vO2_max", DOCUMENTS["vo2_max"])


def test_a_rest_period_is_counted_as_ignored() -> None:
    assert normalise("sleep", DOCUMENTS["sleep_rest"]).ignored == 1


def test_a_deleted_sleep_is_withdrawn_however_broken_its_times_are() -> None:
    found = normalise("sleep", {"id": "gone", "type": "deleted", "bedtime_start": "?"})
    assert found.withdrawn == ["gone"]
    assert found.refused == []


@pytest.mark.parametrize("kind", ["sleep", "late_nap", "rest_of_it", None, 5, ["long_sleep"]])
def test_only_a_long_sleep_has_a_resting_heart_rate(kind: object) -> None:
    assert values(normalise("sleep", changed("sleep_long_full", type=kind)), "resting_heart_rate") == []


def test_the_offset_of_a_night_is_that_of_its_bedtime() -> None:
    found = normalise("sleep", DOCUMENTS["sleep_dst_night_hypnogram_5min"], "America/New_York")
    assert {sample.utc_offset_minutes for sample in found.samples} == {60}


def test_heart_rates_of_a_night_carry_the_offset_of_their_own_timestamp() -> None:
    series = {"interval": 300, "items": [50], "timestamp": "2024-01-14T23:30:00Z"}
    found = normalise("sleep", changed("sleep_long_full", heart_rate=series))
    assert [sample.utc_offset_minutes for sample in found.samples if sample.metric == "heart_rate"] == [None]


@pytest.mark.parametrize("fine", [None, "", ...])
def test_the_coarse_hypnogram_counts_where_there_is_no_fine_one(fine: object) -> None:
    found = normalise("sleep", changed("sleep_long_full", sleep_phase_30_sec=fine, sleep_phase_5_min="41"))
    stages = [
        (sample.value, sample.end_at - sample.start_at) for sample in found.samples if sample.metric == "sleep_stage"
    ]
    assert [(value, length.total_seconds()) for value, length in stages] == [(1, 300), (3, 300)]


def test_a_fine_hypnogram_that_cannot_be_read_is_refused_and_the_coarse_one_counts() -> None:
    found = normalise("sleep", changed("sleep_long_full", sleep_phase_30_sec=[4, 4], sleep_phase_5_min="41"))
    assert values(found, "sleep_stage") == [1, 3]
    assert "abc123 sleep_phase_30_sec: a list is not a text" in reasons(found)


def test_a_gap_parts_equal_stages() -> None:
    found = normalise("sleep", changed("sleep_long_full", sleep_phase_30_sec="22 22"))
    assert values(found, "sleep_stage") == [2, 2]


def test_a_hypnogram_longer_than_a_day_is_refused() -> None:
    found = normalise("sleep", changed("sleep_long_full", sleep_phase_30_sec="4" * 5000, sleep_phase_5_min=None))
    assert values(found, "sleep_stage") == []
    assert "longer than a day" in reasons(found)


@pytest.mark.parametrize(
    ("start", "end", "why"),
    [
        ("2024-01-14T23:30:00", "2024-01-15T07:45:00+00:00", "has no time zone"),
        ("2024-01-14T23:30:00+00:00", "2024-01-15 07:45:00", "has no time zone"),
        ("2024-01-15T07:45:00+00:00", "2024-01-14T23:30:00+00:00", "bedtime_end is before bedtime_start"),
        ("2024-01-14T23:30:00+02:00", "2024-01-14T23:29:59+02:00", "bedtime_end is before bedtime_start"),
        (None, "2024-01-15T07:45:00+00:00", "there is no bedtime_start"),
        ("2024-01-14T23:30:00+00:00", ..., "there is no bedtime_end"),
        (1705275000, "2024-01-15T07:45:00+00:00", "1705275000 is not a timestamp"),
        ("2024-01-14T23:30:00+00:00", "2024-01-14T25:30:00Z", "is not a time"),
        ("0000-01-14T23:30:00+00:00", "2024-01-15T07:45:00+00:00", "is not between the years"),
    ],
)
def test_a_night_without_usable_bounds_yields_only_its_own_timed_heart_rates(start: Any, end: Any, why: str) -> None:
    found = normalise("sleep", changed("sleep_long_full", bedtime_start=start, bedtime_end=end))
    assert metrics(found) == {"heart_rate"}
    assert len(found.refused) == 1
    assert why in reasons(found)


def test_a_night_that_ends_as_it_starts_is_a_night() -> None:
    at = "2024-01-14T23:30:00+00:00"
    found = normalise("sleep", changed("sleep_long_full", bedtime_start=at, bedtime_end=at))
    assert "sleep_duration" in metrics(found)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (True, "true is not a number"),
        ("65", "'65' is not a number"),
        ([65], "a list is not a number"),
        ({}, "an object is not a number"),
        (0, "0 ms is outside the plausible range 1 to 500"),
        (501, "outside the plausible range"),
        (float("nan"), "outside the plausible range"),
        (10**400, "a huge number is not a plausible number"),
    ],
)
def test_a_value_that_is_no_plausible_number_is_refused_and_the_rest_counts(value: object, why: str) -> None:
    found = normalise("sleep", changed("sleep_long_full", average_hrv=value))
    whole = normalise("sleep", DOCUMENTS["sleep_long_full"])
    assert len(found.samples) == len(whole.samples) - 1
    assert [refusal.what for refusal in found.refused] == ["abc123 average_hrv"]
    assert why in found.refused[0].why


def test_null_is_neither_a_sample_nor_a_refusal() -> None:
    night = dict.fromkeys(DOCUMENTS["sleep_long_full"], None)
    times = {"id": "n", "bedtime_start": "2024-01-14T23:30:00Z", "bedtime_end": "2024-01-15T07:30:00Z"}
    found = normalise("sleep", night | times)
    assert (found.samples, found.refused) == ([], [])


def test_zero_is_a_value_of_a_duration() -> None:
    found = normalise("sleep", changed("sleep_long_full", latency=0, deep_sleep_duration=0.0))
    assert values(found, "sleep_latency") == [0]
    assert values(found, "sleep_deep") == [0]


def test_totals_are_never_derived_from_one_another() -> None:
    found = normalise("sleep", changed("sleep_long_full", total_sleep_duration=None))
    assert values(found, "sleep_duration") == []


@pytest.mark.parametrize(
    ("series", "why"),
    [
        ([58, 56], "a list is not an object"),
        ({"interval": 300, "items": "58", "timestamp": "2024-01-14T23:30:00Z"}, "items must be a list"),
        ({"interval": 300, "items": [58], "timestamp": "2024-01-14T23:30:00"}, "has no time zone"),
        ({"interval": 300, "items": [58]}, "there is no timestamp"),
        ({"interval": None, "items": [58], "timestamp": "2024-01-14T23:30:00Z"}, "null is not a number"),
        ({"interval": 0, "items": [58], "timestamp": "2024-01-14T23:30:00Z"}, "no step in time"),
        ({"interval": -300, "items": [58], "timestamp": "2024-01-14T23:30:00Z"}, "no step in time"),
        ({"interval": float("inf"), "items": [58], "timestamp": "2024-01-14T23:30:00Z"}, "no step in time"),
        ({"interval": 1e300, "items": [58], "timestamp": "2024-01-14T23:30:00Z"}, "longer than a day"),
    ],
)
def test_a_heart_rate_series_that_cannot_be_placed_is_refused_as_a_whole(series: object, why: str) -> None:
    found = normalise("sleep", changed("sleep_long_full", heart_rate=series))
    assert values(found, "heart_rate") == []
    assert values(found, "sleep_duration") == [27000]
    assert why in reasons(found)


@pytest.mark.parametrize(
    "series",
    [None, {}, {"items": None, "interval": 300}, {"items": [], "interval": 300, "timestamp": "2024-01-14T23:30:00Z"}],
)
def test_a_night_without_heart_rates_is_no_fault(series: object) -> None:
    found = normalise("sleep", changed("sleep_long_full", heart_rate=series))
    assert values(found, "heart_rate") == []
    assert found.refused == []


@pytest.mark.parametrize(
    ("identifier", "why"),
    [
        (None, "there is no id"),
        ("", "there is no id"),
        (True, "must be a text or a whole number"),
        (1.5, "must be a text or a whole number"),
        ("a\0b", "NUL"),
        ("\ud800", "lone surrogate"),
        ("x" * 256, "longer than 255"),
    ],
)
def test_a_document_without_a_usable_id_is_refused(identifier: object, why: str) -> None:
    found = normalise("daily_stress", changed("daily_stress", id=identifier))
    assert found.samples == []
    assert why in reasons(found)
    assert_storable(found)


@pytest.mark.parametrize("day", [None, ..., "2024-13-01", "20240505", "2024-05-05T00:00:00Z", 20240505, "yesterday"])
def test_a_daily_value_without_its_day_is_refused(day: object) -> None:
    found = normalise("daily_stress", changed("daily_stress", day=day))
    assert found.samples == []
    assert len(found.refused) == 1


def test_a_zone_that_does_not_exist_refuses_daily_values_with_its_name() -> None:
    found = normalise("daily_stress", DOCUMENTS["daily_stress"], "Mars/Olympus")
    assert "'Mars/Olympus' is not a time zone" in reasons(found)


def test_a_ring_unworn_on_a_day_shortened_by_a_clock_change_yields_nothing() -> None:
    short = changed("daily_activity", day="2024-03-31", non_wear_time=82_800)
    assert normalise("daily_activity", short, "Europe/Berlin").samples == []
    assert len(normalise("daily_activity", short, "UTC").samples) == 5


@pytest.mark.parametrize("seconds", [86_399, None, "86400", True, ...])
def test_a_ring_worn_for_any_part_of_a_day_yields_that_day(seconds: object) -> None:
    assert len(normalise("daily_activity", changed("daily_activity", non_wear_time=seconds)).samples) == 5


@pytest.mark.parametrize("average", [None, {}, {"average": None}])
def test_a_day_without_oxygen_saturation_is_no_fault(average: object) -> None:
    found = normalise("daily_spo2", changed("daily_spo2", spo2_percentage=average))
    assert (found.samples, found.refused) == ([], [])


def test_oxygen_saturation_that_is_no_object_is_refused() -> None:
    found = normalise("daily_spo2", changed("daily_spo2", spo2_percentage=97))
    assert reasons(found) == "sp-1 spo2_percentage: 97 is not an object"


def test_a_heart_rate_row_is_named_by_its_instant_in_utc() -> None:
    found = normalise("heartrate", {"bpm": 61, "timestamp": "2024-01-15T03:30:00.250+01:00", "source": "rest"})
    (sample,) = found.samples
    assert sample.record == "heartrate:2024-01-15T02:30:00.250Z"
    assert sample.start_at == sample.end_at == datetime(2024, 1, 15, 2, 30, 0, 250_000, UTC)
    assert sample.utc_offset_minutes == 60


def test_a_heart_rate_row_in_utc_has_no_offset() -> None:
    found = normalise("heartrate", {"bpm": 61, "timestamp": "2024-01-15T02:30:00Z"})
    assert [sample.utc_offset_minutes for sample in found.samples] == [None]


def test_bad_heart_rate_rows_do_not_sink_their_page() -> None:
    rows = [
        {"bpm": 61, "timestamp": "2024-01-15T02:30:00"},
        {"bpm": None, "timestamp": None},
        "row",
        {"bpm": 19, "timestamp": "2024-01-15T02:40:00Z"},
        {"bpm": 62, "timestamp": "2024-01-15T02:45:00Z"},
    ]
    found = normalise("heartrate", {"data": rows})
    assert values(found, "heart_rate") == [62]
    assert [refusal.what for refusal in found.refused] == ["data[0]", "data[2]", "heartrate:2024-01-15T02:40:00Z bpm"]


@pytest.mark.parametrize("rows", [None, {}, "rows", 3])
def test_a_page_whose_data_is_no_list_is_refused(rows: object) -> None:
    assert len(normalise("sleep", {"data": rows}).refused) == 1


def test_a_workout_that_ends_before_it_starts_is_refused() -> None:
    found = normalise("workout", changed("workout", end_datetime="2024-05-05T18:01:59+02:00"))
    assert found.samples == []
    assert "end_datetime is before start_datetime" in reasons(found)


@patient
@given(
    st.sampled_from(sorted(READERS)), ANYTHING, st.sampled_from(["UTC", "Europe/Berlin", "", "\0", "America/Havana"])
)
def test_no_json_whatever_makes_it_raise(kind: str, document: Any, zone: str) -> None:
    assert_storable(normalise(kind, document, zone))


@patient
@given(spoiled(list(DOCUMENTS.values())), st.sampled_from(["UTC", "Africa/Cairo", "Pacific/Apia"]))
def test_no_spoiled_document_makes_it_raise(document: Document, zone: str) -> None:
    for kind in READERS:
        assert_storable(normalise(kind, document, zone))


def test_numbers_too_long_to_write_down_are_refused() -> None:
    found = normalise("sleep", changed("sleep_long_full", average_hrv=10**5000, bedtime_end=10**5000))
    assert "a huge number is not a timestamp" in reasons(found)
    assert normalise("daily_stress", {"id": 10**5000, "day": "2024-05-05"}).samples == []
