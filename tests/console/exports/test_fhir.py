"""Every Bundle here has been read by `fhir.resources`; what it cannot know is asked for one by one."""

from datetime import timedelta

import pytest
from fhir.resources.R4B.observation import Observation

from auren.biometrics.metrics import METRICS
from auren.biometrics.models import Sample, Source
from auren.console.exports import fhir, reading
from devices.models import Link, Patient
from tests.biometrics.stored import dispute, store
from tests.console.exports.asked import NOON, Resource, bundle, resources, selection
from webhooks.models import Delivery

NIGHT = timedelta(hours=8)
TOTALS = {
    "sleep_duration": 25200,
    "sleep_in_bed": 28800,
    "sleep_awake": 3600,
    "sleep_light": 12600,
    "sleep_deep": 6300,
    "sleep_rem": 6300,
    "sleep_latency": 0,
    "sleep_efficiency": 87.5,
}


def a_night(by: Source, patient: Patient, start_at=NOON, record: str = "night-1") -> None:  # type: ignore[no-untyped-def]
    for metric, value in TOTALS.items():
        store(by, metric, value, start_at, start_at + NIGHT, patient_id=patient.pk, record=record)
    for place, stage in enumerate((1, 2, 3, 4)):
        begins = start_at + timedelta(hours=place)
        ends = begins + timedelta(hours=1)
        store(by, "sleep_stage", stage, begins, ends, patient_id=patient.pk, record=record)


def codes(concept: Resource) -> list[tuple[str, str]]:
    return [(coding["system"], coding["code"]) for coding in concept["coding"]]


def test_an_empty_range_is_a_bundle_without_entries(patient: Patient) -> None:
    found = bundle(selection(patient))
    assert (found["type"], "entry" in found) == ("collection", False)


def test_an_observation_says_what_of_whom_by_which_device_and_when(patient: Patient, ring: Source) -> None:
    store(ring, "heart_rate", 61, NOON, patient_id=patient.pk, record="r1")
    device, observation = (entry["resource"] for entry in bundle(selection(patient))["entry"])
    assert device["deviceName"] == [{"name": "Oura ring", "type": "user-friendly-name"}]
    assert device["manufacturer"] == "Oura"
    assert codes(observation["code"]) == [("http://loinc.org", "8867-4"), ("urn:auren:metric", "heart_rate")]
    assert observation["valueQuantity"] == {
        "value": 61,
        "unit": "/min",
        "system": "http://unitsofmeasure.org",
        "code": "/min",
    }
    assert observation["subject"]["identifier"] == {"system": "urn:auren:patient", "value": "user_1"}
    assert observation["device"] == {"reference": f"urn:uuid:{device['id']}"}
    assert observation["effectiveDateTime"] == "2026-11-13T13:00:00+01:00"
    assert observation["category"][0]["coding"][0]["code"] == "vital-signs"
    assert observation["meta"]["profile"] == ["http://hl7.org/fhir/StructureDefinition/heartrate"]
    assert observation["status"] == "final"


def test_what_lasts_has_a_period_with_the_offset_it_was_written_with(patient: Patient, ring: Source) -> None:
    store(ring, "steps", 0, NOON, NOON + timedelta(minutes=15), patient_id=patient.pk)
    Sample.objects.update(utc_offset_minutes=330)
    [observation] = resources(selection(patient))
    assert observation["effectivePeriod"] == {
        "start": "2026-11-13T17:30:00+05:30",
        "end": "2026-11-13T17:45:00+05:30",
    }
    assert observation["valueQuantity"]["value"] == 0


def test_without_a_standard_code_there_is_ours_alone(patient: Patient, ring: Source) -> None:
    store(ring, "hrv_rmssd", 41.5, NOON, NOON + NIGHT, patient_id=patient.pk)
    [observation] = resources(selection(patient))
    assert codes(observation["code"]) == [("urn:auren:metric", "hrv_rmssd")]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_makes_a_valid_observation(patient: Patient, ring: Source, metric) -> None:  # type: ignore[no-untyped-def]
    end_at = NOON if metric.kind == "point" else NOON + timedelta(hours=1)
    store(ring, metric.name, metric.low, NOON, end_at, patient_id=patient.pk)
    [observation] = resources(selection(patient))
    Observation.model_validate(observation)


def test_a_night_is_one_observation_with_its_totals_and_stages(patient: Patient, ring: Source) -> None:
    a_night(ring, patient)
    [night] = resources(selection(patient))
    assert codes(night["code"]) == [("http://loinc.org", "93832-4"), ("urn:auren:metric", "sleep_night")]
    totals = {
        codes(part["code"])[-1][1]: part["valueQuantity"]["value"]
        for part in night["component"]
        if "valueQuantity" in part
    }
    assert totals == TOTALS
    stages = [
        (codes(part["code"])[0][1], part["valuePeriod"]["start"])
        for part in night["component"]
        if "valuePeriod" in part
    ]
    assert stages == [
        ("awake", "2026-11-13T13:00:00+01:00"),
        ("light", "2026-11-13T14:00:00+01:00"),
        ("deep", "2026-11-13T15:00:00+01:00"),
        ("rem", "2026-11-13T16:00:00+01:00"),
    ]
    assert night["effectivePeriod"] == {"start": "2026-11-13T13:00:00+01:00", "end": "2026-11-13T21:00:00+01:00"}
    assert "value" not in "".join(key for key in night if key.startswith("value"))
    assert night["category"][0]["coding"][0]["code"] == "activity"


