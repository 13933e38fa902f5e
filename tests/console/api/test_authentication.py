from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from auren.console.models import AccessToken
from devices.models import Assignment, Patient
from tests.console.api.conftest import Caller, problem

METRICS = "/api/v1/metrics"


def with_header(value: str) -> Client:
    return Client(headers={"Authorization": value})


def test_nobody_is_told_how_to_show_who_they_are(database: str) -> None:
    answer = Client().get(METRICS)
    assert problem(answer) == (401, "unauthorised")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="AUREN"'


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer auren_unknown",
        "Bearer \xff\xfe",
        "Bearer a b",
        f"Bearer {'x' * 10_000}",
        "Basic YTpi",
    ],
)
def test_a_wrong_token_is_401_whatever_it_looks_like(database: str, header: str) -> None:
    answer = with_header(header).get(METRICS)
    assert problem(answer) == (401, "unauthorised")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="AUREN", error="invalid_token"'


def test_a_token_is_stored_as_a_digest_alone(clara: Caller) -> None:
    assert clara.text.startswith("auren_")
    assert clara.text not in str(AccessToken.objects.values())


def test_a_user_has_as_many_tokens_as_programs(clara: Caller) -> None:
    other = Caller(clara.user)
    AccessToken.objects.filter(pk=other.token.pk).update(revoked_at=timezone.now())
    assert problem(other.get("/metrics"))[0] == 401
    assert clara.get("/metrics").status_code == 200


def test_an_expired_token_is_none(clara: Caller) -> None:
    AccessToken.objects.update(expires_at=timezone.now())
    assert problem(clara.get("/metrics")) == (401, "unauthorised")


def test_the_token_of_a_deactivated_user_is_none(clara: Caller) -> None:
    User.objects.update(is_active=False)
    assert problem(clara.get("/metrics")) == (401, "unauthorised")


def test_use_is_noted_once_a_minute(clara: Caller) -> None:
    clara.get("/metrics")
    first = AccessToken.objects.get().last_used_at
    clara.get("/metrics")
    assert first is not None
    assert AccessToken.objects.get().last_used_at == first
    AccessToken.objects.update(last_used_at=first - timedelta(minutes=2))
    clara.get("/metrics")
    assert AccessToken.objects.get().last_used_at >= first  # type: ignore[operator]


def test_a_session_of_the_pages_reads_too(clinic: Client) -> None:
    assert clinic.get(METRICS).status_code == 200


def test_a_deactivated_users_session_is_none(clinic: Client) -> None:
    User.objects.update(is_active=False)
    assert problem(clinic.get(METRICS)) == (401, "unauthorised")


def test_a_wrong_token_is_not_made_good_by_a_session(clinic: Client) -> None:
    answer = clinic.get(METRICS, headers={"Authorization": "Bearer auren_unknown"})
    assert problem(answer) == (401, "unauthorised")


def test_a_clinician_sees_whom_they_are_assigned_to_now_and_nobody_else(clara: Caller, assigned: Assignment) -> None:
    other = Patient.objects.create(external_id="user_2", display_name="Bo")
    (seen,) = clara.get("/patients").json()["results"]
    assert seen["external_id"] == "user_1"
    theirs, nobodys = clara.get(f"/patients/{other.pk}"), clara.get(f"/patients/{other.pk + 1}")
    assert problem(theirs) == (404, "not-found")
    assert theirs.json() == nobodys.json()
    Assignment.objects.update(until=timezone.now())
    assert problem(clara.get(f"/patients/{assigned.patient_id}")) == (404, "not-found")
    assert clara.get("/patients").json()["results"] == []


def test_whoever_has_no_role_sees_nobody(database: str, patient: Patient) -> None:
    caller = Caller(User.objects.create_user("new"))
    assert caller.get("/patients").json()["results"] == []
    assert problem(caller.get(f"/patients/{patient.pk}")) == (404, "not-found")


def test_support_and_superusers_see_everybody(sam: Caller, root: Caller, patient: Patient) -> None:
    for caller in (sam, root):
        assert caller.get(f"/patients/{patient.pk}").json()["external_id"] == "user_1"
