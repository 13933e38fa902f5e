"""Signing in, outside the sandbox and in it: a password, a code of a real app, recovery codes, and how it ends."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from pytest_django import Settings

from auren.audit.models import Entry, Verb
from auren.console.models import AccessToken, RecoveryCode, SecondFactor
from devices.models import Assignment
from tests.console.codes import PASSWORD, code_of, codes_on, give_password, key_on, with_factor
from tests.console.conftest import person, signed_in


@pytest.fixture
def outside(settings: Settings) -> None:
    """The settings of a bridge that is no demo. Tests ask over plain HTTP all the same."""
    settings.SANDBOX = False


def enters(client: Client) -> bool:
    return client.get("/").status_code == 200


def give_code(client: Client, code: str) -> Any:
    return client.post("/sign-in/code/", {"code": code})


def enter(user: User, key: str) -> Client:
    client = Client()
    give_password(client, user.username)
    assert give_code(client, code_of(key)).status_code == 302
    return client


def verbs() -> list[str]:
    return list(Entry.objects.exclude(verb=Verb.VIEW).order_by("id").values_list("verb", flat=True))


def age(user: User, **ago: float) -> None:
    """Let what the audit log knows of somebody's sign-ins be older, as if time had passed."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        Entry.objects.update(at=Entry.objects.earliest("at").at - timedelta(**ago))
        cursor.execute("SET session_replication_role = origin")


def test_in_the_sandbox_a_password_is_enough_until_a_factor_is_set_up(clinician: User) -> None:
    client = Client()
    assert give_password(client, "clara").headers["Location"] == "/"
    page = client.get("/account/second-factor/")
    wrong = client.post("/account/second-factor/", {"password": "wrong", "code": code_of(key_on(page))})
    assert "That is not your password." in wrong.content.decode()
    done = client.post("/account/second-factor/", {"password": PASSWORD, "code": code_of(key_on(page))})
    assert len(codes_on(done)) == 10
    assert enters(client)
    assert give_password(Client(), "clara").headers["Location"] == "/sign-in/code/"


def test_the_first_sign_in_outside_the_sandbox_sets_a_second_factor_up(outside: None, clinician: User) -> None:
    client = Client()
    assert give_password(client, "clara").headers["Location"] == "/sign-in/set-up/"
    assert not enters(client)
    page = client.get("/sign-in/set-up/")
    key = key_on(page)
    assert 'src="data:image/svg+xml' in page.content.decode()
    assert key_on(client.get("/sign-in/set-up/")) == key
    assert client.post("/sign-in/set-up/", {"code": "000000"}).status_code == 400
    done = client.post("/sign-in/set-up/", {"code": code_of(key)})
    assert len(codes_on(done)) == 10
    assert "no-store" in done.headers["Cache-Control"]
    assert enters(client)
    assert not any(code in str(list(RecoveryCode.objects.values())) for code in codes_on(done))
    assert key.replace(" ", "") not in SecondFactor.objects.get().key
    assert verbs() == [Verb.SECOND_FACTOR, Verb.SIGN_IN]


def test_later_sign_ins_ask_for_a_code(outside: None, clinician: User) -> None:
    key, _ = with_factor(clinician)
    client = Client()
    assert give_password(client, "clara").headers["Location"] == "/sign-in/code/"
    assert not enters(client)
    assert "That code is wrong" in give_code(client, code_of(key, steps=40)).content.decode()
    SecondFactor.objects.update(throttling_failure_timestamp=None)
    assert give_code(client, code_of(key)).headers["Location"] == "/"
    assert enters(client)
    assert verbs() == [Verb.CODE_FAILED, Verb.SIGN_IN]


def test_a_code_is_good_once(outside: None, clinician: User) -> None:
    key, _ = with_factor(clinician)
    code = code_of(key)
    first, second = Client(), Client()
    for client in (first, second):
        give_password(client, "clara")
    assert give_code(first, code).status_code == 302
    assert give_code(second, code).status_code == 400
    assert not enters(second)


