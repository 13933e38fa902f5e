import json
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import OperationalError
from django.test import Client

from auren.biometrics.models import Source
from devices.models import Assignment, Patient
from tests.biometrics.stored import NOON, dispute
from tests.console.api.conftest import Caller, problem
from webhooks.models import Delivery


@pytest.fixture
def conflict(patient: Patient, ring: Source, watch: Source) -> int:
    return dispute("heart_rate", NOON, NOON, {ring: 48, watch: 61}, watch, patient_id=patient.pk, state="open").pk


def delivery(patient: Patient, **fields: Any) -> Delivery:
    about = {"vendor": "oura", "dedup_key": "1", "event_type": "sleep.update", "vendor_user_id": "user_1"}
    return Delivery.objects.create(patient_id=patient.pk, body=b'{"sleep": "deep"}', **about, **fields)


@pytest.mark.parametrize(
    "path",
    ["/api/", "/api/v1", "/api/v1/", "/api/v1/patients/", "/api/v1/patients/x", "/api/v1/patients/1'--", "/api/%00"],
)
def test_an_address_that_is_none_is_a_problem_too(database: str, path: str) -> None:
    assert problem(Client().get(path)) == (404, "not-found")
    assert problem(Client().post(path)) == (404, "not-found")


def test_numbers_beyond_the_database_are_nobodys(sam: Caller) -> None:
    for number in ("0", str(2**63), "9" * 400):
        assert problem(sam.get(f"/patients/{number}")) == (404, "not-found")


def test_a_method_that_is_not_known_is_told_which_are(sam: Caller) -> None:
    answer = sam.client.delete("/api/v1/patients")
    assert problem(answer) == (405, "wrong-method")
    assert "GET" in answer.headers["Allow"]


def test_head_and_options_are_answered_without_a_body(sam: Caller, patient: Patient) -> None:
    head = sam.client.head(f"/api/v1/patients/{patient.pk}")
    assert (head.status_code, head.content) == (200, b"")
    options = sam.client.options("/api/v1/patients")
    assert (options.status_code, options.content) == (204, b"")
    assert "GET" in options.headers["Allow"]
    assert problem(Client().options("/api/v1/patients"))[0] == 401


def test_only_json_is_sent(sam: Caller) -> None:
    assert problem(sam.get("/metrics", Accept="text/html")) == (406, "not-acceptable")
    assert sam.get("/metrics", Accept="*/*").headers["Content-Type"] == "application/json"


def test_a_host_that_is_not_ours_is_a_problem(sam: Caller) -> None:
    assert problem(sam.get("/metrics", Host="evil.example\n")) == (400, "bad-request")


def test_a_wrong_body_is_told_what_is_wrong(sam: Caller, patient: Patient) -> None:
    path = f"/api/v1/deliveries/{delivery(patient, state='dead').pk}/ignore"

    def post(body: bytes | str, content_type: str = "application/json") -> tuple[int, str]:
        return problem(sam.client.generic("POST", path, body, content_type))

    assert post("<reason/>", "application/xml") == (415, "wrong-type")
    assert post("reason=x", "application/x-www-form-urlencoded") == (415, "wrong-type")
    assert post(b"\xff\xfe") == (400, "bad-body")
    assert post("[" * 50_000 + "]" * 10_000) == (400, "bad-body")
    assert post('{"reason": NaN}') == (400, "bad-body")
    assert post('{"reason": "\\ud800"}') == (400, "bad-body")
    assert post('{"reason": "a\\u0000b"}') == (400, "bad-body")
    assert post("[]") == (400, "bad-body")
    assert post("null") == (400, "bad-body")
    assert post("") == (400, "bad-body")
    assert post('{"reason": ""}') == (400, "bad-body")
    assert post('{"reason": {"a": 1}}') == (400, "bad-body")
    assert post('{"reason": "x", "staet": "dead"}') == (400, "bad-body")
    assert post(json.dumps({"reason": "x" * 70_000})) == (413, "too-large")
    assert Delivery.objects.get().state == "dead"


def test_what_breaks_is_ours_to_mend_and_says_nothing_of_it(sam: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(django_settings, "API_RATE_LIMIT", "not a rate")
    answer = sam.get("/metrics")
    assert problem(answer) == (500, "internal")
    assert "rate" not in answer.json()["detail"]


def test_without_its_database_the_api_says_when_to_come_back(clinic: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError

    monkeypatch.setattr("django.db.backends.base.base.BaseDatabaseWrapper.ensure_connection", away)
    monkeypatch.setattr("django.db.backends.utils.CursorWrapper.execute", away)
    answer = clinic.get("/api/v1/patients", headers={"Authorization": "Bearer auren_x"})
    assert problem(answer) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0


def test_a_change_by_session_needs_its_csrf_token(patient: Patient, sam: Caller) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(sam.user)
    address = f"/api/v1/deliveries/{delivery(patient, state='dead').pk}/retry"
    assert problem(browser.post(address)) == (403, "csrf")
    assert Delivery.objects.get().state == "dead"
    browser.get("/admin/")
    token = browser.cookies["csrftoken"].value if "csrftoken" in browser.cookies else "x" * 32
    browser.cookies["csrftoken"] = token
    answer = browser.post(address, content_type="application/json", headers={"X-CSRFToken": token})
    assert answer.status_code == 202


def test_another_clinicians_patient_is_nobodys_by_every_road(
    clara: Caller, patient: Patient, ring: Source, conflict: int
) -> None:
    number = delivery(patient, state="dead").pk
    decision = {"source_id": ring.pk, "note": "x"}

    def roads() -> list[int]:
        day = f"patient_id={patient.pk}&metric=steps&from=2026-11-13T00:00:00Z&to=2026-11-14T00:00:00Z"
        reads = [
            f"/patients/{patient.pk}",
            f"/patients/{patient.pk}/timeline",
            f"/samples?{day}",
            f"/conflicts/{conflict}",
        ]
        reads += [f"/links/{ring.link_id}", f"/sources/{ring.pk}"]
        return [clara.get(path).status_code for path in reads]

    def changes() -> list[int]:
        path = f"/conflicts/{conflict}"
        return [
            clara.post(f"{path}/override", decision).status_code,
            clara.post(f"{path}/undo", {"note": "x"}).status_code,
        ]

    def lists() -> list[int]:
        paths = [f"/patients?external_id={patient.external_id}", "/patients"]
        paths += [
            f"/{name}{asked}"
            for name in ("links", "sources", "conflicts")
            for asked in ("", f"?patient_id={patient.pk}")
        ]
        return [len(clara.get(path).json()["results"]) for path in paths]

    assert roads() == [404] * 6
    assert changes() == [404] * 2
    assert lists() == [0] * 8
    Assignment.objects.create(clinician=clara.user, patient=patient, since=NOON, until=NOON)
    assert (roads(), changes(), lists()) == ([404] * 6, [404] * 2, [0] * 8)
    Assignment.objects.update(until=None)
    assert roads() == [200] * 6
    assert 0 not in lists()
    for path in ("/deliveries", f"/deliveries/{number}", f"/deliveries/{number}/payload"):
        assert problem(clara.get(path)) == (403, "forbidden")
    assert problem(clara.post(f"/deliveries/{number}/retry")) == (403, "forbidden")
    assert problem(clara.post(f"/deliveries/{number}/ignore", {"reason": "x"})) == (403, "forbidden")
