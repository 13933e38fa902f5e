from collections.abc import Callable
from io import StringIO

import httpx
import pytest
from django.core.management import CommandError, call_command
from django.db.models import Count, F
from pytest_django import Settings

from auren.sandbox.grants import Vendor
from auren.sandbox.physiology import zone_of
from auren.sandbox.server import RunningSandbox
from devices.models import ApiKey, Link, Patient, Token
from devices.tokens import store_grant, unseal

Seed = Callable[..., str]


@pytest.fixture
def seed(database: str, sandbox: RunningSandbox) -> Seed:
    """Seeds so many people, and returns what it said."""

    def seeded(people: int, **options: int) -> str:
        said = StringIO()
        call_command("seed_load", people=people, stdout=said, **options)
        return said.getvalue()

    return seeded


def read_as(sandbox: RunningSandbox, vendor: Vendor, access_token: str) -> httpx.Response:
    path = {"oura": "/oura/v2/usercollection/personal_info", "whoop": "/whoop/v2/user/profile/basic"}[vendor]
    return httpx.get(sandbox.url + path, headers={"Authorization": f"Bearer {access_token}"}, trust_env=False)


def test_everybody_is_linked_at_both_vendors_and_by_phone_under_their_own_name(seed: Seed) -> None:
    seed(30)
    assert set(Patient.objects.values_list("external_id", flat=True)) == {f"user_{number}" for number in range(1, 31)}
    assert Patient.objects.get(external_id="user_7").timezone == zone_of("user_7")
    links = Link.objects.filter(status="active", vendor_user_id=F("patient__external_id"))
    by_vendor = dict(links.values_list("vendor").annotate(Count("pk")))
    assert by_vendor == {"oura": 30, "whoop": 30, "healthkit": 30}


@pytest.mark.parametrize("vendor", ["oura", "whoop"])
def test_the_sandbox_serves_each_token_that_was_stored_and_it_is_stored_sealed(
    seed: Seed, sandbox: RunningSandbox, vendor: Vendor
) -> None:
    seed(5)
    link = Link.objects.get(vendor=vendor, vendor_user_id="user_4")
    token = Token.objects.get(link=link)
    assert token.issued_by == sandbox.settings[f"{vendor.upper()}_TOKEN_URL"]
    reply = read_as(sandbox, vendor, unseal(token.access_token))
    assert (reply.status_code, "user_4" in reply.text) == (200, True)
    assert unseal(token.refresh_token) not in token.refresh_token
    assert link.scopes != ""


def test_a_second_run_changes_nothing_and_says_so(seed: Seed) -> None:
    seed(12)
    before = list(Token.objects.order_by("link_id").values())
    said = seed(12)
    assert list(Token.objects.order_by("link_id").values()) == before
    assert "0 made, 12 were there already" in said
    assert "0 links made, 36 were there already" in said
    assert "oura: 0 newly connected, 12 were already." in said


def test_a_larger_run_adds_who_is_missing(seed: Seed) -> None:
    seed(3)
    said = seed(8)
    assert "5 made, 3 were there already" in said
    assert "whoop: 5 newly connected, 3 were already." in said
    assert Token.objects.count() == 16


def test_whom_the_sandbox_has_forgotten_or_never_granted_gets_tokens_that_work(
    seed: Seed, sandbox: RunningSandbox
) -> None:
    seed(3)
    sandbox.revoke("oura", "user_2")
    whoop = Link.objects.get(vendor="whoop", vendor_user_id="user_3")
    store_grant(whoop, access_token="a", refresh_token="r", expires_in=60, issued_by="https://elsewhere.example/token")
    Link.objects.filter(vendor="whoop", vendor_user_id="user_1").update(status="expired")
    said = seed(3)
    assert "oura: 1 newly connected, 2 were already." in said
    assert "whoop: 2 newly connected, 1 were already." in said
    for token in Token.objects.select_related("link"):
        vendor: Vendor = "oura" if token.link.vendor == "oura" else "whoop"
        assert read_as(sandbox, vendor, unseal(token.access_token)).status_code == 200
    assert set(Link.objects.values_list("status", flat=True)) == {"active"}


def test_ends_of_tokens_are_spread_when_asked_for(seed: Seed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.management.commands.seed_load.BATCH", 2)
    seed(10, token_seconds=500)
    lives = Token.objects.filter(link__vendor="oura").annotate(life=F("expires_at") - F("updated_at"))
    assert sorted({round(token.life.total_seconds()) for token in lives}) == [100, 200, 300, 400, 500]


def test_a_link_that_a_patient_of_another_name_holds_stays_theirs(seed: Seed) -> None:
    other = Patient.objects.create(external_id="somebody", display_name="Somebody")
    Link.objects.create(patient=other, vendor="oura", vendor_user_id="user_1")
    seed(2)
    assert Link.objects.get(vendor="oura", vendor_user_id="user_1").patient == other


def test_the_phones_key_is_there(seed: Seed) -> None:
    seed(1)
    assert ApiKey.objects.filter(every_sandbox_user=True).exists()


def test_it_refuses_outside_the_sandbox(database: str, settings: Settings) -> None:
    settings.SANDBOX = False
    with pytest.raises(CommandError, match="AUREN_SANDBOX=1 only"):
        call_command("seed_load", people=1)
    assert not Patient.objects.exists()


def test_it_refuses_vendors_that_are_not_one_sandbox(database: str, settings: Settings) -> None:
    settings.OURA_API_URL = "https://api.ouraring.com"
    with pytest.raises(CommandError, match="not those of one sandbox"):
        call_command("seed_load", people=1)


def test_it_says_where_it_looked_for_a_sandbox_that_does_not_answer(database: str, settings: Settings) -> None:
    settings.OURA_API_URL, settings.WHOOP_API_URL = "http://127.0.0.1:9/oura", "http://127.0.0.1:9/whoop/developer"
    with pytest.raises(CommandError, match=r"The sandbox at http://127\.0\.0\.1:9 does not answer"):
        call_command("seed_load", people=1)
    assert not Patient.objects.exists()


@pytest.mark.parametrize("wrong", [{"people": 0}, {"token_seconds": -1}])
def test_it_refuses_numbers_that_make_no_sense(seed: Seed, wrong: dict[str, int]) -> None:
    with pytest.raises(CommandError, match="at least 1"):
        seed(**({"people": 1} | wrong))
