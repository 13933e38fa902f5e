from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auren.biometrics.metrics import BY_NAME, METRICS
from devices.vendors.healthkit import batch as batch_module
from devices.vendors.healthkit.normalise import normalise
from devices.vendors.healthkit.sources import source_of
from devices.vendors.normalised import Document, Normalised, Sample
from tests.vendors.recorded import ANYTHING, Payload, assert_storable, assert_yields, payloads_in, spoiled

PAYLOADS = payloads_in(Path(__file__).parent)
DOCUMENTS = {found.name: found.document for found in PAYLOADS}
AT = datetime(2026, 10, 5, 6, 0, tzinfo=UTC)
NAIVE = AT.replace(tzinfo=None)


def plain(*samples: Any, **more: Any) -> Normalised:
    return normalise("batch", {"user_id": "user_1", "samples": list(samples), **more})


def sample(kind: str, value: Any = 60, unit: Any = None, **more: Any) -> Document:
    return {"uuid": "U-1", "type": kind, "value": value, "unit": unit, "timestamp": "2026-10-05T06:00:00Z"} | more


def stage(value: Any, kind: str = "SleepAnalysis") -> Document:
    return {"uuid": "U-1", "type": kind, "value": value} | night()


def night() -> Document:
    return {"startDate": "2026-10-05T01:00:00Z", "endDate": "2026-10-05T02:00:00Z"}


def exported(name: str, *points: Any, units: Any = None, aggregation: Any = None, zone: str = "UTC") -> Normalised:
    document = {"data": {"metrics": [{"name": name, "units": units, "data": list(points)}]}}
    return normalise("batch", document | {"automation_aggregation": aggregation}, zone)


def only(found: Normalised) -> Sample:
    assert not found.refused
    assert len(found.samples) == 1
    return found.samples[0]


def reason(found: Normalised) -> str:
    assert not found.samples
    assert len(found.refused) == 1
    return found.refused[0].why


def values(found: Normalised) -> dict[str, float]:
    return {found_sample.metric: found_sample.value for found_sample in found.samples}


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.name)
def test_a_recorded_batch_yields_what_is_expected(payload: Payload) -> None:
    found = normalise(payload.expected["kind"], payload.document)
    assert_yields(found, payload.expected)
    assert_storable(found)


def test_a_kind_that_is_no_batch_is_ignored() -> None:
    assert normalise("sleep", DOCUMENTS["plain_vitals_activity"]) == Normalised(ignored=1)


# Names


@pytest.mark.parametrize("kind", ["HKQuantityTypeIdentifierHeartRate", "HeartRate", "heart_rate"])
def test_a_type_is_named_in_full_without_its_prefix_or_as_we_name_it(kind: str) -> None:
    assert only(plain(sample(kind, 61))).metric == "heart_rate"


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_of_the_catalogue_is_taken_under_our_name_in_our_unit(metric: Any) -> None:
    value = min(max(2, metric.low), metric.high)
    found = only(plain(sample(metric.name, value)))
    assert (found.metric, found.value) == (metric.name, value)


@pytest.mark.parametrize(
    "kind",
    [
        "HKQuantityTypeIdentifierWalkingHeartRateAverage",
        "HKQuantityTypeIdentifierDistanceCycling",
        "LeanBodyMass",
        "HKQuantityTypeIdentifierBodyMassIndex",
        "HKCategoryTypeIdentifierMindfulSession",
        "heartRate",
        "AppleStandTime",
    ],
)
def test_a_type_without_a_metric_is_counted_not_refused(kind: str) -> None:
    assert plain(sample(kind)) == Normalised(ignored=1)


@pytest.mark.parametrize("kind", [None, "", 7, True, [], {}, "Heart\0Rate", "Heart\ud800", "x" * 256])
def test_a_type_that_is_missing_or_unusable_refuses_the_sample(kind: Any) -> None:
    assert reason(plain(sample(kind)))


def test_sdnn_and_rmssd_stay_two_metrics() -> None:
    found = plain(sample("HeartRateVariabilitySDNN", 40), sample("HeartRateVariabilityRMSSD", 41))
    assert values(found) == {"hrv_sdnn": 40, "hrv_rmssd": 41}


# Units


