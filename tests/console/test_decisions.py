"""A conflict on the clinician's pages, and deciding it there."""

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from auren.audit.models import Entry, Verb
from auren.biometrics.models import Conflict, Preference, Source
from devices.models import Assignment, Patient
from tests.console.conftest import person, signed_in
from tests.console.test_deciding import FIVE, disagree, number, seen, winners
from tests.webhooks.living import NOON
from webhooks import overriding


@pytest.fixture
def conflicts(assigned: Assignment) -> list[Conflict]:
    return disagree()


def page_of(one: Conflict) -> str:
    return f"/patients/{one.patient_id}/conflicts/{one.pk}/"


def words(answer: Any, status: int = 200) -> str:
    assert answer.status_code == status
    return " ".join(unescape(answer.content.decode()).split())


def override(client: Client, one: Conflict, **sent: Any) -> Any:
    choice = {"source_id": number("iPhone"), "scope": "moment", "note": "The watch was loose.", "seen": seen(one)}
    return client.post(page_of(one), {"act": "override", **choice, **sent}, follow=True)


def undo(client: Client, one: Conflict, **sent: Any) -> Any:
    return client.post(page_of(one), {"act": "undo", "seen": seen(one), **sent}, follow=True)


def test_the_timelines_panel_leads_to_each_conflict(clinic: Client, conflicts: list[Conflict]) -> None:
    one = conflicts[0]
    asked = {"from": "2026-11-13T00:00:00Z", "to": "2026-11-14T00:00:00Z"}
    (listed,) = clinic.get(f"/patients/{one.patient_id}/timeline.json", asked).json()["conflicts"]
    (base,) = re.findall(r'data-conflicts="([^"]+)"', words(clinic.get(f"/patients/{one.patient_id}/")))
    assert f"{base}{listed['id']}/" == page_of(one)
    assert (listed["apart"], listed["tolerance"], listed["daily"]) == (30, 8, False)


def test_a_clinician_sees_who_said_what_and_why_in_the_patients_time(clinic: Client, conflicts: list[Conflict]) -> None:
    body = words(clinic.get(page_of(conflicts[0])))
    assert '2026-11-13 13:00 to 13:05 <span class="dim">(Europe/Berlin)' in body
    assert "They differ by <b>30 bpm, 40 % of their mean</b>" in body
    assert "<svg" in body
    assert "/admin/" not in body


def test_a_clinician_foresees_decides_and_undoes(clinic: Client, conflicts: list[Conflict]) -> None:
    one = conflicts[1]
    page = words(override(clinic, one, scope="stretch"))
    assert "Heart rate, 2026-11-13 13:00 to 13:15, 3 conflicts: iPhone counts in place of Apple Watch." in page
    assert Preference.objects.count() == 0
    page = words(override(clinic, one, scope="stretch", confirmed="1"))
    assert "clara decided on" in page
    assert winners() == [("iPhone", "overridden")] * 3
    assert "3 conflicts: Apple Watch counts in place of iPhone." in words(undo(clinic, one))
    assert "Undone by clara" in words(undo(clinic, one, confirmed="1", note="It was not."))
    assert winners() == [("Apple Watch", "settled")] * 3


def test_what_a_clinician_decided_is_in_the_history_that_support_sees(
    clinic: Client, support: Client, conflicts: list[Conflict]
) -> None:
    override(clinic, conflicts[0], confirmed="1")
    history = words(support.get(f"/admin/biometrics/conflict/{conflicts[0].pk}/history/"))
    assert "clara" in history
    assert "The watch was loose." in history


def test_a_choice_can_be_made_again_with_what_was_written(clinic: Client, conflicts: list[Conflict]) -> None:
    page = words(override(clinic, conflicts[0], scope="metric", again="1"))
    assert "The watch was loose.</textarea>" in page
    assert re.search(r'value="metric"[^>]*checked', page)


