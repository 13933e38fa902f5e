from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from auren.biometrics.models import Source
from auren.console.models import Export
from auren.console.report import libraries
from devices.models import Assignment, Patient
from tests.biometrics.stored import NOON, store
from tests.console.api.conftest import Caller, problem
from tests.console.exports.test_pages import make


def body(patient: Patient, **changes: Any) -> dict[str, Any]:
    asked = {"patient_id": patient.pk, "format": "csv", "from": NOON.isoformat(), "metrics": ["heart_rate"]}
    return asked | {"to": (NOON + timedelta(days=1)).isoformat()} | changes


@pytest.fixture
def heart(patient: Patient, ring: Source, assigned: Assignment) -> Patient:
    store(ring, "heart_rate", 61, NOON, patient_id=patient.pk)
    return patient


def test_a_short_export_is_asked_for_and_taken(clara: Caller, heart: Patient) -> None:
    made = clara.post("/exports", body(heart))
    assert made.status_code == 201
    export = made.json()
    assert (export["state"], export["samples_total"], export["sources"]) == ("done", 1, "all")
    assert made.headers["Location"] == f"/api/v1/exports/{export['id']}"
    answer: Any = clara.client.get(export["content"], headers={"Accept": "text/csv"})
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert b"".join(answer.streaming_content).count(b"\r\n") == 2


def test_a_long_one_waits_and_its_file_is_a_409_until_it_is_there(
    clara: Caller, heart: Patient, settings: Settings
) -> None:
    settings.SHORT_EXPORT_SAMPLES = 0
    export = clara.post("/exports", body(heart, format="fhir")).json()
    assert (export["state"], export["content"]) == ("waiting", None)
    assert problem(clara.get(f"/exports/{export['id']}/content")) == (409, "not-possible")
    make()
    assert clara.get(f"/exports/{export['id']}").json()["state"] == "done"
    content = b"".join(clara.get(f"/exports/{export['id']}/content").streaming_content)
    assert content.startswith(b'{"resourceType":"Bundle"')


def test_a_list_has_the_callers_own_alone(clara: Caller, sam: Caller, heart: Patient) -> None:
    export = clara.post("/exports", body(heart)).json()
    assert [one["id"] for one in clara.get("/exports?state=done").json()["results"]] == [export["id"]]
    assert sam.get("/exports").json()["results"] == []
    for path in (f"/exports/{export['id']}", f"/exports/{export['id']}/content"):
        assert problem(sam.get(path)) == (404, "not-found")
    assert problem(sam.post(f"/exports/{export['id']}/cancel")) == (404, "not-found")


def test_a_patient_who_is_not_yours_is_nobody(clara: Caller, patient: Patient) -> None:
    assert problem(clara.post("/exports", body(patient))) == (404, "not-found")
    assert not Export.objects.exists()


def test_when_the_patient_is_yours_no_more_the_export_is_not_either(clara: Caller, heart: Patient) -> None:
    export = clara.post("/exports", body(heart)).json()
    Assignment.objects.update(until=timezone.now())
    assert problem(clara.get(f"/exports/{export['id']}/content")) == (404, "not-found")


@pytest.mark.parametrize(
    ("changes", "slug"),
    [
        ({"to": NOON.isoformat()}, "bad-range"),
        ({"from": "2026-11-13T12:00:00"}, "bad-body"),
        ({"format": "xml"}, "bad-body"),
        ({"format": "pdf"}, "bad-range"),  # of some metrics
        ({"metrics": ["mood"]}, "bad-body"),
        ({"sources": "mine"}, "bad-body"),
        ({"every": True}, "bad-body"),
        ({"patient_id": "1; DROP"}, "bad-body"),
    ],
)
def test_what_cannot_be_exported_is_refused(clara: Caller, heart: Patient, changes: dict[str, Any], slug: str) -> None:
    assert problem(clara.post("/exports", body(heart, **changes))) == (400, slug)
    assert not Export.objects.exists()


def test_one_that_waits_can_be_cancelled_once(clara: Caller, heart: Patient, settings: Settings) -> None:
    settings.SHORT_EXPORT_SAMPLES = 0
    export = clara.post("/exports", body(heart)).json()
    assert clara.post(f"/exports/{export['id']}/cancel").json()["state"] == "cancelled"
    assert problem(clara.post(f"/exports/{export['id']}/cancel")) == (409, "not-possible")
    assert problem(clara.get(f"/exports/{export['id']}/content")) == (409, "not-possible")


def test_a_report_is_of_whole_days_and_always_waits(
    clara: Caller, heart: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "LIBRARIES", {})  # it is not made here
    export = clara.post("/exports", body(heart, format="pdf", metrics=[])).json()
    assert (export["state"], export["sources"]) == ("waiting", "settled")
    assert (export["from"], export["to"]) == ("2026-11-12T23:00:00Z", "2026-11-14T23:00:00Z")


def test_where_libraries_are_missing_a_report_is_a_409_that_names_them(
    clara: Caller, heart: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(libraries.LIBRARIES, "libnowhere.so.0", "libpango-1.0-0")
    answer = clara.post("/exports", body(heart, format="pdf", metrics=[]))
    assert problem(answer) == (409, "not-possible")
    assert "apt-get install libpango-1.0-0" in answer.json()["detail"]
    assert not Export.objects.exists()