@pytest.mark.parametrize(
    ("kind", "value", "unit", "expected"),
    [
        ("HeartRate", 1.2, "count/s", 72),
        ("HeartRate", 72, "BPM", 72),
        ("RespiratoryRate", 14.5, "breaths/min", 14.5),
        ("HeartRateVariabilitySDNN", 0.0425, "s", 42.5),
        ("OxygenSaturation", 0.57, "%", 57),
        ("OxygenSaturation", 97.5, "%", 97.5),
        ("OxygenSaturation", 1, None, 100),
        ("BodyFatPercentage", 0.215, "%", 21.5),
        ("sleep_efficiency", 0.91, None, 91),
        ("BodyTemperature", 98.6, "degF", 37),
        ("BodyTemperature", 98.6, "°F", 37),
        ("BodyTemperature", 310.15, "K", 37),
        ("skin_temperature_deviation", 1.8, "degF", 1),
        ("DistanceWalkingRunning", 1, "mi", 1609.344),
        ("DistanceWalkingRunning", 0.62, " KM ", 620),
        ("Height", 175, "cm", 1.75),
        ("Height", 70, "in", 1.778),
        ("Height", 5.9, "ft", 1.79832),
        ("BodyMass", 180, "lb", 81.6466266),
        ("BodyMass", 81_500, "g", 81.5),
        ("BodyMass", 12, "st", 76.20351816),
        ("ActiveEnergyBurned", 41.84, "kJ", 10),
        ("ActiveEnergyBurned", 10, "Cal", 10),
        ("ActiveEnergyBurned", 10_000, "cal", 10),
        ("AppleExerciseTime", 32, "min", 1920),
        ("AppleExerciseTime", 32, None, 1920),
        ("exercise_time", 32, None, 32),
        ("BloodGlucose", 5.5, "mmol/L", 99.0858),
        ("BloodGlucose", 5.5, "mmol<180.1558800000541>/L", 99.0858),
        ("BloodGlucose", 99, "mg/dl", 99),
        ("BloodPressureSystolic", 120, "mmHg", 120),
        ("VO2Max", 42, "mL/kg*min", 42),
        ("VO2Max", 42, "ml/(kg·min)", 42),
        ("VO2Max", 42, "mL/min·kg", 42),
        ("StepCount", 843, "count", 843),
        ("FlightsClimbed", 0, "", 0),
        ("HeartRate", 72, "beats per minute", 72),
        ("RespiratoryRate", 14.5, "Breaths per minute", 14.5),
        ("HeartRateVariabilitySDNN", 42.5, "milliseconds", 42.5),
        ("OxygenSaturation", 0.57, "fraction", 57),
        ("DistanceWalkingRunning", 2, "kilometers", 2000),
        ("Height", 175, "centimetres", 1.75),
        ("BodyMass", 180, "pounds", 81.6466266),
        ("BodyMass", 81.5, "kilograms", 81.5),
        ("ActiveEnergyBurned", 41.84, "kilojoules", 10),
        ("ActiveEnergyBurned", 10, "kilocalories", 10),
    ],
)
def test_a_value_is_kept_in_the_catalogues_unit(kind: str, value: float, unit: Any, expected: float) -> None:
    assert only(plain(sample(kind, value, unit))).value == expected


@pytest.mark.parametrize(
    ("kind", "unit"),
    [
        ("HeartRate", "kg"),
        ("BodyMass", "m"),
        ("StepCount", 5),
        ("StepCount", ["count"]),
        ("OxygenSaturation", "kg"),
        ("ActiveEnergyBurned", "CAL"),
        ("ActiveEnergyBurned", "calories"),
        ("HeartRate", "count/min\0"),
        ("HeartRate", "x" * 300),
        ("HeartRate", False),
    ],
)
def test_a_unit_that_does_not_fit_refuses_the_sample(kind: str, unit: Any) -> None:
    assert "does not fit" in reason(plain(sample(kind, 61, unit)))


# Values


@pytest.mark.parametrize("value", ["61", True, [61], {"value": 61}, 1e999, -1, 301, 10**400, float("nan"), [[[[]]]]])
def test_a_value_that_is_no_plausible_number_refuses_the_sample(value: Any) -> None:
    assert reason(plain(sample("HeartRate", value)))


