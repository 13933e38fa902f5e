from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest

from auren.biometrics.models import Source, Timeline
from devices.models import Patient
from tests.biometrics.stored import dispute, store
from tests.console.api.conftest import Caller, problem

NOON = datetime(2026, 11, 13, 12, tzinfo=UTC)
DAY = {"from": "2026-11-13T00:00:00Z", "to": "2026-11-14T00:00:00Z"}


def address(patient: Patient, **asked: object) -> str:
    return f"/patients/{patient.pk}/timeline?{urlencode({**DAY, 'metric': 'heart_rate', **asked}, doseq=True)}"


def test_a_timeline_says_what_counts_and_of_which_device(sam: Caller, patient: Patient, ring: Source) -> None:
    store(ring, "heart_rate", 0.125, NOON, patient_id=patient.pk)
    content = sam.get(address(patient)).json()
    at = NOON.timestamp()
    assert content == {
        "patient_id": patient.pk,
        "from": "2026-11-13T00:00:00Z",
        "to": "2026-11-14T00:00:00Z",
        "timezone": "Europe/Berlin",
        "series": [
            {
                "metric": "heart_rate",
                "unit": "/min",
                "shape": "line",
                "lines": [
                    {
                        "sources": [ring.pk],
                        "start": [at],
                        "end": [at],
                        "value": [0.125],
                        "low": [0.125],
                        "high": [0.125],
                    }
                ],
                "gaps": content["series"][0]["gaps"],
                "every_source": None,
            }
        ],
        "sources": [{"id": ring.pk, "name": "Oura ring", "kind": "ring"}],
        "conflicts": [],
        "more_conflicts": False,
    }
    before, after = content["series"][0]["gaps"]
    assert (before["why"], before["end"]) == ("not_connected", at)
    assert (after["why"], after["start"]) == ("not_synced", at)


def test_the_loser_of_a_conflict_is_shown_on_request(
    sam: Caller, patient: Patient, ring: Source, watch: Source
) -> None:
    for source in (ring, watch):
        store(source, "heart_rate", 48 if source == ring else 61, NOON, patient_id=patient.pk)
    dispute("heart_rate", NOON, NOON + timedelta(minutes=5), {ring: 48, watch: 61}, watch, patient_id=patient.pk)
    content = sam.get(address(patient, sources="all")).json()
    (series,) = content["series"]
    assert [line["value"] for line in series["lines"]] == [[61]]
    assert sorted(line["value"] for line in series["every_source"]) == [[48], [61]]
    assert [conflict["winner_id"] for conflict in content["conflicts"]] == [watch.pk]


def test_without_a_range_it_ends_now_and_is_the_same_for_a_while(sam: Caller, patient: Patient) -> None:
    path = f"/patients/{patient.pk}/timeline"
    etag = sam.get(path).headers["ETag"]
    assert len(sam.get(path).json()["series"]) > 5
    assert sam.get(path, **{"If-None-Match": etag}).status_code in {200, 304}


@pytest.mark.usefixtures("redis")
def test_what_has_not_changed_is_not_sent_again(sam: Caller, patient: Patient, ring: Source) -> None:
    timeline = Timeline.objects.create(patient_id=patient.pk, version=1)
    first = sam.get(address(patient))
    again = sam.get(address(patient), **{"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert sam.get(address(patient)).content == first.content
    store(ring, "heart_rate", 50, NOON, patient_id=patient.pk)
    timeline.version = 2
    timeline.save()
    changed = sam.get(address(patient), **{"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200
    assert changed.json()["series"][0]["lines"]


@pytest.mark.parametrize(
    ("asked", "slug"),
    [
        ({"points": "9"}, "bad-query"),
        ({"points": "5001"}, "bad-query"),
        ({"sources": "some"}, "bad-query"),
        ({"to": "2027-11-14T00:00:00Z"}, "bad-range"),
        ({"to": "2026-11-13T00:00:00Z"}, "bad-range"),
    ],
)
def test_what_cannot_be_asked_is_told(sam: Caller, patient: Patient, asked: dict[str, str], slug: str) -> None:
    assert problem(sam.get(address(patient, **asked))) == (400, slug)


def test_a_patient_that_is_known_is_not_sent_again_until_something_changes(sam: Caller, patient: Patient) -> None:
    path = f"/patients/{patient.pk}"
    etag = sam.get(path).headers["ETag"]
    assert sam.get(path, **{"If-None-Match": etag}).status_code == 304
    assert sam.get(path, **{"If-None-Match": "*"}).status_code == 304
    Patient.objects.update(display_name="Ada Nowak-Li")
    assert sam.get(path, **{"If-None-Match": etag}).json()["display_name"] == "Ada Nowak-Li"
    assert problem(sam.get(path, **{"If-Match": etag})) == (412, "changed")
    assert "no-store" in sam.get(path).headers["Cache-Control"]
