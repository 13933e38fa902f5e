from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.vendors.normalised import Document, Normalised
from devices.vendors.whoop.normalise import READERS, is_v1_id, normalise
from tests.vendors.recorded import ANYTHING, Payload, assert_storable, assert_yields, patient, payloads_in, spoiled

PAYLOADS = payloads_in(Path(__file__).parent)
DOCUMENTS = {found.name: found.document for found in PAYLOADS}
KIND_OF = {"sleep_night": "sleep", "workout_real": "workout", "cycle": "cycle", "recovery_with_sleep": "recovery"}


def changed(name: str, **changes: Any) -> Document:
    """A recorded document with some fields changed, and those changed to `...` left out."""
    merged = deepcopy(DOCUMENTS[name]) | changes
    return {field: value for field, value in merged.items() if value is not ...}


def rescored(name: str, **changes: Any) -> Document:
    return changed(name, score=DOCUMENTS[name]["score"] | changes)


def summed(**changes: Any) -> Document:
    return rescored("sleep_night", stage_summary=DOCUMENTS["sleep_night"]["score"]["stage_summary"] | changes)


def values(found: Normalised, metric: str) -> list[float]:
    return [sample.value for sample in found.samples if sample.metric == metric]


def metrics(found: Normalised) -> set[str]:
    return {sample.metric for sample in found.samples}


def offsets(found: Normalised) -> set[int | None]:
    return {sample.utc_offset_minutes for sample in found.samples}


def reasons(found: Normalised) -> str:
    return "; ".join(f"{refusal.what}: {refusal.why}" for refusal in found.refused)


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.name)
def test_a_recorded_document_yields_what_is_expected_of_it(payload: Payload) -> None:
    found = normalise(payload.expected["kind"], payload.document)
    assert_yields(found, payload.expected)
    assert_storable(found)


@pytest.mark.parametrize(
    "payload", [one for one in PAYLOADS if "records" not in one.document], ids=lambda one: one.name
)
def test_one_document_and_a_page_with_it_yield_the_same(payload: Payload) -> None:
    page = {"records": [payload.document], "next_token": None}
    assert normalise(payload.expected["kind"], page) == normalise(payload.expected["kind"], payload.document)


@pytest.mark.parametrize(("name", "kind"), KIND_OF.items())
def test_the_band_is_the_source_and_the_document_dates_its_revision(name: str, kind: str) -> None:
    found = normalise(kind, changed(name, updated_at="2024-06-01T10:00:00.5+02:00"))
    assert {sample.source for sample in found.samples} == {"WHOOP"}
    assert {sample.revised_at for sample in found.samples} == {datetime(2024, 6, 1, 8, 0, 0, 500_000, UTC)}
    assert found.source_kinds == {"WHOOP": "band"}


def test_a_revision_that_cannot_be_read_is_said_and_left_to_the_worker() -> None:
    found = normalise("cycle", changed("cycle", updated_at="yesterday"))
    assert {sample.revised_at for sample in found.samples} == {None}
    assert reasons(found) == "571373432 updated_at: 'yesterday' is not a timestamp"


@pytest.mark.parametrize("kind", ["tag", "daily_sleep", "recovery.updated", "", "body"])
def test_an_unknown_kind_is_ignored(kind: str) -> None:
    found = normalise(kind, DOCUMENTS["sleep_night"])
    assert found.ignored == 1
    assert (found.samples, found.refused) == ([], [])


@pytest.mark.parametrize(("name", "kind"), KIND_OF.items())
def test_a_pending_score_is_asked_for_again_whatever_numbers_are_there(name: str, kind: str) -> None:
    found = normalise(kind, changed(name, score_state="PENDING_SCORE"))
    assert found.pending
    assert metrics(found) <= {"workout_duration"}
    assert found.refused == []


@pytest.mark.parametrize(("name", "kind"), KIND_OF.items())
def test_the_numbers_of_an_unscorable_document_are_not_read(name: str, kind: str) -> None:
    found = normalise(kind, changed(name, score_state="UNSCORABLE"))
    assert not found.pending
    assert found.ignored == 1
    assert metrics(found) <= {"workout_duration"}


@pytest.mark.parametrize("state", [None, ..., "scored", 1, []])
def test_an_unknown_score_state_is_refused_but_a_workout_keeps_its_duration(state: object) -> None:
    found = normalise("workout", changed("workout_real", score_state=state))
    assert metrics(found) == {"workout_duration"}
    assert "is not SCORED, PENDING_SCORE or UNSCORABLE" in reasons(found)


@pytest.mark.parametrize("score", [None, ..., {}])
def test_a_scored_document_without_a_score_is_no_fault(score: object) -> None:
    found = normalise("sleep", changed("sleep_night", score=score))
    assert (found.samples, found.refused) == ([], [])