@pytest.mark.parametrize("kind", ["HeartRate", "SleepAnalysis", "workout_duration"])
def test_null_is_no_value_and_is_counted(kind: str) -> None:
    assert plain(sample(kind, None)) == Normalised(ignored=1)


def test_a_sample_without_a_value_is_refused() -> None:
    assert reason(plain({"type": "HeartRate", "timestamp": "2026-10-05T06:00:00Z"})) == "it has no value"


# Time


def test_a_sample_keeps_its_own_start_and_end_whatever_its_metric() -> None:
    found = only(plain({"type": "HeartRate", "value": 60, **night()}))
    assert found.end_at - found.start_at == timedelta(hours=1)


@pytest.mark.parametrize("times", [{"timestamp": "2026-10-05T06:00:00Z"}, {"startDate": "2026-10-05T06:00:00Z"}])
def test_without_an_end_it_is_a_point(times: Document) -> None:
    found = only(plain({"type": "StepCount", "value": 60, "endDate": None, **times}))
    assert found.start_at == found.end_at == AT


@pytest.mark.parametrize(
    ("written", "offset"),
    [
        ("2026-10-05T06:00:00Z", None),
        ("2026-10-05T06:00:00.000z", None),
        ("2026-10-05T06:00:00+00:00", 0),
        ("2026-10-05T08:00:00+02:00", 120),
        ("2026-10-05T11:45:00+0545", 345),
        ("2026-10-05 02:30:00 -0330", -210),
        ("2026-10-05T08:00+02", 120),
        ("2026-10-05T08:00:00.0000000001+02:00", 120),
    ],
)
def test_the_offset_is_the_one_written(written: str, offset: int | None) -> None:
    found = only(plain(sample("HeartRate", timestamp=written)))
    assert (found.start_at, found.utc_offset_minutes) == (AT, offset)


@pytest.mark.parametrize(
    "written",
    [
        "2026-10-05T06:00:00",
        "2026-10-05",
        "",
        "yesterday",
        1791180000,
        None,
        True,
        [],
        {},
        "2026-13-05T06:00:00Z",
        "20261005T060000Z",
        "2026-W40-1T06:00:00Z",
        "2026-10-05T06:00:00+25:00",
        "1901-10-05T06:00:00Z",
        "\ud800" * 20,
        "2026-10-05T06:00:00Z\0",
        "2026-10-05T06:00:00." + "0" * 300 + "Z",
        "2026-10-05T06:00:61Z",
        "0001-01-01T00:00:00Z",
    ],
)
def test_a_timestamp_that_is_unusable_or_without_a_zone_refuses_the_sample(written: Any) -> None:
    assert reason(plain(sample("HeartRate", timestamp=written)))


def test_an_end_before_the_start_refuses_the_sample() -> None:
    assert "before it starts" in reason(plain(sample("StepCount", endDate="2026-10-05T07:59:59+02:00")))


@pytest.mark.parametrize(
    ("zone_offset", "expected"),
    [
        ("+02:00", 120),
        ("-03:30", -210),
        ("Z", 0),
        (None, None),
        ("Berlin", None),
        (120, None),
        ([], None),
        ("+9:99", None),
    ],
)
def test_a_zone_offset_counts_where_it_can_be_read(zone_offset: Any, expected: int | None) -> None:
    found = only(plain(sample("HeartRate", zoneOffset=zone_offset)))
    assert (found.start_at, found.utc_offset_minutes) == (AT, expected)


@given(
    st.datetimes(NAIVE.replace(year=1971), NAIVE.replace(year=2099), timezones=st.just(UTC)),
    st.integers(-1439, 1439),
    st.sampled_from("T "),
)
def test_any_timestamp_python_writes_comes_back_as_the_same_instant(at: datetime, minutes: int, separator: str) -> None:
    written = at.astimezone(timezone(timedelta(minutes=minutes))).isoformat(separator)
    found = only(plain(sample("HeartRate", timestamp=written)))
    assert (found.start_at, found.utc_offset_minutes) == (at, minutes)


# Identity and source