def test_without_a_reason_the_page_says_so_and_nothing_changes(clinic: Client, conflicts: list[Conflict]) -> None:
    assert "Say why: whoever reads" in words(override(clinic, conflicts[0], note=" ", confirmed="1"))
    assert Preference.objects.count() == 0


def test_two_who_decide_at_once_do_not_overwrite_each_other(clinic: Client, conflicts: list[Conflict]) -> None:
    one = conflicts[0]
    before = seen(one)
    overriding.override(one, source_id=number("iPhone"), scope="moment", by="sam", note="mine")
    assert "has changed since you looked at it" in words(override(clinic, one, seen=before, confirmed="1"))
    assert [made.made_by for made in Preference.objects.all()] == ["sam"]


def test_what_nobody_decided_cannot_be_undone(clinic: Client, conflicts: list[Conflict]) -> None:
    assert "nothing to undo" in words(undo(clinic, conflicts[0]))


def test_somebody_elses_patients_conflicts_look_like_nobodys(
    conflicts: list[Conflict], database: str, patient: Patient
) -> None:
    other = signed_in(person("olga", "clinician"))
    assert other.get(page_of(conflicts[0])).status_code == 404
    assert other.post(page_of(conflicts[0]), {"act": "undo"}).status_code == 404
    assert Client().get(page_of(conflicts[0])).status_code == 302


def test_a_conflict_of_another_patient_is_not_found_under_ones_own(
    clinic: Client, conflicts: list[Conflict], clinician: User
) -> None:
    mine = Patient.objects.create(external_id="user_9")
    Assignment.objects.create(clinician=clinician, patient=mine, since=NOON - timedelta(days=1))
    assert clinic.get(f"/patients/{mine.pk}/conflicts/{conflicts[0].pk}/").status_code == 404


def test_a_clinician_without_the_right_looks_and_decides_nothing(clinician: User, conflicts: list[Conflict]) -> None:
    clinician.groups.get().permissions.clear()
    client = signed_in(clinician)
    assert "See what changes" not in words(client.get(page_of(conflicts[0])))
    assert override(client, conflicts[0], confirmed="1").status_code == 403
    assert Preference.objects.count() == 0


def test_where_nothing_is_left_of_the_conflict_the_timeline_is_shown(clinic: Client, conflicts: list[Conflict]) -> None:
    (address,) = re.findall(r'href="(/patients/\d+/\?from=[^"]+)"', words(clinic.get(page_of(conflicts[0]))))
    view = clinic.get(address).context["view"]
    assert view["from"] == (NOON - timedelta(hours=2)).timestamp()
    assert view["to"] == (NOON + 3 * FIVE + timedelta(hours=2)).timestamp()


def test_a_decision_about_the_totals_of_a_day_says_so(clinic: Client, patient: Patient, assigned: Assignment) -> None:
    source = Source.objects.create(link_id=1, name="Oura ring", kind="ring")
    one = Conflict.objects.create(
        patient_id=patient.pk, metric=19, start_at=NOON, end_at=NOON + timedelta(days=1), daily=True,
        values={str(source.pk): 5000}, winner=source, rule="recency", state="open",
    )  # fmt: skip
    body = words(clinic.get(page_of(one)))
    assert "Steps, whole day: devices disagree" in body
    assert "Open: nothing tells these devices apart" in body
    assert "withdrawn since" in body


def test_a_look_at_a_conflict_and_its_decision_are_in_the_audit_log(clinic: Client, conflicts: list[Conflict]) -> None:
    one = conflicts[0]
    clinic.get(page_of(one))
    override(clinic, one, confirmed="yes")
    entries = Entry.objects.filter(model="biometrics.conflict", object_id=str(one.pk)).order_by("id")
    assert [(entry.verb, entry.patient_ids) for entry in entries][:2] == [
        (Verb.VIEW, [one.patient_id]),
        (Verb.OVERRIDE, [one.patient_id]),
    ]
    assert not entries.filter(detail__contains="loose").exists()
