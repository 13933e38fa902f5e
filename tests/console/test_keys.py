import asyncio
import re
from html import unescape
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.test import Client, override_settings

from devices.models import ApiKey, Patient
from tests.webhooks.entry import opened

LIST = "/admin/devices/apikey/"
KEY = re.compile(r'<input id="secret-\d+" value="([^"]+)"')


def text(response: Any) -> str:
    assert response.status_code == 200
    return " ".join(unescape(response.content.decode()).split())


def issue(client: Client, *patients: Patient, owner: str = "Phone of Ada") -> tuple[ApiKey, str, Any]:
    response = client.post(f"{LIST}add/", {"owner": owner, "patients": [one.pk for one in patients]})
    (secret,) = KEY.findall(response.content.decode())
    return ApiKey.objects.latest("pk"), secret, response


def act(client: Client, action: str, key: ApiKey, **more: str) -> Any:
    return client.post(LIST, {"action": action, "_selected_action": [str(key.pk)], **more}, follow=True)


def upload(secret: str, user: str = "user_1") -> int:
    """The status that a phone's batch is answered with."""
    body = {"user_id": user, "samples": []}

    async def post() -> int:
        async with opened() as web:
            reply = await web.post("/webhooks/healthkit", json=body, headers={"Authorization": f"Bearer {secret}"})
            return reply.status_code

    with override_settings(ALLOWED_HOSTS=["127.0.0.1"]):  # a test client's own host is none the sandbox starts with
        return asyncio.run(post())


def test_the_form_says_what_a_key_is_for(admin: Client) -> None:
    body = admin.get("/admin/devices/apikey/add/").content.decode()
    assert "Whose phone or which app will show it" in body
    assert "For whom it may post" in body


def test_a_new_key_posts_for_its_patients_and_for_nobody_else(admin: Client, patient: Patient) -> None:
    Patient.objects.create(external_id="user_2", display_name="Bo")
    _, secret, _ = issue(admin, patient)
    assert (upload(secret), upload(secret, "user_2")) == (202, 403)


def test_a_key_is_shown_once_and_kept_nowhere_in_clear(admin: Client, patient: Patient) -> None:
    key, secret, response = issue(admin, patient)
    assert "no-store" in response.headers["Cache-Control"]
    for address in (LIST, f"{LIST}{key.pk}/change/", f"{LIST}{key.pk}/history/", "/admin/"):
        assert secret not in text(admin.get(address))
    kept = [*LogEntry.objects.values(), *ApiKey.objects.values()]
    assert secret not in str(kept)
    assert secret not in str([session.get_decoded() for session in Session.objects.all()])
    assert secret not in str(admin.cookies)


def test_what_is_shown_once_has_one_way_to_be_made(admin: Client) -> None:
    for page in (f"{LIST}add/", "/admin/devices/invitation/add/"):
        shown = admin.get(page).content.decode()
        assert 'name="_save"' in shown
        assert 'name="_addanother"' not in shown
        assert 'name="_continue"' not in shown


def test_issuing_is_logged(admin: Client, patient: Patient) -> None:
    key, _, _ = issue(admin, patient)
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.user.username) == (str(key.pk), "ada")


def test_a_keys_patients_can_be_changed_and_its_owner_cannot(admin: Client, patient: Patient) -> None:
    other = Patient.objects.create(external_id="user_2", display_name="Bo")
    key, secret, _ = issue(admin, patient)
    admin.post(f"{LIST}{key.pk}/change/", {"owner": "Somebody", "patients": [other.pk]})
    key.refresh_from_db()
    assert key.owner == "Phone of Ada"
    assert list(key.patients.all()) == [other]
    assert (upload(secret), upload(secret, "user_2")) == (403, 202)


def test_a_replaced_key_goes_on_until_it_is_revoked(admin: Client, patient: Patient) -> None:
    old, old_secret, _ = issue(admin, patient)
    assert "successor" in text(act(admin, "rotate", old))
    response = act(admin, "rotate", old, confirmed="1")
    (secret,) = KEY.findall(response.content.decode())
    new = ApiKey.objects.latest("pk")
    assert (new.owner, list(new.patients.all())) == (old.owner, [patient])
    assert secret != old_secret
    assert (upload(old_secret), upload(secret)) == (202, 202)


def test_a_key_may_be_replaced_and_revoked_in_one_step(admin: Client, patient: Patient) -> None:
    old, old_secret, _ = issue(admin, patient)
    response = act(admin, "rotate", old, confirmed="1", revoke="on")
    (secret,) = KEY.findall(response.content.decode())
    assert (upload(old_secret), upload(secret)) == (401, 202)
    assert "replaced, and revoked" in text(admin.get(f"{LIST}{old.pk}/history/"))


def test_a_revoked_key_is_neither_changed_nor_replaced(admin: Client, patient: Patient) -> None:
    key, secret, _ = issue(admin, patient)
    act(admin, "revoke", key, confirmed="1")
    assert upload(secret) == 401
    assert admin.post(f"{LIST}{key.pk}/change/", {"patients": []}).status_code == 403
    assert "None of these can be replaced" in text(act(admin, "rotate", key, confirmed="1"))
    assert ApiKey.objects.count() == 1


def test_the_sandboxs_key_is_left_as_it_is(admin: Client) -> None:
    key, _ = ApiKey.issue("sandbox")
    ApiKey.objects.update(every_sandbox_user=True)
    assert "every sandbox user" in text(admin.get(f"{LIST}{key.pk}/change/"))
    assert admin.post(f"{LIST}{key.pk}/change/", {"patients": []}).status_code == 403
    act(admin, "rotate", key, confirmed="1")
    assert ApiKey.objects.count() == 1


def test_support_sees_keys_but_issues_changes_and_replaces_none(support: Client, patient: Patient) -> None:
    key, _ = ApiKey.issue("Phone of Ada", patient)
    assert "Ada Nowak" in text(support.get(f"{LIST}{key.pk}/change/"))
    assert support.get(f"{LIST}add/").status_code == 403
    assert support.post(f"{LIST}{key.pk}/change/", {"patients": []}).status_code == 403
    act(support, "rotate", key, confirmed="1")
    assert ApiKey.objects.count() == 1
    assert key.patients.count() == 1


def test_a_patients_page_lists_the_keys_that_post_for_them(support: Client, patient: Patient) -> None:
    assert "no phone may post" in text(support.get(f"/admin/devices/patient/{patient.pk}/change/"))
    key, _ = ApiKey.issue("Phone of Ada", patient)
    assert f"{LIST}{key.pk}/change/" in text(support.get(f"/admin/devices/patient/{patient.pk}/change/"))