@pytest.mark.parametrize(
    ("written", "record"), [({"uuid": "A"}, "A"), ({"id": "B"}, "B"), ({"uuid": "", "id": 7}, "7")]
)
def test_the_record_is_the_samples_uuid_or_id(written: Document, record: str) -> None:
    found = plain({"type": "HeartRate", "value": 60, "timestamp": "2026-10-05T06:00:00Z"} | written)
    assert only(found).record == record


@pytest.mark.parametrize("uuid", ["a\0", "\udfff", "x" * 256, 1.5, True, ["a"], {"a": 1}])
def test_an_unusable_uuid_refuses_the_sample(uuid: Any) -> None:
    assert reason(plain(sample("HeartRate", uuid=uuid)))


def test_without_a_uuid_the_record_follows_type_source_start_and_end() -> None:
    base: Document = sample("HeartRate", uuid=None, source="Apple Watch")
    later = {"timestamp": "2026-10-05T06:00:01Z"}
    others: list[Document] = [
        {"type": "RestingHeartRate"},
        {"source": "iPhone"},
        later,
        {"endDate": "2026-10-05T06:00:01Z"},
    ]
    records = [found.record for found in plain(base, *(base | other for other in others)).samples]
    assert len(set(records)) == 5
    elsewhere = base | {"timestamp": "2026-10-05T08:00:00+02:00", "value": 70}
    assert only(plain(elsewhere)).record == records[0]


@pytest.mark.parametrize(
    ("source", "name", "kind"),
    [
        (None, "HealthKit", "other"),
        ("", "HealthKit", "other"),
        ({}, "HealthKit", "other"),
        ("Apple\u00a0Watch von Zoë", "Apple\u00a0Watch von Zoë", "watch"),
        ("iPhone", "iPhone", "phone"),
        ("Withings Body+", "Withings Body+", "scale"),
        ("OMRON connect", "OMRON connect", "cuff"),
        ("Dexcom G7", "Dexcom G7", "meter"),
        ("WHOOP", "WHOOP", "band"),
        ("Monitoring", "Monitoring", "other"),
        ({"name": "Oura", "productType": "iPhone15,2", "deviceType": "phone"}, "Oura", "ring"),
        ({"name": "Health", "productType": "Watch7,5"}, "Health", "watch"),
        ({"name": "Health", "deviceType": "scale"}, "Health", "scale"),
        ({"name": "Health", "deviceModel": "iPhone10,5", "deviceType": ["x"]}, "Health", "phone"),
        ({"name": None, "deviceName": "Galaxy Watch7"}, "Galaxy Watch7", "watch"),
        ({"appId": "com.example.health"}, "com.example.health", "other"),
    ],
)
def test_a_source_is_named_and_its_sort_of_device_guessed(source: Any, name: str, kind: str) -> None:
    assert tuple(source_of(source)) == (name, kind)
    assert plain(sample("HeartRate", source=source)).source_kinds == {name: kind}


@pytest.mark.parametrize("source", [7, True, [], ["Apple Watch"], "a\0", "\ud800", "x" * 256, {"name": "a\0"}])
def test_an_unusable_source_refuses_the_sample(source: Any) -> None:
    assert reason(plain(sample("HeartRate", source=source)))


def test_the_sync_timestamp_is_the_revision_of_all_its_samples() -> None:
    found = normalise("batch", DOCUMENTS["ow_zone_offset_and_words"])
    assert {each.revised_at for each in found.samples} == {datetime(2026, 5, 2, 10, tzinfo=UTC)}


@pytest.mark.parametrize("written", [None, "soon", "2026-05-02T10:00:00", 7, []])
def test_an_unusable_sync_timestamp_is_none(written: Any) -> None:
    assert only(plain(sample("HeartRate"), syncTimestamp=written)).revised_at is None


# Sleep stages


@pytest.mark.parametrize(("number", "expected"), [(0, 5), (1, 6), (2, 1), (3, 2), (4, 3), (5, 4), (3.0, 2)])
def test_a_stage_number_is_apples(number: float, expected: int) -> None:
    assert only(plain(stage(number))).value == expected


