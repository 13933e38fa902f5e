from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from auren.biometrics.models import Source, Timeline
from devices.models import Assignment, Patient
from tests.biometrics.stored import store
from tests.console.api.conftest import Caller, problem

NOON = datetime(2026, 11, 13, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = {"from": "2026-11-13T00:00:00Z", "to": "2026-11-14T00:00:00Z"}


def address(patient: Patient, *metrics: str, **asked: object) -> str:
    query = {"patient_id": patient.pk, "metric": metrics or ("heart_rate",), **DAY, **asked}
    return f"/samples?{urlencode(query, doseq=True)}"


def walk(caller: Caller, path: str) -> list[Any]:
    """Every page's results, by way of `next`."""
    found: list[Any] = []
    while True:
        answer = caller.get(path)
        assert answer.status_code == 200, answer.content
        found += answer.json()["results"]
        following = answer.json()["next"]
        if following is None:
            return found
        path = following.removeprefix("http://testserver/api/v1")


def test_a_sample_has_the_names_of_the_events(sam: Caller, patient: Patient, ring: Source) -> None:
    store(ring, "heart_rate", 0.5, NOON, patient_id=patient.pk, record="r-1")
    (sample,) = sam.get(address(patient)).json()["results"]
    assert sample == {
        "metric": "heart_rate",
        "start_at": "2026-11-13T12:00:00Z",
        "end_at": "2026-11-13T12:00:00Z",
        "value": 0.5,
        "unit": "/min",
        "utc_offset_minutes": None,
        "record": "r-1",
        "source": "Oura ring",
        "source_id": ring.pk,
        "revised_at": "2026-11-13T12:00:00Z",
        "delivery_id": 1,
    }


def test_the_range_includes_its_beginning_and_not_its_end(sam: Caller, patient: Patient, ring: Source) -> None:
    for at in (NOON, NOON + MINUTE):
        store(ring, "heart_rate", 60, at, patient_id=patient.pk)
    asked = {"from": "2026-11-13T13:00:00+01:00", "to": "2026-11-13T12:01:00Z"}
    assert [one["start_at"] for one in sam.get(address(patient, **asked)).json()["results"]] == ["2026-11-13T12:00:00Z"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_of_any_size_yield_every_sample_once(
    sam: Caller, patient: Patient, ring: Source, watch: Source, limit: int
) -> None:
    for place in range(3):
        for source in (ring, watch):
            for metric in ("heart_rate", "steps"):
                for record in ("a", "b"):
                    at = NOON + place * MINUTE
                    store(source, metric, place, at, at + MINUTE, patient_id=patient.pk, record=record)
    store(ring, "spo2", 97, NOON, patient_id=patient.pk)
    found = walk(sam, address(patient, "steps", "heart_rate", limit=limit))
    key = [(one["metric"], one["start_at"], one["source_id"], one["record"]) for one in found]
    assert len(key) == len(set(key)) == 24
    assert key == sorted(key)


def test_what_arrives_meanwhile_moves_no_page(sam: Caller, patient: Patient, ring: Source) -> None:
    for place in range(4):
        store(ring, "heart_rate", 60 + place, NOON + place * MINUTE, patient_id=patient.pk)
    first = sam.get(address(patient, limit=2)).json()
    store(ring, "heart_rate", 50, NOON - MINUTE, patient_id=patient.pk)
    store(ring, "heart_rate", 70, NOON + 4 * MINUTE, patient_id=patient.pk)
    rest = walk(sam, address(patient, limit=2, cursor=first["next_cursor"]))
    assert [one["value"] for one in first["results"] + rest] == [60, 61, 62, 63, 70]


def test_only_one_source_is_read_where_one_is_named(sam: Caller, patient: Patient, ring: Source, watch: Source) -> None:
    for source in (ring, watch):
        store(source, "heart_rate", 60, NOON, patient_id=patient.pk)
    assert [one["source"] for one in walk(sam, address(patient, source_id=watch.pk))] == ["Apple Watch"]


def test_a_page_that_is_known_is_not_sent_again_until_something_changes(
    sam: Caller, patient: Patient, ring: Source
) -> None:
    timeline = Timeline.objects.create(patient_id=patient.pk, version=3)
    etag = sam.get(address(patient)).headers["ETag"]
    again = sam.get(address(patient), **{"If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    assert sam.get(address(patient, "steps"), **{"If-None-Match": etag}).status_code == 200
    timeline.version = 4
    timeline.save()
    assert sam.get(address(patient), **{"If-None-Match": etag}).status_code == 200


def test_a_clinician_reads_the_samples_of_an_assigned_patient_alone(
    clara: Caller, patient: Patient, ring: Source
) -> None:
    store(ring, "heart_rate", 60, NOON, patient_id=patient.pk)
    assert problem(clara.get(address(patient))) == (404, "not-found")
    Assignment.objects.create(clinician=clara.user, patient=patient, since=NOON - MINUTE)
    assert len(walk(clara, address(patient))) == 1


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"from": "2026-11-13T00:00:00"}, "from"),
        ({"from": "2026-03-29T02:30:00"}, "from"),
        ({"from": "1899-12-31T00:00:00Z"}, "from"),
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-11-13T00:00:00Z\0"}, "from"),
        ({"to": "2026-11-13T00:00:00Z"}, "from"),
        ({"to": "2028-11-13T00:00:00Z"}, "from"),
        ({"to": "9999-12-31T23:59:59-23:59"}, "to"),
        ({"from": "0001-01-01T00:00:00+23:59"}, "from"),
        ({"metric": "pulse"}, "metric"),
        ({"metric": ""}, "metric"),
        ({"patient_id": "1 OR 1=1"}, "patient_id"),
        ({"patient_id": "0"}, "patient_id"),
        ({"patient_id": str(2**63)}, "patient_id"),
        ({"patient_id": "9" * 5_000}, "patient_id"),
        ({"source_id": ""}, "source_id"),
        ({"cursor": ""}, "cursor"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1000000000"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"form": "2026-11-13T00:00:00Z"}, "form"),
        ({"source_id": ["1", "2"]}, "source_id"),
    ],
)
def test_what_cannot_be_asked_is_told_by_name(sam: Caller, patient: Patient, asked: dict[str, Any], name: str) -> None:
    answer = sam.get(address(patient, **asked) if "metric" not in asked else f"{address(patient)}&{urlencode(asked)}")
    assert problem(answer) in {(400, "bad-query"), (400, "bad-range")}
    assert name in [error["name"] for error in answer.json()["errors"]]


def test_each_thing_that_is_missing_is_named(sam: Caller) -> None:
    errors = sam.get("/samples").json()["errors"]
    assert {error["name"] for error in errors} == {"patient_id", "metric", "from", "to"}
