import re
from io import StringIO
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.test import Client

from auren.console.models import AccessToken
from tests.console.test_keys import KEY, text

LIST = "/admin/console/accesstoken/"


def issue(client: Client, user: User, days: int = 30) -> Any:
    return client.post(f"{LIST}add/", {"user": user.pk, "name": "research export", "days": days})


def act(client: Client, token: AccessToken, **more: str) -> Any:
    return client.post(LIST, {"action": "revoke", "_selected_action": [str(token.pk)], **more}, follow=True)


def status(secret: str) -> int:
    return Client().get("/api/v1/patients", headers={"Authorization": f"Bearer {secret}"}).status_code


def test_a_token_made_in_the_admin_asks_the_api_as_its_user(admin: Client, clinician: User) -> None:
    response = issue(admin, clinician)
    (secret,) = KEY.findall(response.content.decode())
    assert status(secret) == 200
    token = AccessToken.objects.get()
    assert (token.user, token.name, token.created_by) == (clinician, "research export", "ada")
    assert (token.expires_at - token.created_at).days in {29, 30}


def test_a_token_is_shown_once_and_kept_nowhere_in_clear(admin: Client, clinician: User) -> None:
    response = issue(admin, clinician)
    (secret,) = KEY.findall(response.content.decode())
    assert "no-store" in response.headers["Cache-Control"]
    token = AccessToken.objects.get()
    for address in (LIST, f"{LIST}{token.pk}/change/", f"{LIST}{token.pk}/history/", "/admin/"):
        assert secret not in text(admin.get(address))
    kept = [*LogEntry.objects.values(), *AccessToken.objects.values()]
    assert secret not in str(kept)
    assert secret not in str([session.get_decoded() for session in Session.objects.all()])
    assert LogEntry.objects.get().user.username == "ada"


def test_a_revoked_token_is_refused_at_once_and_stays_as_a_record(admin: Client, clinician: User) -> None:
    (secret,) = KEY.findall(issue(admin, clinician).content.decode())
    token = AccessToken.objects.get()
    act(admin, token)
    assert status(secret) == 200
    act(admin, token, confirmed="1")
    assert status(secret) == 401
    assert "revoked" in text(admin.get(f"{LIST}{token.pk}/change/"))


def test_an_admin_makes_no_token_that_acts_as_a_superuser(admin: Client) -> None:
    root = User.objects.create_superuser("root")
    assert "Select a valid choice" in text(issue(admin, root))
    assert not AccessToken.objects.exists()


def test_a_superuser_does(database: str) -> None:
    root = User.objects.create_superuser("root")
    client = Client()
    client.force_login(root)
    assert KEY.search(issue(client, root).content.decode())


@pytest.mark.parametrize("days", [0, 367])
def test_a_token_lasts_a_year_at_most(admin: Client, clinician: User, days: int) -> None:
    issue(admin, clinician, days)
    assert not AccessToken.objects.exists()


def test_support_neither_sees_nor_makes_tokens(support: Client, clinician: User) -> None:
    token, _ = AccessToken.issue(clinician, "test", by="a test")
    assert issue(support, clinician).status_code == 403
    assert support.get(LIST).status_code == 403
    act(support, token, confirmed="1")
    assert AccessToken.objects.get().revoked_at is None


def test_the_command_prints_the_token_and_nothing_else(clinician: User) -> None:
    out = StringIO()
    call_command("issue_token", "clara", name="nightly", stdout=out)
    assert re.fullmatch(r"auren_[\w-]{43}\n", out.getvalue())
    assert status(out.getvalue().strip()) == 200


def test_the_command_refuses_whom_it_does_not_know(clinician: User) -> None:
    with pytest.raises(CommandError, match="no active user"):
        call_command("issue_token", "claire", name="nightly")
    User.objects.update(is_active=False)
    with pytest.raises(CommandError, match="no active user"):
        call_command("issue_token", "clara", name="nightly")