def test_a_recovery_code_is_good_once_however_it_is_written(outside: None, clinician: User) -> None:
    _, codes = with_factor(clinician)
    first, second = Client(), Client()
    for client in (first, second):
        give_password(client, "clara")
    assert give_code(first, codes[0].upper().replace("-", " ")).status_code == 302
    assert give_code(second, codes[0]).status_code == 400
    assert Verb.RECOVERY_CODE in verbs()
    assert "9 left" in first.get("/account/").content.decode()


def test_wrong_codes_have_to_wait_longer_and_longer(outside: None, clinician: User) -> None:
    key, _ = with_factor(clinician)
    SecondFactor.objects.update(throttling_failure_count=9)
    client = Client()
    give_password(client, "clara")
    give_code(client, "000000")
    answer = give_code(client, code_of(key)).content.decode()
    assert "Too many wrong codes. Wait 9 minutes" in answer
    assert not enters(client)


def test_without_the_password_nobody_comes_to_the_code(outside: None, clinician: User) -> None:
    key, _ = with_factor(clinician)
    for address in ("/sign-in/code/", "/sign-in/set-up/"):
        assert Client().post(address, {"code": code_of(key)}).headers["Location"] == "/sign-in/"


def test_a_password_that_was_changed_meanwhile_leads_no_further(outside: None, clinician: User) -> None:
    key, _ = with_factor(clinician)
    client = Client()
    give_password(client, "clara")
    clinician.set_password("another-long-password")
    clinician.save()
    assert give_code(client, code_of(key)).headers["Location"] == "/sign-in/"


def test_whoever_has_a_factor_cannot_set_another_up_with_the_password_alone(outside: None, clinician: User) -> None:
    client = Client()
    give_password(client, "clara")
    key = key_on(client.get("/sign-in/set-up/"))
    with_factor(clinician)
    assert client.post("/sign-in/set-up/", {"code": code_of(key)}).headers["Location"] == "/sign-in/"
    assert not enters(client)


def test_a_session_without_the_second_factor_is_nobodys(outside: None, clinician: User, assigned: Assignment) -> None:
    client = signed_in(clinician)  # as one of before the factor was required
    assert client.get("/").headers["Location"] == "/sign-in/?next=/"
    client = signed_in(clinician)
    assert client.get("/api/v1/patients").status_code == 401
    client = signed_in(person("ada", "admin"))
    assert client.get("/admin/").status_code == 302
    assert "a code is asked for" in client.get("/sign-in/").content.decode()


def test_a_verified_session_asks_the_api_and_a_token_needs_no_factor(outside: None, clinician: User) -> None:
    key, _ = with_factor(clinician)
    assert enter(clinician, key).get("/api/v1/patients").status_code == 200
    text = AccessToken.issue(clinician, "research", by="a test")[1]
    assert Client().get("/api/v1/patients", headers={"Authorization": f"Bearer {text}"}).status_code == 200


def test_the_session_has_another_key_after_each_step(outside: None, clinician: User) -> None:
    key, _ = with_factor(clinician)
    client = Client()
    give_password(client, "clara")
    before = client.session.session_key
    give_code(client, code_of(key))
    assert client.session.session_key != before
    assert not Session.objects.filter(session_key=before).exists()


@pytest.mark.parametrize(("role", "home"), [("support", "/admin/"), ("admin", "/admin/"), ("clinician", "/")])
def test_everybody_lands_at_home(database: str, role: str, home: str) -> None:
    person("somebody", role)
    for start in ("/sign-in/", "/admin/login/", "/"):
        client = Client()
        page = client.get(start, follow=True)
        following = page.context["next"]
        assert give_password(client, "somebody", next=following).headers["Location"] == home
    assert client.get("/sign-in/").headers["Location"] == home