def test_a_night_and_a_nap_are_two_and_two_devices_nights_too(patient: Patient, ring: Source, watch: Source) -> None:
    a_night(ring, patient)
    a_night(watch, patient, record="night-2")
    store(ring, "sleep_duration", 1200, NOON + NIGHT, NOON + NIGHT + timedelta(hours=1), patient_id=patient.pk)
    assert len(resources(selection(patient))) == 3


def test_a_night_of_stages_alone_claims_no_duration(patient: Patient, watch: Source) -> None:
    for hours, stage in ((0, 2), (1, 3), (4, 2)):
        begins = NOON + timedelta(hours=hours)
        store(watch, "sleep_stage", stage, begins, begins + timedelta(hours=1), patient_id=patient.pk)
    first, second = resources(selection(patient))
    assert codes(first["code"]) == [("urn:auren:metric", "sleep_night")]
    assert (len(first["component"]), len(second["component"])) == (2, 1)


def test_a_night_over_the_edge_belongs_to_the_range_it_begins_in_and_is_whole(patient: Patient, ring: Source) -> None:
    a_night(ring, patient, NOON + timedelta(hours=22))
    [night] = resources(selection(patient))
    assert len(night["component"]) == len(TOTALS) + 4
    assert resources(selection(patient, start_at=NOON + timedelta(days=1))) == []


def test_settled_only_leaves_the_other_devices_night_out(patient: Patient, ring: Source, watch: Source) -> None:
    a_night(ring, patient)
    a_night(watch, patient, record="night-2")
    [night] = resources(selection(patient, every_source=False))
    assert night["identifier"][0]["value"] == "night-1"
    assert {"system": "urn:auren:standing", "code": "settled-yes"} in night["meta"]["tag"]


def test_pressures_of_one_moment_are_one_panel(patient: Patient, watch: Source) -> None:
    for metric, value in (("blood_pressure_systolic", 121), ("blood_pressure_diastolic", 79)):
        store(watch, metric, value, NOON, patient_id=patient.pk)
    [panel] = resources(selection(patient))
    assert codes(panel["code"])[0] == ("http://loinc.org", "85354-9")
    assert [codes(part["code"])[0][1] for part in panel["component"]] == ["8480-6", "8462-4"]
    assert [part["valueQuantity"]["value"] for part in panel["component"]] == [121, 79]
    assert panel["meta"]["profile"] == ["http://hl7.org/fhir/StructureDefinition/bp"]


def test_a_pressure_without_its_other_half_stands_alone(patient: Patient, watch: Source) -> None:
    store(watch, "blood_pressure_systolic", 121, NOON, patient_id=patient.pk)
    store(watch, "blood_pressure_diastolic", 79, NOON + timedelta(minutes=1), patient_id=patient.pk)
    found = resources(selection(patient))
    assert [codes(one["code"])[0][1] for one in found] == ["8480-6", "8462-4"]
    assert not any("profile" in one["meta"] for one in found)


def test_what_the_vendor_has_not_finished_is_preliminary(patient: Patient, link: Link, ring: Source) -> None:
    a_night(ring, patient)
    waiting = Delivery.objects.create(
        vendor="oura", dedup_key="a", event_type="sleep", vendor_user_id="oura-1", state="retrying", planned_wait=True
    )
    Sample.objects.filter(metric=10).update(delivery_id=waiting.pk)
    [night] = resources(selection(patient))
    assert night["status"] == "preliminary"
    Delivery.objects.update(state="stored", planned_wait=False)
    [night] = resources(selection(patient))
    assert night["status"] == "final"


@pytest.mark.parametrize(("state", "status"), [("open", "preliminary"), ("settled", "final"), ("overridden", "final")])
def test_an_open_conflict_makes_it_preliminary(
    patient: Patient, ring: Source, watch: Source, state: str, status: str
) -> None:
    for by in (ring, watch):
        store(by, "heart_rate", 61, NOON, patient_id=patient.pk)
    values = {ring: 61.0, watch: 91.0}
    dispute("heart_rate", NOON, NOON + timedelta(minutes=5), values, ring, patient_id=patient.pk, state=state)
    found = resources(selection(patient, "heart_rate"))
    assert [one["status"] for one in found] == [status, status]
    assert {"system": "urn:auren:standing", "code": f"conflict-{state}"} in found[0]["meta"]["tag"]


def test_exporting_again_gives_the_same_ids_whatever_the_range(patient: Patient, ring: Source) -> None:
    a_night(ring, patient)
    store(ring, "heart_rate", 61, NOON, patient_id=patient.pk)
    first = {one["id"]: one for one in resources(selection(patient))}
    again = {one["id"]: one for one in resources(selection(patient, days=7))}
    assert first == again
    assert len(first) == 2
    assert bundle(selection(patient))["id"] == bundle(selection(patient))["id"]


def test_pages_make_one_bundle_with_each_device_once(
    patient: Patient, ring: Source, watch: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PAGE", 3)
    monkeypatch.setattr(fhir, "PIECE", 2)
    for minute in range(20):
        for by in (ring, watch):
            store(by, "heart_rate", 60, NOON + timedelta(minutes=minute), patient_id=patient.pk)
    entries = bundle(selection(patient))["entry"]
    assert len({entry["fullUrl"] for entry in entries}) == len(entries) == 42


def test_a_device_without_a_name_is_still_a_device(patient: Patient, ring: Source) -> None:
    Source.objects.update(name=" ")
    store(ring, "heart_rate", 61, NOON, patient_id=patient.pk, record=" ")
    [device] = resources(selection(patient), "Device")
    assert "deviceName" not in device
