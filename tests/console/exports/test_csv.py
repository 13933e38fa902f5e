import math
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auren.biometrics.models import Sample, Source
from auren.console.exports import reading
from auren.console.exports.spreadsheet import harmless, number
from devices.models import Patient
from tests.biometrics.stored import decide, dispute, store
from tests.console.exports.asked import NOON, csv_rows, csv_text, selection


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_reads_back_as_it_was(value: float) -> None:
    assert float(number(value)) == value


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (-0.0, "0"), (61.0, "61"), (0.1 + 0.2, "0.30000000000000004"), (-0.5, "-0.5")]
)
def test_a_whole_number_has_no_point_and_zero_is_zero(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize("first", "=+-@\t\r\n")
def test_what_looks_like_a_formula_is_text(first: str) -> None:
    assert harmless(f"{first}cmd|' /C calc'!A0") == f"'{first}cmd|' /C calc'!A0"
    assert harmless(f"a{first}") == f"a{first}"
    assert harmless("") == ""


def test_a_row_has_every_field_of_its_sample(patient: Patient, ring: Source) -> None:
    store(ring, "hrv_rmssd", 41.25, NOON, NOON + timedelta(hours=7), patient_id=patient.pk, record="night-1")
    Sample.objects.update(utc_offset_minutes=-210)
    [row] = csv_rows(selection(patient))
    assert row == {
        "patient": "user_1",
        "metric": "hrv_rmssd",
        "code": "auren:hrv_rmssd",
        "start_at_utc": "2026-11-13T12:00:00Z",
        "end_at_utc": "2026-11-13T19:00:00Z",
        "start_at_local": "2026-11-13T08:30:00-03:30",
        "end_at_local": "2026-11-13T15:30:00-03:30",
        "utc_offset_minutes": "-210",
        "value [see unit]": "41.25",
        "unit": "ms",
        "value_label": "",
        "source": "Oura ring",
        "source_kind": "ring",
        "vendor": "oura",
        "record": "night-1",
        "revised_at_utc": "2026-11-13T12:00:00Z",
        "delivery": "1",
        "settled": "yes",
        "conflict": "",
    }


def test_without_an_offset_the_field_is_empty_and_local_times_are_the_patients(patient: Patient, ring: Source) -> None:
    store(ring, "heart_rate", 61, NOON, patient_id=patient.pk)
    [row] = csv_rows(selection(patient))
    assert (row["utc_offset_minutes"], row["start_at_local"]) == ("", "2026-11-13T13:00:00+01:00")


def test_the_unit_is_in_the_header_where_it_is_one(patient: Patient, ring: Source) -> None:
    assert "value [/min]" in csv_text(selection(patient, "heart_rate"))
    assert "value [ms]" in csv_text(selection(patient, "hrv_rmssd", "hrv_sdnn"))
    assert "value [see unit]" in csv_text(selection(patient, "heart_rate", "steps"))


def test_no_steps_at_all_are_zero_and_not_blank(patient: Patient, ring: Source) -> None:
    store(ring, "steps", 0, NOON, NOON + timedelta(minutes=15), patient_id=patient.pk)
    assert csv_rows(selection(patient, "steps"))[0]["value [{steps}]"] == "0"


def test_a_stage_says_its_name(patient: Patient, ring: Source) -> None:
    store(ring, "sleep_stage", 3, NOON, NOON + timedelta(minutes=5), patient_id=patient.pk)
    [row] = csv_rows(selection(patient))
    assert (row["value [see unit]"], row["value_label"]) == ("3", "deep")


def test_names_with_commas_quotes_and_lines_come_back_as_they_were(patient: Patient, ring: Source) -> None:
    Source.objects.update(name='Ada\'s "ring",\r\nsecond, Größe 8')
    store(ring, "heart_rate", 61, NOON, patient_id=patient.pk, record="=1+1")
    [row] = csv_rows(selection(patient))
    assert (row["source"], row["record"]) == ('Ada\'s "ring",\r\nsecond, Größe 8', "'=1+1")
    assert csv_text(selection(patient)).endswith("\r\n")


def test_a_range_holds_what_starts_in_it_so_that_neighbours_share_nothing(patient: Patient, ring: Source) -> None:
    for hours in (-1, 0, 23, 24):
        start_at = NOON + timedelta(hours=hours)
        store(ring, "respiratory_rate", 14, start_at, start_at + timedelta(hours=2), patient_id=patient.pk)
    starts = [row["start_at_utc"] for row in csv_rows(selection(patient))]
    assert starts == ["2026-11-13T12:00:00Z", "2026-11-14T11:00:00Z"]
    nextday = csv_rows(selection(patient, start_at=NOON + timedelta(days=1)))
    assert [row["start_at_utc"] for row in nextday] == ["2026-11-14T12:00:00Z"]


def test_another_patients_samples_stay_out(patient: Patient, ring: Source) -> None:
    store(ring, "heart_rate", 61, NOON, patient_id=patient.pk + 1)
    assert csv_rows(selection(patient)) == []


@pytest.mark.parametrize("page", [1, 2, 3, 7, 100])
def test_pages_lose_nothing_and_repeat_nothing(
    patient: Patient, ring: Source, watch: Source, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PAGE", page)
    for minute in range(10):
        for by in (ring, watch):
            for record in ("a", "b") if minute == 4 else ("a",):
                store(by, "heart_rate", 60, NOON + timedelta(minutes=minute), patient_id=patient.pk, record=record)
    rows = [(row["start_at_utc"], row["source"], row["record"]) for row in csv_rows(selection(patient, "heart_rate"))]
    assert len(rows) == len(set(rows)) == 22
    assert rows == sorted(rows, key=lambda row: (row[0], row[1] != "Oura ring", row[2]))


def test_the_settled_device_alone_or_every_one_with_how_it_stands(
    patient: Patient, ring: Source, watch: Source
) -> None:
    for by, value in ((ring, 50.0), (watch, 90.0)):
        store(by, "heart_rate", value, NOON, patient_id=patient.pk)
    dispute(
        "heart_rate",
        NOON,
        NOON + timedelta(minutes=5),
        {ring: 50, watch: 90},
        ring,
        patient_id=patient.pk,
        state="open",
    )
    decide(ring, metric="heart_rate", patient_id=patient.pk)
    every = csv_rows(selection(patient, "heart_rate"))
    assert [(row["source"], row["settled"], row["conflict"]) for row in every] == [
        ("Oura ring", "yes", "open"),
        ("Apple Watch", "no", "open"),
    ]
    settled = csv_rows(selection(patient, "heart_rate", every_source=False))
    assert [row["source"] for row in settled] == ["Oura ring"]


def test_of_two_samples_of_one_device_and_moment_the_newer_revision_counts(patient: Patient, ring: Source) -> None:
    for record, minutes in (("a", 0), ("b", 5), ("c", 1)):
        revised_at = NOON + timedelta(minutes=minutes)
        store(ring, "heart_rate", 60, NOON, patient_id=patient.pk, record=record, revised_at=revised_at)
    rows = csv_rows(selection(patient, "heart_rate"))
    assert [(row["record"], row["settled"]) for row in rows] == [("a", "no"), ("b", "yes"), ("c", "no")]


def test_local_times_keep_the_hour_that_comes_twice_apart(patient: Patient, ring: Source) -> None:
    autumn = NOON.replace(month=10, day=25, hour=0, minute=30)
    for hours in (0, 1):
        store(ring, "heart_rate", 60, autumn + timedelta(hours=hours), patient_id=patient.pk)
    rows = csv_rows(selection(patient, "heart_rate", start_at=autumn))
    assert [row["start_at_local"] for row in rows] == ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"]
    assert ZoneInfo(patient.timezone).key == "Europe/Berlin"


def test_numbers_are_finite(patient: Patient, ring: Source) -> None:
    store(ring, "skin_temperature_deviation", -0.25, NOON, NOON + timedelta(days=1), patient_id=patient.pk)
    [row] = csv_rows(selection(patient, "skin_temperature_deviation"))
    assert math.isclose(float(row["value [Cel]"]), -0.25)
    assert row["value [Cel]"] == "-0.25"  # a number is no formula