def test_next_is_kept_through_the_code_and_leads_nowhere_else(outside: None, clinician: User) -> None:
    key, _ = with_factor(clinician)
    wanted = {"/patients/7/": "/patients/7/", "https://elsewhere.example/": "/", "//elsewhere.example": "/"}
    for following, lands in wanted.items():
        SecondFactor.objects.update(last_step=0)
        client = Client()
        give_password(client, "clara", next=following)
        assert give_code(client, code_of(key)).headers["Location"] == lands


def test_the_admins_own_pages_lead_to_the_one_sign_in(database: str, clinic: Client) -> None:
    assert (
        Client().get("/admin/login/?next=/admin/devices/").headers["Location"] == "/sign-in/?next=%2Fadmin%2Fdevices%2F"
    )
    assert Client().get("/admin/", follow=True).status_code == 200
    assert clinic.get("/admin/", follow=True).status_code == 403
    support = signed_in(person("sam", "support"))
    assert support.get("/admin/password_change/").headers["Location"] == "/account/password/"
    assert support.post("/admin/logout/").headers["Location"] == "/sign-in/"
    assert Verb.SIGN_OUT in verbs()


@pytest.mark.parametrize("name", ["clara", "nobody"])
def test_after_five_wrong_passwords_an_account_has_to_wait_whether_or_not_it_exists(clinician: User, name: str) -> None:
    for _ in range(4):
        assert give_password(Client(), name, "wrong").status_code == 200
    fifth = give_password(Client(), name, "wrong")
    assert fifth.status_code == 429
    right = give_password(Client(), name)
    assert (right.status_code, "_auth_user_id" in right.client.session) == (429, False)
    assert "Too many wrong passwords. Wait 15 minutes" in right.content.decode()
    assert 0 < int(right.headers["Retry-After"]) <= 900


def test_the_wait_ends_by_itself_and_another_account_does_not_wait(clinician: User) -> None:
    for _ in range(5):
        give_password(Client(), "clara", "wrong")
    person("other", "clinician")
    assert give_password(Client(), "other").status_code == 302
    age(clinician, minutes=15)
    assert give_password(Client(), "clara").status_code == 302


def test_an_address_has_to_wait_after_too_many_wrong_passwords(clinician: User, settings: Settings) -> None:
    settings.SIGN_IN_ADDRESS_RATE = "3/900"
    for number in range(3):
        give_password(Client(), f"guess-{number}", "wrong")
    assert give_password(Client(), "clara").status_code == 429
    assert give_password(Client(REMOTE_ADDR="10.0.0.7"), "clara").status_code == 302


def test_support_unlocks_an_account(clinician: User, support: Client) -> None:
    for _ in range(5):
        give_password(Client(), "clara", "wrong")
    support.post("/admin/auth/user/", {"action": "unlock", "_selected_action": [str(clinician.pk)]})
    assert give_password(Client(), "clara").status_code == 302
    assert Entry.objects.get(verb=Verb.UNLOCK).username == "sam"


def test_a_name_that_is_nobodys_is_not_kept_as_it_was_typed(clinician: User) -> None:
    give_password(Client(), "my-secret-password", "clara")
    give_password(Client(), "clara", "my-secret-password")
    kept = str(list(Entry.objects.values()))
    assert "my-secret-password" not in kept
    assert list(Entry.objects.order_by("id").values_list("object_id", flat=True)) == ["", str(clinician.pk)]


def test_an_admin_resets_a_second_factor_and_its_sessions_end(outside: None, clinician: User) -> None:
    key, _ = with_factor(clinician)
    client = enter(clinician, key)
    boss = person("ada", "admin")
    admin = enter(boss, with_factor(boss)[0])
    chosen = {"action": "reset_second_factor", "_selected_action": [str(clinician.pk)]}
    admin.post("/admin/auth/user/", chosen)
    assert enters(client)
    admin.post("/admin/auth/user/", {**chosen, "confirmed": "1"})
    assert not enters(client)
    assert give_password(Client(), "clara").headers["Location"] == "/sign-in/set-up/"
    assert Entry.objects.get(verb=Verb.RESET).object_id == str(clinician.pk)