@pytest.mark.parametrize("score", [91, "SCORED", [1], True])
def test_a_score_that_is_no_object_is_refused(score: object) -> None:
    found = normalise("cycle", changed("cycle", score=score))
    assert found.samples == []
    assert "571373432 score" in reasons(found)


@pytest.mark.parametrize(
    ("written", "minutes"),
    [("Z", 0), ("z", 0), ("+00:00", 0), ("-07:00", -420), ("+05:30", 330), ("+1400", 840), (None, None), (..., None)],
)
def test_the_timezone_offset_is_the_offset_where_there_is_one(written: object, minutes: int | None) -> None:
    found = normalise("cycle", changed("cycle", timezone_offset=written))
    assert offsets(found) == {minutes}


@pytest.mark.parametrize("written", ["PST", "", 120, "+24:00", [], True])
def test_a_timezone_offset_that_cannot_be_read_is_said_and_the_times_own_counts(written: object) -> None:
    found = normalise("cycle", changed("cycle", timezone_offset=written, start="2024-05-14T05:15:14.199+01:00"))
    assert offsets(found) == {60}
    assert "571373432 timezone_offset" in reasons(found)


@pytest.mark.parametrize(
    "field", ["total_light_sleep_time_milli", "total_slow_wave_sleep_time_milli", "total_rem_sleep_time_milli"]
)
@pytest.mark.parametrize("value", [None, "10262516", -1, True, 10**400])
def test_sleep_without_one_of_its_three_parts_has_no_duration(field: str, value: object) -> None:
    found = normalise("sleep", summed(**{field: value}))
    assert values(found, "sleep_duration") == []
    assert len(found.samples) == 7
    assert len(found.refused) == (value is not None)


def test_sleep_of_three_zeros_has_a_duration_of_zero() -> None:
    found = normalise(
        "sleep",
        summed(total_light_sleep_time_milli=0, total_slow_wave_sleep_time_milli=0, total_rem_sleep_time_milli=0),
    )
    assert values(found, "sleep_duration") == [0]


def test_parts_that_add_up_to_more_than_a_day_have_no_duration() -> None:
    found = normalise("sleep", summed(total_light_sleep_time_milli=60_000_000, total_rem_sleep_time_milli=60_000_000))
    assert values(found, "sleep_duration") == []
    assert "outside the plausible range" in reasons(found)


@pytest.mark.parametrize(("nap", "counts"), [(False, True), (None, True), (..., True), (True, False), ("true", False)])
def test_only_a_night_has_a_sleep_performance(nap: object, counts: bool) -> None:
    found = normalise("sleep", changed("sleep_night", nap=nap))
    assert values(found, "whoop_sleep_performance") == ([91] if counts else [])


@pytest.mark.parametrize("kind", ["sleep", "workout"])
@pytest.mark.parametrize("identifier", [93845, "93845"])
def test_an_id_of_api_v1_is_ignored(kind: str, identifier: object) -> None:
    found = normalise(kind, changed("sleep_night", id=identifier))
    assert found.ignored == 1
    assert (found.samples, found.refused) == ([], [])


def test_a_recovery_of_a_v1_sleep_is_ignored() -> None:
    found = normalise("recovery", changed("recovery_with_sleep", sleep_id=93845))
    assert (found.ignored, found.samples, found.refused) == (1, [], [])


@pytest.mark.parametrize(
    ("object_id", "old"),
    [
        ("123", True),
        (123, True),
        ("6f1c0f6e-52b8", False),
        ("", False),
        (True, False),
        (None, False),
        ("\uff11\uff12", False),
    ],
)
def test_ids_of_api_v1_are_whole_numbers(object_id: object, old: bool) -> None:
    assert is_v1_id(object_id) is old


@pytest.mark.parametrize(
    "sleep", [None, ..., {}, {"end": "2024-05-24T09:12:44.750Z"}, {"start": "2024-05-24T01:58:03Z", "end": None}]
)
def test_a_recovery_without_the_times_of_its_sleep_is_a_point_when_it_was_made(sleep: object) -> None:
    found = normalise("recovery", changed("recovery_with_sleep", sleep=sleep))
    made_at = datetime(2024, 5, 24, 9, 20, 18, 917_000, UTC)
    assert {(sample.start_at, sample.end_at) for sample in found.samples} == {(made_at, made_at)}
    assert offsets(found) == {None}
    assert len(found.samples) == 5


@pytest.mark.parametrize(
    ("sleep", "why"),
    [
        ({"start": "2024-05-24T09:00:00Z", "end": "2024-05-24T01:00:00Z"}, "end is before start"),
        ({"start": "2024-05-24T01:00:00", "end": "2024-05-24T09:00:00Z"}, "has no time zone"),
    ],
)
def test_a_recovery_whose_sleep_has_impossible_times_is_refused(sleep: Document, why: str) -> None:
    found = normalise("recovery", changed("recovery_with_sleep", sleep=sleep))
    assert found.samples == []
    assert why in reasons(found)


