from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User

from auren.biometrics.models import Conflict, Source
from devices.models import Assignment, Patient
from tests.biometrics.stored import dispute
from tests.console.api.conftest import Caller, problem
from tests.webhooks.living import heart_rate, push, work
from webhooks.models import Delivery

NOON = datetime(2026, 11, 13, 12, tzinfo=UTC)


@pytest.fixture
def conflict(patient: Patient) -> Conflict:
    """Two devices of one phone that differ by 30 beats, as a worker stores and settles them."""
    push(heart_rate(60, uuid="a", source="Apple Watch"), heart_rate(90, uuid="b", source="iPhone"))
    work()
    return Conflict.objects.get()


def other_of(conflict: Conflict) -> int:
    (other,) = {int(number) for number in conflict.values} - {conflict.winner_id}
    return other


def test_a_clinician_decides_the_conflicts_of_an_assigned_patient(
    clara: Caller, assigned: Assignment, conflict: Conflict
) -> None:
    path, other = f"/conflicts/{conflict.pk}", other_of(conflict)
    answer = clara.post(f"{path}/override", {"source_id": other, "note": "The watch was charging."})
    assert answer.status_code == 200, answer.content
    shown = answer.json()
    assert (shown["state"], shown["winner_id"], shown["resolved_by"]) == ("overridden", other, "clara")
    assert clara.get(path).json() == shown
    assert clara.get(path).headers["ETag"] == answer.headers["ETag"]
    assert Delivery.objects.filter(vendor="auren", origin="operator").count() == 1
    undone = clara.post(f"{path}/undo", {"note": "It was not."})
    assert (undone.status_code, undone.json()["winner_id"]) == (200, conflict.winner_id)


def test_nobody_overwrites_a_decision_they_have_not_seen(sam: Caller, ada: Caller, conflict: Conflict) -> None:
    path, other = f"/conflicts/{conflict.pk}", other_of(conflict)
    etag = sam.get(path).headers["ETag"]
    decision = {"source_id": other, "note": "x"}
    assert ada.post(f"{path}/override", decision, **{"If-Match": etag}).status_code == 200
    answer = sam.post(f"{path}/override", decision, **{"If-Match": etag})
    assert problem(answer) == (412, "changed")
    assert sam.post(f"{path}/undo", {"note": "x"}, **{"If-Match": answer.headers["ETag"]}).status_code == 200


def test_what_cannot_be_decided_says_why(sam: Caller, conflict: Conflict) -> None:
    path = f"/conflicts/{conflict.pk}"
    answer = sam.post(f"{path}/override", {"source_id": 10**9, "note": "x"})
    assert problem(answer) == (409, "not-possible")
    assert "says nothing in this conflict" in answer.json()["detail"]
    assert problem(sam.post(f"{path}/undo", {"note": "x"})) == (409, "not-possible")
    for body in ({"source_id": 1}, {"note": "x"}, {"source_id": 1, "note": "x", "scope": "all"}):
        assert problem(sam.post(f"{path}/override", body)) == (400, "bad-body")


def test_whoever_has_not_the_right_decides_nothing(database: str, conflict: Conflict) -> None:
    caller = Caller(User.objects.create_user("new"))
    answer = caller.post(f"/conflicts/{conflict.pk}/override", {"source_id": 1, "note": "x"})
    assert problem(answer) == (403, "forbidden")


def test_the_list_is_narrowed_by_what_it_can_be_asked_with(
    sam: Caller, patient: Patient, ring: Source, watch: Source
) -> None:
    dispute("heart_rate", NOON, NOON + timedelta(minutes=5), {ring: 48, watch: 61}, watch, patient_id=patient.pk)
    for asked, count in (
        ("", 1), (f"patient_id={patient.pk}", 1), (f"patient_id={patient.pk + 1}", 0), ("metric=heart_rate", 1),
        ("metric=steps&metric=heart_rate", 1), ("metric=steps", 0), ("state=overridden", 1), ("state=open", 0),
        ("from=2026-11-13T12:04:00Z", 1), ("from=2026-11-13T12:05:00Z", 0), ("to=2026-11-13T12:00:00Z", 0),
        ("to=2026-11-13T12:00:01Z", 1),
    ):  # fmt: skip
        assert len(sam.get(f"/conflicts?{asked}").json()["results"]) == count, asked