@pytest.mark.parametrize("number", range(1, 7))
def test_under_our_own_name_a_stage_number_is_ours(number: int) -> None:
    assert only(plain(stage(number, "sleep_stage"))).value == number


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("core", 2),
        ("Light", 2),
        ("asleepCore", 2),
        ("DEEP", 3),
        ("rem", 4),
        ("Awake", 1),
        ("In Bed", 5),
        ("in_bed", 5),
        ("inBed", 5),
        ("Asleep", 6),
        ("sleeping", 6),
        ("Unspecified", 6),
        ("HKCategoryValueSleepAnalysisAsleepREM", 4),
        ("HKCategoryValueSleepAnalysisAsleepUnspecified", 6),
        ("HKCategoryValueSleepAnalysisInBed", 5),
    ],
)
def test_a_stage_word_is_read_without_case_spaces_underscores_and_prefix(word: str, expected: int) -> None:
    assert only(plain(stage(word))).value == expected


def test_an_unknown_stage_is_counted() -> None:
    assert plain(stage("Unknown")) == Normalised(ignored=1)


@pytest.mark.parametrize(
    "value", [6, -1, 2.5, "snoozing", "", "3", True, [], 10**400, float("nan"), "core\0", "core" + " " * 300]
)
def test_any_other_stage_is_refused(value: Any) -> None:
    assert reason(plain(stage(value)))


# Workouts


@pytest.mark.parametrize("kind", ["HKWorkoutType", "HKWorkoutTypeIdentifier", "workout", "workout_duration"])
@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        ({}, 3600),
        ({"value": 1800}, 1800),
        ({"value": 30, "unit": "min"}, 1800),
        ({"duration": 0.5, "durationUnit": "hr"}, 1800),
    ],
)
def test_a_workout_lasts_as_reported_else_its_span(kind: str, duration: Document, expected: float) -> None:
    found = only(plain({"type": kind, **night(), **duration}))
    assert (found.metric, found.value) == ("workout_duration", expected)


def test_a_workout_without_duration_and_end_is_refused() -> None:
    assert "neither" in reason(plain({"type": "HKWorkoutType", "timestamp": "2026-10-05T06:00:00Z"}))


def test_a_health_auto_export_workout_before_version_two_lasts_its_span() -> None:
    workout = {"name": "Yoga", "start": "2026-10-05 08:00:00 +0200", "end": "2026-10-05 08:40:00 +0200"}
    found = only(normalise("batch", {"data": {"workouts": [workout]}}))
    assert (found.value, found.utc_offset_minutes, found.start_at) == (2400, 120, AT)


def test_a_workout_that_ends_as_it_starts_lasts_no_time() -> None:
    at = "2026-10-05T08:00:00+02:00"
    assert only(plain({"type": "HKWorkoutType", "startDate": at, "endDate": at})).value == 0
    assert only(normalise("batch", {"data": {"workouts": [{"name": "Yoga", "start": at, "end": at}]}})).value == 0


@pytest.mark.parametrize(
    ("duration", "expected"),
    [(1683.27, 1683.27), ({"qty": 30, "units": "min"}, 1800), ({"qty": 1683.27, "units": "s"}, 1683.27), (None, 2400)],
)
def test_a_health_auto_export_workout_lasts_as_reported(duration: Any, expected: float) -> None:
    workout = {"name": "Yoga", "start": "2026-10-05 08:00:00 +0200", "end": "2026-10-05 08:40:00 +0200"}
    assert only(normalise("batch", {"data": {"workouts": [workout | {"duration": duration}]}})).value == expected


# Health Auto Export


@pytest.mark.parametrize(
    ("aggregation", "zone", "written", "hours"),
    [
        ("Minutes", "UTC", "2026-10-05 00:00:00 -0400", 1 / 60),
        ("hours", "UTC", "2026-10-05 00:00:00 -0400", 1),
        ("Days", "America/New_York", "2026-10-05 00:00:00 -0400", 24),
        ("daily", "America/New_York", "2026-03-08 00:00:00 -0500", 23),
        ("Days", "America/New_York", "2026-11-01 00:00:00 -0400", 25),
        ("Days", "Europe/Berlin", "2026-11-01 00:00:00 -0400", 24),
        ("Days", "Nowhere/Atlantis", "2026-03-08 00:00:00 -0500", 24),
        ("Weeks", "America/New_York", "2026-03-02 00:00:00 -0500", 167),
        ("Months", "America/New_York", "2026-02-01 00:00:00 -0500", 28 * 24),
        ("Months", "UTC", "2026-01-31 00:00:00 -0500", 29 * 24),
        ("Years", "UTC", "2026-12-01 00:00:00 -0500", 365 * 24),
        ("Default", "UTC", "2026-10-05 00:00:00 -0400", 0),
        (None, "UTC", "2026-10-05 00:00:00 -0400", 0),
        (7, "UTC", "2026-10-05 00:00:00 -0400", 0),
    ],
)
def test_what_adds_up_ends_after_the_period_the_header_says(
    aggregation: Any, zone: str, written: str, hours: float
) -> None:
    found = only(exported("step_count", {"date": written, "qty": 900}, aggregation=aggregation, zone=zone))
    assert found.end_at - found.start_at == timedelta(hours=hours)


