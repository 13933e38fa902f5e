"""Every action of the admin: listed here, bound to a right, and confirmed first where it takes something away."""

from typing import Any

import pytest
from django.contrib import admin as django_admin
from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Model
from django.test import Client, RequestFactory
from unfold.enums import ActionVariant

from auren.biometrics.models import Conflict, Source
from auren.console.models import AccessToken
from devices.models import ApiKey, Invitation, Link, Patient
from tests.biometrics.stored import decide, dispute
from tests.console.conftest import NOW, signed_in
from tests.console.test_deliveries import delivery
from webhooks.models import Replay

# Those with `!` take something away.
LISTED = {
    "biometrics.conflict": {"override", "undo!"},
    "auth.group": {"delete_selected!"},
    "auth.user": {"delete_selected!", "unlock", "reset_second_factor!"},
    "console.accesstoken": {"revoke!"},
    "devices.apikey": {"rotate", "revoke!"},
    "devices.assignment": {"delete_selected!"},
    "devices.invitation": {"revoke!"},
    "devices.link": {"sync_now", "backfill", "invite", "pause", "resume", "disconnect!"},
    "devices.patient": {"invite"},
    "devices.subscription": {"check_now"},
    "webhooks.delivery": {"retry", "retry_all_like", "link_to_patient", "ignore!"},
    "webhooks.replay": {"stop!"},
}
OURS = [(page, name.removesuffix("!")) for page, names in LISTED.items() for name in names if "delete" not in name]
GRAVE = [
    (page, name[:-1]) for page, names in LISTED.items() for name in names if name.endswith("!") and "delete" not in name
]


def pages() -> dict[str, Any]:
    return {model._meta.label_lower: page for model, page in django_admin.site._registry.items()}


def request_of(user: Any) -> Any:
    request = RequestFactory().get("/admin/")
    request.user = user
    return request


def offered(page: Any, request: Any) -> set[str]:
    return {
        name + ("!" if name == "delete_selected" or getattr(act, "variant", None) is ActionVariant.DANGER else "")
        for act, name, _ in page.get_actions(request).values()
    }


def test_every_action_is_listed(database: str) -> None:
    everything = request_of(User.objects.create_superuser("root", password="a-long-enough-password"))
    found = {label: offered(page, everything) for label, page in pages().items()}
    assert {label: actions for label, actions in found.items() if actions} == LISTED


def test_no_action_is_offered_without_a_right(database: str) -> None:
    nobody = request_of(AnonymousUser())
    assert {label: offered(page, nobody) for label, page in pages().items() if offered(page, nobody)} == {}


@pytest.mark.parametrize(("label", "name"), OURS)
def test_every_action_names_its_right(label: str, name: str) -> None:
    act, _, description = pages()[label].get_action(name)
    assert act.allowed_permissions
    assert description


def one_of(label: str, link: Link) -> Model:
    made: dict[str, Any] = {
        "biometrics.conflict": lambda: decided(link),
        "webhooks.delivery": lambda: delivery(state="dead"),
        "webhooks.replay": lambda: Replay.objects.create(like={}, until_id=1, user_id=1, requested_by="sam"),
        "devices.link": lambda: link,
        "devices.invitation": lambda: Invitation.issue(link.patient, "oura", by="sam"),
        "console.accesstoken": lambda: AccessToken.issue(User.objects.create_user("reader"), "research", by="ada")[0],
        "auth.user": lambda: User.objects.create_user("forgetful"),
        "devices.apikey": lambda: ApiKey.issue("Phone", link.patient)[0],
    }
    model: Model = made[label]()
    return model


def decided(link: Link) -> Conflict:
    """A conflict that rests on a person's decision."""
    ring = Source.objects.create(link_id=link.pk, name="Oura ring", kind="ring")
    one = dispute("heart_rate", NOW, NOW, {ring: 48}, ring, patient_id=link.patient_id)
    one.preference = decide(ring, patient_id=link.patient_id)
    one.save()
    return one


def row(one: Model) -> dict[str, Any]:
    found: dict[str, Any] = type(one)._default_manager.filter(pk=one.pk).values().get()
    return found


@pytest.mark.parametrize(("label", "name"), GRAVE)
def test_what_takes_something_away_is_confirmed_first(admin: Client, link: Link, label: str, name: str) -> None:
    one = one_of(label, link)
    before = row(one)
    page = admin.post(f"/admin/{label.replace('.', '/')}/", {"action": name, "_selected_action": [str(one.pk)]})
    body = page.content.decode()
    assert 'class="button danger" name="confirmed"' in body
    assert "No, go back" in body
    assert row(one) == before


def test_deleting_is_confirmed_by_djangos_own_page(admin: Client, link: Link, clinician: User) -> None:
    root = signed_in(User.objects.create_superuser("root", password="a-long-enough-password"))
    chosen = {"action": "delete_selected", "_selected_action": [str(clinician.pk)]}
    assert "Are you sure" in root.post("/admin/auth/user/", chosen).content.decode()
    assert User.objects.filter(pk=clinician.pk).exists()


def test_erasing_asks_for_the_external_id(admin: Client, patient: Patient) -> None:
    page = admin.get(f"/admin/devices/erasure/patient/{patient.pk}/").content.decode()
    assert 'class="button danger" value="Erase for good"' in page