def test_only_a_superuser_resets_a_superusers_factor(admin: Client) -> None:
    root = User.objects.create_superuser("root", password=PASSWORD)
    with_factor(root)
    chosen = {"action": "reset_second_factor", "_selected_action": [str(root.pk)], "confirmed": "1"}
    admin.post("/admin/auth/user/", chosen)
    assert SecondFactor.objects.exists()


def test_another_phone_needs_the_present_one_or_a_recovery_code(outside: None, clinician: User) -> None:
    key, codes = with_factor(clinician)
    client = enter(clinician, key)
    new = key_on(client.get("/account/second-factor/"))
    assert client.post("/account/second-factor/", {"present": "000000", "code": code_of(new)}).status_code == 400
    SecondFactor.objects.update(throttling_failure_timestamp=None)
    done = client.post("/account/second-factor/", {"present": codes[0], "code": code_of(new)})
    assert len(codes_on(done)) == 10
    assert enters(client)
    assert codes[1] not in codes_on(done)


def test_new_recovery_codes_take_the_place_of_the_old(outside: None, clinician: User) -> None:
    key, codes = with_factor(clinician)
    client = enter(clinician, key)
    new = codes_on(client.post("/account/recovery-codes/", {"code": codes[0]}))
    assert len(new) == 10
    other = Client()
    give_password(other, "clara")
    assert give_code(other, codes[1]).status_code == 400
    SecondFactor.objects.update(throttling_failure_timestamp=None)
    assert give_code(other, new[0]).status_code == 302


def test_a_new_password_ends_every_other_session(clinician: User, clinic: Client) -> None:
    here = signed_in(clinician)
    new = "quite-another-password"
    sent = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    assert here.post("/account/password/", sent).headers["Location"] == "/account/?changed"
    assert (enters(here), enters(clinic)) == (True, False)
    assert Entry.objects.get(verb=Verb.PASSWORD).username == "clara"


def set_clock(client: Client, **at: float) -> None:
    session = client.session
    session.update(at)
    session.save()


def test_a_session_ends_without_use_and_after_too_long(clinician: User, clinic: Client) -> None:
    assert enters(clinic)
    used = clinic.session["used_at"]
    set_clock(clinic, used_at=used - 29 * 60)
    assert enters(clinic)
    set_clock(clinic, used_at=used - 31 * 60)
    assert not enters(clinic)
    assert "after 30 minutes without use" in clinic.get("/sign-in/").content.decode()
    clinic = signed_in(clinician)
    set_clock(clinic, began_at=used - 13 * 3600, used_at=used)
    assert not enters(clinic)
    assert "after 12 hours" in clinic.get("/sign-in/").content.decode()


def test_a_page_that_asks_by_itself_keeps_no_session_open(clinic: Client, assigned: Assignment) -> None:
    assert enters(clinic)
    long_ago = clinic.session["used_at"] - 20 * 60
    set_clock(clinic, used_at=long_ago)
    data = f"/patients/{assigned.patient_id}/timeline.json"
    assert clinic.get(data, headers={"X-Auren-Quiet": "1"}).status_code == 200
    assert clinic.session["used_at"] == long_ago
    assert clinic.get(data).status_code == 200
    assert clinic.session["used_at"] > long_ago


@pytest.mark.parametrize("address", ["/sign-in/code/", "/sign-in/set-up/", "/account/", "/account/second-factor/"])
def test_the_pages_of_signing_in_need_nothing_that_the_strict_policy_refuses(clinician: User, address: str) -> None:
    client = signed_in(clinician)
    body = client.get(address, follow=True)
    assert "unsafe" not in body.headers["Content-Security-Policy"]
    assert "style=" not in body.content.decode()