def test_an_average_stays_a_point_whatever_the_header_says() -> None:
    found = only(
        exported(
            "heart_rate", {"date": "2026-10-05 08:00:00 +0200", "Min": 50, "Avg": 60, "Max": 70}, aggregation="Hours"
        )
    )
    assert (found.value, found.start_at, found.end_at) == (60, AT, AT)


def test_one_unusable_pressure_leaves_the_other() -> None:
    found = exported(
        "blood_pressure", {"date": "2026-10-05 08:00:00 +0200", "systolic": "118", "diastolic": 76}, units="mmHg"
    )
    assert values(found) == {"blood_pressure_diastolic": 76}
    assert len(found.refused) == 1


NIGHT: Document = {
    "date": "2026-10-05",
    "sleepStart": "2026-10-04 23:00:00 +0200",
    "sleepEnd": "2026-10-05 07:00:00 +0200",
}


def test_a_nights_totals_are_timed_by_the_sleep_and_the_bed() -> None:
    bed = {"inBedStart": "2026-10-04 22:30:00 +0200", "inBedEnd": "2026-10-05 07:15:00 +0200", "inBed": 8.75}
    found = exported("sleep_analysis", NIGHT | bed | {"asleep": 7.5, "rem": 1.5, "awake": None}, units="hr")
    assert values(found) == {"sleep_duration": 27_000, "sleep_rem": 5_400, "sleep_in_bed": 31_500}
    assert [(each.end_at - each.start_at).total_seconds() for each in found.samples] == [28_800, 28_800, 31_500]
    assert found.ignored == 1


def test_time_in_bed_without_bounds_of_its_own_runs_with_the_sleep() -> None:
    found = only(exported("sleep_analysis", NIGHT | {"inBed": 480}, units="min"))
    assert (found.metric, found.value, found.start_at.hour) == ("sleep_in_bed", 28_800, 21)


def test_a_total_counts_before_the_unspecified_sleep() -> None:
    found = exported("sleep_analysis", NIGHT | {"totalSleep": 7, "asleep": 0, "core": 7})
    assert values(found) == {"sleep_duration": 25_200, "sleep_light": 25_200}


def test_no_unspecified_sleep_beside_stages_is_not_a_sleepless_night() -> None:
    assert values(exported("sleep_analysis", NIGHT | {"asleep": 0, "core": 7})) == {"sleep_light": 25_200}
    assert values(exported("sleep_analysis", NIGHT | {"asleep": 0})) == {"sleep_duration": 0}


@pytest.mark.parametrize(
    "point", [NIGHT, {"asleep": 7}, {}, {"date": "2026-10-05"}, NIGHT | {"asleep": 7, "source": 7}]
)
def test_a_night_without_totals_or_times_is_refused(point: Document) -> None:
    assert reason(exported("sleep_analysis", point, units="hr"))


def test_totals_count_as_totals_beside_the_dates_of_a_stage() -> None:
    dates = {"startDate": NIGHT["sleepStart"], "endDate": NIGHT["sleepEnd"]}
    assert values(exported("sleep_analysis", NIGHT | dates | {"asleep": 7}, units="hr")) == {"sleep_duration": 25_200}


@pytest.mark.parametrize("name", ["step\0count", "step\ud800", "x" * 256])
def test_a_metric_whose_name_cannot_be_kept_is_refused(name: str) -> None:
    assert reason(exported(name, {"date": "2026-10-05 08:00:00 +0200", "qty": 1}))


