"""The catalogue: complete, consistent, and as docs/metrics.md says."""

import re
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from auren.biometrics.metrics import BY_NAME, BY_NUMBER, DAY, METRICS, NIGHT, STAGE_LABELS, Metric
from auren.embedded.server import BASE_DIR
from devices.metrics_page import metrics_page

NAMES = """
heart_rate resting_heart_rate hrv_rmssd hrv_sdnn spo2 respiratory_rate body_temperature skin_temperature
skin_temperature_deviation sleep_stage sleep_duration sleep_in_bed sleep_awake sleep_light sleep_deep sleep_rem
sleep_latency sleep_efficiency steps distance flights_climbed active_energy basal_energy total_energy exercise_time
workout_duration workout_strain day_strain vo2_max body_mass body_fat height blood_glucose blood_pressure_systolic
blood_pressure_diastolic oura_readiness_score oura_sleep_score oura_activity_score oura_stress_high
oura_recovery_high oura_vascular_age whoop_recovery_score whoop_sleep_performance
"""
# https://ucum.org/ucum: units and the annotations in braces, which stand for one.
UNITS = {"/min", "ms", "s", "%", "Cel", "m", "kcal", "mL/kg/min", "kg", "mg/dL", "mm[Hg]", "a"}
ANNOTATIONS = {"{stage}", "{steps}", "{flights}", "{score}"}
each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


def test_the_numbers_that_samples_are_stored_under_have_not_moved() -> None:
    assert {metric.number: metric.name for metric in METRICS} == dict(enumerate(NAMES.split(), 1))


def test_names_numbers_and_codes_are_each_used_once() -> None:
    assert len(BY_NAME) == len(BY_NUMBER) == len(METRICS) == len({metric.code for metric in METRICS})


@each_metric
def test_a_unit_is_ucum(metric: Metric) -> None:
    assert metric.unit in UNITS | ANNOTATIONS


@each_metric
def test_a_code_is_ours_by_its_name_or_a_loinc_number_with_its_check_digit(metric: Metric) -> None:
    if metric.loinc is None:
        assert metric.code == f"auren:{metric.name}"
        return
    assert re.fullmatch(r"\d{3,6}-\d", metric.loinc)
    digits, check = metric.loinc.split("-")
    doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(reversed(digits))]
    assert (-sum(sum(divmod(number, 10)) for number in doubled)) % 10 == int(check)


def test_rmssd_is_not_filed_as_sdnn() -> None:
    assert BY_NAME["hrv_rmssd"].loinc is None
    assert BY_NAME["hrv_sdnn"].loinc == "80404-7"


@each_metric
def test_a_range_a_bucket_a_tolerance_and_an_order_can_be_used(metric: Metric) -> None:
    assert metric.low < metric.high
    assert metric.bucket in {DAY, NIGHT} or (isinstance(metric.bucket, int) and 86_400 % metric.bucket == 0)
    assert 0 <= metric.tolerance < metric.high - metric.low
    assert metric.order
    assert len(set(metric.order)) == len(metric.order)


@each_metric
def test_how_a_metric_adds_up_fits_its_kind(metric: Metric) -> None:
    assert (metric.kind == "stage") == (metric.adds == "state")
    assert metric.kind != "point" or metric.adds in {"mean", "last"}
    assert metric.kind != "daily" or metric.bucket == DAY
    assert metric.adds != "sum" or metric.low == 0


def test_every_stage_is_in_the_range_of_sleep_stage_and_has_a_label() -> None:
    stage = BY_NAME["sleep_stage"]
    assert sorted(STAGE_LABELS) == list(range(int(stage.low), int(stage.high) + 1))


def test_a_metric_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        METRICS[0].unit = "bpm"  # type: ignore[misc]


# The page


def test_the_page_is_what_the_code_says() -> None:
    page = (BASE_DIR / "docs" / "metrics.md").read_text()
    assert page == metrics_page(), "docs/metrics.md is behind: run make docs"


@each_metric
def test_the_page_has_a_row_of_every_table_for_a_metric(metric: Metric) -> None:
    assert metrics_page().count(f"| `{metric.name}` |") == 3


def test_the_command_writes_a_page_that_is_behind_and_only_checks_when_told_to(tmp_path: Path) -> None:
    page = tmp_path / "metrics.md"
    page.write_text("of old")
    with pytest.raises(CommandError, match="is behind the code"):
        call_command("document_metrics", "--check", page=page)
    assert page.read_text() == "of old"
    call_command("document_metrics", page=page)
    assert page.read_text() == metrics_page()
    call_command("document_metrics", "--check", page=page)