@pytest.mark.parametrize("field", ["created_at", "sleep_id"])
def test_a_recovery_that_cannot_be_placed_or_named_is_refused(field: str) -> None:
    found = normalise(
        "recovery",
        changed(
            "recovery_page_calibrating_and_alone",
            records=[changed("recovery_with_sleep", **{"sleep": ..., field: ...})],
        ),
    )
    assert found.samples == []
    assert reasons(found) == f"records[0]: there is no {field}"


@pytest.mark.parametrize("flag", [False, None, ..., "true"])
def test_only_a_calibrating_user_has_no_recovery_score(flag: object) -> None:
    score = {
        name: value
        for name, value in (DOCUMENTS["recovery_with_sleep"]["score"] | {"user_calibrating": flag}).items()
        if value is not ...
    }
    found = normalise("recovery", changed("recovery_with_sleep", score=score))
    assert values(found, "whoop_recovery_score") == [66]


@pytest.mark.parametrize("end", [None, ...])
def test_a_running_cycle_is_pending_even_when_scored(end: object) -> None:
    found = normalise("cycle", changed("cycle", end=end))
    assert found.pending
    assert (found.samples, found.refused) == ([], [])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"start": "2024-05-16T00:00:00Z"}, "end is before start"),
        ({"start": None}, "there is no start"),
        ({"end": "2024-05-15T05:06:01.083"}, "has no time zone"),
        ({"id": None}, "there is no id"),
        ({"id": 1.5}, "id must be a text or a whole number"),
    ],
)
def test_a_cycle_that_cannot_be_placed_or_named_is_refused(changes: Document, why: str) -> None:
    found = normalise("cycle", changed("cycle", **changes))
    assert found.samples == []
    assert why in reasons(found)


def test_a_value_out_of_range_is_refused_and_the_rest_counts() -> None:
    found = normalise("recovery", rescored("recovery_with_sleep", resting_heart_rate=0, spo2_percentage=100.5))
    assert metrics(found) == {"whoop_recovery_score", "hrv_rmssd", "skin_temperature"}
    assert [refusal.what for refusal in found.refused] == [
        "recovery:4b6c9a55-1f8b-4f57-9b0e-7f4f6a0e2c31 resting_heart_rate",
        "recovery:4b6c9a55-1f8b-4f57-9b0e-7f4f6a0e2c31 spo2_percentage",
    ]


@pytest.mark.parametrize(
    "document", [DOCUMENTS["body_measurement"], {"records": [DOCUMENTS["body_measurement"]]}], ids=["alone", "page"]
)
def test_a_body_measurement_says_how_things_are_and_counts_only_when_changed(document: Document) -> None:
    assert normalise("body_measurement", document).standing


@pytest.mark.parametrize(("name", "kind"), KIND_OF.items())
def test_every_other_document_says_what_happened(name: str, kind: str) -> None:
    assert not normalise(kind, DOCUMENTS[name]).standing


@pytest.mark.parametrize("field", ["user_id", "fetched_at"])
def test_a_body_measurement_needs_what_the_worker_adds(field: str) -> None:
    found = normalise("body_measurement", changed("body_measurement", **{field: ...}))
    assert found.samples == []
    assert reasons(found) == f"document: there is no {field}"


def test_a_body_measurement_may_have_one_of_its_values_only() -> None:
    found = normalise("body_measurement", changed("body_measurement", height_meter=None, weight_kilogram="90"))
    assert found.samples == []
    assert reasons(found) == "body:10129 weight_kilogram: '90' is not a number"


def test_bad_records_do_not_sink_their_page() -> None:
    found = normalise(
        "workout", {"records": [None, {}, DOCUMENTS["workout_real"], {"id": "a", "score_state": "SCORED"}]}
    )
    assert metrics(found) == {"workout_duration", "workout_strain"}
    assert [refusal.what for refusal in found.refused] == ["records[0]", "records[1]", "records[3]"]


@pytest.mark.parametrize("rows", [None, {}, "rows", 3])
def test_a_page_whose_records_are_no_list_is_refused(rows: object) -> None:
    assert len(normalise("sleep", {"records": rows}).refused) == 1


@patient
@given(st.sampled_from(sorted(READERS)), ANYTHING)
def test_no_json_whatever_makes_it_raise(kind: str, document: Any) -> None:
    assert_storable(normalise(kind, document))


@patient
@given(spoiled(list(DOCUMENTS.values())))
def test_no_spoiled_document_makes_it_raise(document: Document) -> None:
    for kind in READERS:
        assert_storable(normalise(kind, document))
