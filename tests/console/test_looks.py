"""Every look at what is known of patients is in the audit log, and so is every change a person makes."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import AsyncClient, Client
from django.urls import URLPattern, URLResolver, get_resolver

from auren.audit.models import Entry, Verb
from auren.biometrics.models import Source
from auren.console.looks import LOOKS, OTHERS
from devices.models import Assignment, Invitation, Link, Patient
from tests.console.api.conftest import Caller
from tests.console.conftest import person
from tests.console.test_deliveries import delivery


def names(patterns: list[Any]) -> Iterator[str]:
    for pattern in patterns:
        if isinstance(pattern, URLPattern) and pattern.name:
            yield pattern.name
        elif isinstance(pattern, URLResolver) and pattern.app_name != "admin":
            yield from names(pattern.url_patterns)


def last() -> Entry:
    return Entry.objects.latest("id")


def told(entry: Entry) -> tuple[str, str, list[int], str]:
    return entry.verb, entry.detail, entry.patient_ids, entry.result


def test_every_route_is_a_look_or_is_said_to_be_none() -> None:
    assert {*LOOKS, *OTHERS} == set(names(get_resolver().url_patterns))


def test_a_page_says_who_saw_whom_from_where(clinic: Client, assigned: Assignment) -> None:
    clinic.get(f"/patients/{assigned.patient_id}/", REMOTE_ADDR="10.0.0.7")
    entry = last()
    assert told(entry) == (Verb.VIEW, "timeline", [assigned.patient_id], "done")
    assert (entry.username, entry.user_id, entry.via, entry.address) == (
        "clara",
        assigned.clinician_id,
        "session",
        "10.0.0.7",
    )


@pytest.mark.parametrize(
    ("address", "detail"),
    [
        ("/", "my patients"),
        ("/patients/{}/calendar/", "calendar"),
        ("/patients/{}/nights/2026-11-24/", "night: 2026-11-24"),
        ("/patients/{}/timeline.json", "timeline's data"),
        ("/patients/{}/export/", "exports"),
    ],
)
def test_each_page_of_a_clinician_is_a_row(clinic: Client, assigned: Assignment, address: str, detail: str) -> None:
    clinic.get(address.format(assigned.patient_id))
    assert told(last()) == (Verb.VIEW, detail, [assigned.patient_id], "done")


def test_somebody_elses_patient_is_a_row_that_says_refused(clinic: Client, patient: Patient) -> None:
    clinic.get(f"/patients/{patient.pk}/")
    assert told(last()) == (Verb.VIEW, "timeline", [patient.pk], "refused")
    clinic.get(f"/patients/{2**70}/")
    assert last().patient_ids == []


def test_what_an_open_page_asks_for_again_and_again_is_one_row(clinic: Client, assigned: Assignment) -> None:
    for _ in range(3):
        clinic.get(f"/patients/{assigned.patient_id}/timeline.json")
    assert Entry.objects.count() == 1
    clinic.get(f"/patients/{assigned.patient_id}/timeline.json", REMOTE_ADDR="10.0.0.7")
    assert Entry.objects.count() == 2


async def test_an_open_stream_is_one_row(clinician: Any, assigned: Assignment) -> None:
    client = AsyncClient()
    await client.aforce_login(clinician)
    await client.get(f"/patients/{assigned.patient_id}/live")
    entry = await Entry.objects.alatest("id")
    assert told(entry) == (Verb.WATCH, "timeline", [assigned.patient_id], "done")


def test_nobody_who_is_not_signed_in_makes_rows(database: str, patient: Patient) -> None:
    for address in ("/", f"/patients/{patient.pk}/", "/api/v1/patients", "/admin/"):
        Client().get(address)
    assert not Entry.objects.exists()


def test_nothing_is_shown_that_could_not_be_written_down(clinic: Client, assigned: Assignment) -> None:
    clinic.raise_request_exception = False
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_entry ADD CONSTRAINT full_disk CHECK (false) NOT VALID")
        try:
            answer = clinic.get(f"/patients/{assigned.patient_id}/")
        finally:
            cursor.execute("ALTER TABLE audit_entry DROP CONSTRAINT full_disk")
    assert answer.status_code == 500
    assert "Ada Nowak" not in answer.content.decode()


def test_the_api_says_which_token_asked(clinician: Any, assigned: Assignment, ring: Source) -> None:
    clara, number = Caller(clinician), assigned.patient_id
    span = "from=2026-11-01T00:00:00Z&to=2026-11-08T00:00:00Z"
    for path, detail in {
        "/patients": "patients",
        f"/patients/{number}": "patient",
        f"/patients/{number}/timeline": "timeline",
        f"/samples?patient_id={number}&metric=heart_rate&{span}": "samples",
        "/links": "links",
        f"/sources/{ring.pk}": "source",
    }.items():
        assert clara.get(path).status_code == 200
        assert told(last()) == (Verb.VIEW, detail, [number], "done")
        assert (last().via, last().token_id) == ("token", clara.token.pk)


def test_support_sees_a_payload_and_downloads_it_on_the_record(support: Client, link: Link) -> None:
    one = delivery(state="dead", link=link, body=b'{"heart": 61}')
    support.get(f"/admin/webhooks/delivery/{one.pk}/change/")
    assert told(last()) == (
        Verb.VIEW,
        "webhooks delivery page: with what it carried",
        [link.patient_id],
        "done",
    )
    support.get(f"/admin/webhooks/delivery/{one.pk}/download/body/")
    assert {entry.verb for entry in Entry.objects.all()} == {Verb.VIEW, Verb.DOWNLOAD}
    assert (last().model, last().object_id) == ("webhooks.delivery", str(one.pk))
    assert "61" not in str(list(Entry.objects.values("detail")))


def test_lists_of_the_admin_name_the_patients_they_show(support: Client, link: Link, patient: Patient) -> None:
    delivery(state="dead", link=link)
    for address in ("devices/patient", "devices/link", "webhooks/delivery"):
        support.get(f"/admin/{address}/")
        assert last().patient_ids == [patient.pk]


def test_samples_in_the_admin_are_seen_of_the_patient_who_was_searched(support: Client, patient: Patient) -> None:
    span = "start_at=2026-11-01T00:00&end_at=2026-11-08T00:00"
    support.get(f"/admin/biometrics/sample/?patient=user_1&metric=1&{span}")
    assert told(last()) == (Verb.VIEW, "biometrics sample list: heart_rate", [patient.pk], "done")


def test_what_is_typed_into_a_search_is_not_kept(support: Client, clinic: Client, assigned: Assignment) -> None:
    support.get("/admin/devices/patient/?q=Nowak")
    clinic.get("/?q=Nowak")
    assert "Nowak" not in str(list(Entry.objects.values()))


def changes() -> list[tuple[str, str, str]]:
    found = Entry.objects.exclude(verb=Verb.VIEW).order_by("id")
    return [(entry.verb, entry.model, entry.detail) for entry in found]


def test_forms_and_actions_of_the_admin_are_changes(admin: Client, link: Link, patient: Patient) -> None:
    admin.post(
        "/admin/devices/patient/add/", {**FORM, "external_id": "user_2", "display_name": "Bo", "timezone": "UTC"}
    )
    admin.post(f"/admin/devices/patient/{patient.pk}/change/", {**FORM, "display_name": "Ada N.", "timezone": "UTC"})
    admin.post("/admin/devices/link/", {"action": "pause", "_selected_action": [str(link.pk)]})
    invitation = Invitation.issue(patient, "oura", by="sam")
    chosen = {"action": "revoke", "_selected_action": [str(invitation.pk)], "confirmed": "1"}
    admin.post("/admin/devices/invitation/", chosen)
    assert changes() == [
        (Verb.ADD, "devices.patient", ""),
        (Verb.CHANGE, "devices.patient", "Display name, Timezone"),
        (Verb.PAUSE, "devices.link", ""),
        (Verb.WITHDRAW, "devices.invitation", ""),
    ]
    assert last().patient_ids == [patient.pk]


FORM = {"links-TOTAL_FORMS": "0", "links-INITIAL_FORMS": "0"}


def test_deleting_an_assignment_says_whose(admin: Client, assigned: Assignment) -> None:
    number = assigned.patient_id
    chosen = {"action": "delete_selected", "_selected_action": [str(assigned.pk)], "post": "yes"}
    admin.post("/admin/devices/assignment/", chosen)
    assert not Assignment.objects.exists()
    assert changes() == [(Verb.DELETE, "devices.assignment", "")]
    assert Entry.objects.get(verb=Verb.DELETE).patient_ids == [number]


def test_a_reason_that_was_typed_is_on_the_delivery_and_not_in_the_log(database: str) -> None:
    sam, one = Caller(person("sam", "support")), delivery(state="dead")
    sam.post(f"/deliveries/{one.pk}/ignore", {"reason": "Ada Nowak is ill"})
    assert changes() == [(Verb.IGNORE, "webhooks.delivery", "")]
    assert "Nowak" not in str(list(Entry.objects.values()))


def test_exports_are_asked_for_and_downloaded_on_the_record(clinician: Any, assigned: Assignment) -> None:
    clara, number = Caller(clinician), assigned.patient_id
    span = {"from": "2026-11-01T00:00:00Z", "to": "2026-11-08T00:00:00Z"}
    made = clara.post("/exports", {"patient_id": number, "format": "csv", **span}).json()
    clara.get(f"/exports/{made['id']}/content")
    assert [(entry.verb, entry.detail, entry.patient_ids) for entry in Entry.objects.order_by("id")] == [
        (Verb.EXPORT, "csv", [number]),
        (Verb.DOWNLOAD, "export: csv", [number]),
    ]
