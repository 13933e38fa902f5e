import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from devices.models import Invitation, Link, Patient
from tests.console.conftest import person, signed_in

PATIENTS, LINKS, LIST = "/admin/devices/patient/", "/admin/devices/link/", "/admin/devices/invitation/"
ADDRESS = re.compile(r'<input id="secret-\d+" value="([^"]+)"')


def text(response: Any) -> str:
    assert response.status_code == 200
    return " ".join(unescape(response.content.decode()).split())


def addresses(response: Any) -> list[str]:
    return [unescape(found) for found in ADDRESS.findall(response.content.decode())]


def invite(client: Client, *chosen: Patient, **more: str) -> Any:
    keys = [str(one.pk) for one in chosen]
    return client.post(PATIENTS, {"action": "invite", "_selected_action": keys, **more}, follow=True)


def without(right: str) -> Client:
    user = person("few", "support")
    kept = Permission.objects.filter(group__name="support").exclude(codename=right)
    user.groups.clear()
    user.user_permissions.set(kept)
    return signed_in(user)


def test_support_invites_a_patient_and_is_shown_an_address_that_opens(support: Client, patient: Patient) -> None:
    assert 'name="vendor"' in text(invite(support, patient))
    response = invite(support, patient, vendor="oura", confirmed="1")
    (address,) = addresses(response)
    assert address.startswith(f"{settings.PUBLIC_URL}/connect/oura/?invitation=")
    assert "no-store" in response.headers["Cache-Control"]
    assert "Ada Nowak" in text(Client().get(address.removeprefix(settings.PUBLIC_URL)))
    invitation = Invitation.objects.get()
    assert (invitation.created_by, invitation.state) == ("sam", "open")
    assert abs(invitation.expires_at - timezone.now() - timedelta(days=settings.INVITATION_DAYS)) < timedelta(minutes=1)
    assert LogEntry.objects.get().change_message == "invited to connect Oura"


def test_several_patients_are_invited_at_once(support: Client, patient: Patient) -> None:
    other = Patient.objects.create(external_id="user_2", display_name="Bo")
    assert len(addresses(invite(support, patient, other, vendor="whoop", confirmed="1"))) == 2


def test_a_vendor_that_nobody_can_be_invited_to_is_refused(support: Client, patient: Patient) -> None:
    assert "Select a valid choice" in text(invite(support, patient, vendor="healthkit", confirmed="1"))
    assert not Invitation.objects.exists()


def test_an_invitation_is_added_on_its_own_page_too(support: Client, patient: Patient) -> None:
    response = support.post(f"{LIST}add/", {"patient": patient.pk, "vendor": "whoop"})
    (address,) = addresses(response)
    assert "/connect/whoop/" in address
    assert Invitation.objects.get().created_by == "sam"


def test_an_expired_link_gets_a_reconnect_invitation_for_its_own_vendor(support: Client, link: Link) -> None:
    response = support.post(LINKS, {"action": "invite", "_selected_action": [str(link.pk)]}, follow=True)
    (address,) = addresses(response)
    assert "/connect/oura/" in address
    assert Invitation.objects.get().patient == link.patient


def test_the_address_is_shown_once(support: Client, patient: Patient) -> None:
    (address,) = addresses(invite(support, patient, vendor="oura", confirmed="1"))
    token = address.partition("invitation=")[2]
    invitation = Invitation.objects.get()
    for page in (LIST, f"{LIST}{invitation.pk}/change/", f"{PATIENTS}{patient.pk}/change/", "/admin/"):
        assert token not in text(support.get(page))
    assert token not in str(list(LogEntry.objects.values()))


@pytest.mark.parametrize(
    ("state", "change"),
    [
        ("open", {}),
        ("used", {"used_at": timezone.now()}),
        ("expired", {"expires_at": timezone.now() - timedelta(days=1)}),
        ("revoked", {"revoked_at": timezone.now()}),
    ],
)
def test_invitations_are_listed_with_their_state(
    support: Client, patient: Patient, state: str, change: dict[str, Any]
) -> None:
    one = Invitation.issue(patient, "oura", by="sam")
    Invitation.objects.update(**change)
    assert f"state-{state}" in text(support.get(f"{PATIENTS}{patient.pk}/change/"))
    assert f"state-{state}" in text(support.get(f"{LIST}{one.pk}/change/"))
    for wanted in ("open", "used", "expired", "revoked"):
        listed = support.get(f"{LIST}?state={wanted}").context["cl"].result_list
        assert [each.pk for each in listed] == ([one.pk] if wanted == state else [])


def test_a_withdrawn_invitation_stops_working(support: Client, patient: Patient) -> None:
    (address,) = addresses(invite(support, patient, vendor="oura", confirmed="1"))
    one = Invitation.objects.get()
    chosen = {"action": "revoke", "_selected_action": [str(one.pk)]}
    assert "stop working at once" in text(support.post(LIST, chosen))
    assert "1 withdrawn" in text(support.post(LIST, {**chosen, "confirmed": "1"}, follow=True))
    assert Client().get(address.removeprefix(settings.PUBLIC_URL)).status_code == 410
    assert LogEntry.objects.first().change_message == "withdrawn"  # type: ignore[union-attr]


def test_what_was_used_cannot_be_withdrawn(support: Client, patient: Patient) -> None:
    one = Invitation.issue(patient, "oura", by="sam")
    Invitation.objects.update(used_at=timezone.now())
    support.post(LIST, {"action": "revoke", "_selected_action": [str(one.pk)], "confirmed": "1"})
    one.refresh_from_db()
    assert one.state == "used"


def test_inviting_takes_its_right(patient: Patient, link: Link) -> None:
    client = without("add_invitation")
    invite(client, patient, vendor="oura", confirmed="1")
    client.post(LINKS, {"action": "invite", "_selected_action": [str(link.pk)]}, follow=True)
    assert client.post(f"{LIST}add/", {"patient": patient.pk, "vendor": "whoop"}).status_code == 403
    assert 'value="invite"' not in client.get(f"{PATIENTS}{patient.pk}/change/").content.decode()
    assert not Invitation.objects.exists()


def test_withdrawing_takes_its_right(patient: Patient) -> None:
    one = Invitation.issue(patient, "oura", by="sam")
    client = without("change_invitation")
    client.post(LIST, {"action": "revoke", "_selected_action": [str(one.pk)], "confirmed": "1"}, follow=True)
    one.refresh_from_db()
    assert one.state == "open"


def test_nobody_edits_or_deletes_an_invitation(admin: Client, patient: Patient) -> None:
    one = Invitation.issue(patient, "oura", by="sam")
    assert admin.post(f"{LIST}{one.pk}/change/", {"vendor": "whoop"}).status_code == 403
    assert admin.post(f"{LIST}{one.pk}/delete/", {"post": "yes"}).status_code == 403