def test_other_lists_and_unknown_metrics_are_counted() -> None:
    metrics = [{"name": "dietary_magnesium", "data": [{"qty": 1}, {"qty": 2}]}, {"name": "uv_exposure"}]
    found = normalise("batch", {"data": {"metrics": metrics, "ecg": [{}, {}], "symptoms": [{}], "note": "x"}})
    assert found == Normalised(ignored=6)


# Envelopes


def test_a_body_of_all_shapes_at_once_is_read_in_all_of_them() -> None:
    merged: Document = {"samples": [sample("HeartRate", 61)], "deleted": ["gone"], "data": {}}
    for name in ("ow_records_sleep_workout", "hae_streams_bp_stages"):
        merged["data"] |= DOCUMENTS[name]["data"]
    found = normalise("batch", merged)
    assert len(found.samples) == 1 + 3 + 9
    assert found.withdrawn == ["gone"]


@pytest.mark.parametrize(
    "document", [{}, {"samples": None}, {"data": None, "deleted": None}, {"data": {"records": None}}]
)
def test_an_empty_body_yields_nothing(document: Document) -> None:
    assert normalise("batch", document) == Normalised()


@pytest.mark.parametrize(
    "document",
    [
        {"samples": {}},
        {"samples": "x"},
        {"data": []},
        {"deleted": "U-1"},
        {"data": {"records": 7}},
        {"data": {"metrics": [7]}},
        {"data": {"metrics": [{"data": []}]}},
        {"data": {"metrics": [{"name": "step_count", "data": {}}]}},
    ],
)
def test_a_part_of_the_wrong_shape_is_refused(document: Document) -> None:
    assert reason(normalise("batch", document))


@pytest.mark.parametrize("document", [None, [], "batch", 7, True])
def test_a_body_that_is_no_object_is_refused(document: Any) -> None:
    assert "is not an object" in reason(normalise("batch", document))


def test_millions_of_refusals_are_told_in_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "MAX_LISTED", 3)
    found = plain(sample("HeartRate"), *[7] * 10)
    assert len(found.samples) == 1
    assert [refusal.what for refusal in found.refused] == ["samples[1]", "samples[2]", "samples[3]", "7 more"]


# Whatever comes


def is_bad(item: Any) -> bool:
    return not normalise("batch", {"samples": [item]}).samples


@given(spoiled(list(DOCUMENTS.values())), st.sampled_from(["UTC", "America/New_York", "Nowhere/Atlantis", ""]))
def test_a_spoiled_batch_never_raises_and_yields_only_what_can_be_stored(document: Document, zone: str) -> None:
    assert_storable(normalise("batch", document, zone))


@given(
    st.dictionaries(
        st.sampled_from(["samples", "data", "deleted", "syncTimestamp", "automation_aggregation"]), ANYTHING
    )
)
def test_any_json_at_all_never_raises(document: Document) -> None:
    assert_storable(normalise("batch", document))


@given(ANYTHING.filter(is_bad), st.integers(0, 18))
def test_a_bad_sample_changes_nothing_of_what_the_others_yield(item: Any, position: int) -> None:
    good = DOCUMENTS["plain_vitals_activity"]["samples"]
    spoilt = [*good[:position], item, *good[position:]]
    found, expected = normalise("batch", {"samples": spoilt}), normalise("batch", {"samples": good})
    assert found.samples == expected.samples
    assert found.source_kinds == expected.source_kinds


@given(st.sampled_from(["type", "value", "unit", "source", "uuid", "startDate", "endDate", "zoneOffset"]), ANYTHING)
def test_a_sample_with_anything_in_any_field_is_stored_refused_or_counted(field: str, value: Any) -> None:
    spoilt = DOCUMENTS["plain_vitals_activity"]["samples"][1] | {field: value}
    found = plain(spoilt)
    assert_storable(found)
    assert len(found.samples) + len(found.refused) + found.ignored == 1


def test_values_at_both_ends_of_every_range_are_kept() -> None:
    for metric in BY_NAME.values():
        ends = [metric.low, metric.high] if metric.unit != "%" else [max(metric.low, 1.01), metric.high]
        assert [only(plain(sample(metric.name, end))).value for end in ends] == ends
