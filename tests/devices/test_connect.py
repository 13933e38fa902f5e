import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import msgspec
import pytest
from django.conf import settings
from django.db import connections
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from auren.sandbox.grants import Vendor
from auren.sandbox.server import RunningSandbox
from devices.models import Consent, Invitation, Link, Patient, Token
from devices.tokens import unseal
from devices.vendors.registry import VENDORS
from tests.devices.browsing import Browser, address, consent, invite, local, query
from webhooks.models import Delivery
from webhooks.processing import Window

PORTAL = {
    "OURA_AUTHORIZE_URL": "/oura/oauth/v2/ext/oauth-authorize",
    "OURA_TOKEN_URL": "/oura/oauth/v2/ext/oauth-token",
    "OURA_REVOKE_URL": "/oura/oauth/v2/ext/oauth-revoke",
}
REVOKE: dict[Vendor, str] = {"oura": "/oauth/revoke", "whoop": "/developer/v2/user/access"}
EVERY_VENDOR = pytest.mark.parametrize("vendor", ["oura", "whoop"])


@pytest.fixture
def browser(database: str, sandbox: RunningSandbox) -> Browser:
    return Browser()


@pytest.fixture
def portal(sandbox: RunningSandbox, settings: Settings) -> None:
    """An application of Oura's newer portal."""
    for name, path in PORTAL.items():
        setattr(settings, name, sandbox.url + path)


def token_of(link: Link) -> str:
    return unseal(Token.objects.get(link=link).access_token)


@EVERY_VENDOR
def test_a_patient_connects_a_device(browser: Browser, vendor: Vendor) -> None:
    invitation = invite(vendor)
    page = browser.connect(invitation)
    link = Link.objects.get()
    assert (link.patient, link.vendor, link.vendor_user_id, link.status) == (
        invitation.patient,
        vendor,
        "user_1",
        "active",
    )
    assert Token.objects.get(link=link).issued_by == getattr(settings, f"{vendor.upper()}_TOKEN_URL")
    invitation.refresh_from_db()
    assert (invitation.state, invitation.link) == ("used", link)
    assert page.status_code == 200
    assert "is connected" in browser.text
    assert "What happens next" in browser.text
    assert "You chose not to share" not in browser.text


def test_an_application_of_ouras_newer_portal_connects_too(browser: Browser, portal: None) -> None:
    browser.connect(invite("oura"))
    link = Link.objects.get()
    assert link.scopes.startswith("extapi:")
    assert Token.objects.get(link=link).issued_by == settings.OURA_TOKEN_URL
    assert "You chose not to share" not in browser.text


@EVERY_VENDOR
def test_the_vendor_is_asked_with_its_state_pkce_and_our_address(browser: Browser, vendor: Vendor) -> None:
    asked = query(browser.start(invite(vendor)))
    assert len(asked["state"]) == 8 if vendor == "whoop" else len(asked["state"]) >= 32
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == f"{settings.PUBLIC_URL}/connect/{vendor}/callback"


def test_without_a_public_address_the_requests_own_is_used(browser: Browser, settings: Settings) -> None:
    settings.PUBLIC_URL = ""
    assert query(browser.start(invite()))["redirect_uri"] == "http://testserver/connect/oura/callback"


def test_opening_the_invitation_says_what_will_be_shared_and_starts_nothing(browser: Browser) -> None:
    page = browser.open(address(invite("whoop")))
    assert page.status_code == 200
    assert "Recovery, with resting heart rate" in browser.text
    assert "Person user_1" in browser.text
    assert not Consent.objects.exists()


@EVERY_VENDOR
def test_saying_no_leaves_the_invitation_as_it_was(browser: Browser, vendor: Vendor) -> None:
    invitation = invite(vendor)
    page = browser.connect(invitation, deny="1")
    assert page.status_code == 200
    assert "You did not allow it" in browser.text
    assert address(invitation) in browser.text
    assert not Link.objects.exists()
    browser.connect(invitation)
    assert Link.objects.get().status == "active"


def test_what_was_left_out_is_stored_as_granted_and_said_on_the_last_page(browser: Browser, portal: None) -> None:
    browser.connect(invite("oura"), scope_granted="personal daily workout")
    assert Link.objects.get().scopes == "extapi:personal extapi:daily extapi:workout"
    assert "You chose not to share" in browser.text
    assert "Heart rate during the day" in browser.text
    assert "Blood oxygen during sleep" in browser.text
    assert "Workouts" not in browser.text


@pytest.mark.parametrize(("vendor", "kept"), [("oura", "daily"), ("whoop", "offline read:sleep")])
def test_a_grant_that_does_not_say_whose_it_is_is_forgotten(
    browser: Browser, sandbox: RunningSandbox, vendor: Vendor, kept: str
) -> None:
    page = browser.connect(invite(vendor), scope_granted=kept)
    assert page.status_code == 400
    assert "We cannot tell whose" in browser.text
    assert sandbox.calls(vendor, REVOKE[vendor]) == [], "it may be an account that a link stands on"
    assert not Link.objects.exists()


def test_a_grant_that_cannot_be_renewed_is_forgotten(browser: Browser, sandbox: RunningSandbox) -> None:
    page = browser.connect(invite("whoop"), scope_granted="read:profile read:sleep")
    assert page.status_code == 502
    assert sandbox.calls("whoop", REVOKE["whoop"]) == []
    assert not Link.objects.exists()


@EVERY_VENDOR
def test_another_patients_account_is_refused_without_naming_them(
    browser: Browser, sandbox: RunningSandbox, vendor: Vendor
) -> None:
    browser.connect(invite(vendor, "user_1"))
    Patient.objects.update(external_id="secret-number", display_name="Someone Else")
    theirs = token_of(Link.objects.get())
    invitation = invite(vendor, "user_2")
    page = browser.connect(invitation, "user_1")
    assert page.status_code == 409
    assert "cannot be connected here" in browser.text
    assert "Someone" not in browser.text
    assert "secret-number" not in browser.text
    assert sandbox.calls(vendor, REVOKE[vendor]) == [], "it would stop the webhooks that the other link needs"
    assert token_of(Link.objects.get()) == theirs
    invitation.refresh_from_db()
    assert invitation.state == "open"


@EVERY_VENDOR
def test_connecting_again_keeps_the_link_and_asks_for_the_gap_only(browser: Browser, vendor: Vendor) -> None:
    browser.connect(invite(vendor))
    link = Link.objects.get()
    Delivery.objects.all().delete()
    quiet_since = timezone.now() - timedelta(days=4)
    Link.objects.update(status="expired", status_since=quiet_since, last_synced_at=quiet_since)
    for kind, _ in VENDORS[vendor].history:
        link.syncs.create(kind=kind, synced_at=quiet_since)
    before = token_of(link)
    browser.connect(invite(vendor))
    link.refresh_from_db()
    assert Link.objects.count() == 1
    assert link.status == "active"
    assert link.status_since > quiet_since
    assert token_of(link) != before
    filed = [bytes(body or b"") for body in Delivery.objects.filter(origin="backfill").values_list("body", flat=True)]
    assert filed
    first_day = f"{quiet_since - timedelta(days=1):%Y-%m-%d}".encode()
    assert all(first_day in body for body in filed)


def test_what_is_shared_only_the_second_time_has_its_whole_history_asked_for(
    browser: Browser, settings: Settings
) -> None:
    settings.BACKFILL_DAYS = 20
    browser.connect(invite("whoop"), scope_granted="offline read:profile read:sleep")
    link = Link.objects.get()
    Link.objects.update(last_synced_at=timezone.now())
    link.syncs.create(kind="sleep", synced_at=timezone.now())
    browser.connect(invite("whoop"))
    first_days = {
        kind: min(msgspec.json.decode(bytes(page.body or b""), type=Window).start_at.date() for page in pages)
        for kind in ("recovery", "sleep", "cycle", "workout")
        if (pages := Delivery.objects.filter(event_type=f"{kind}.backfill"))
    }
    assert first_days == dict.fromkeys(first_days, (timezone.now() - timedelta(days=19)).date())
    assert set(first_days) == {"recovery", "sleep", "cycle", "workout"}
    again = Delivery.objects.filter(event_type="sleep.backfill").latest("id")
    assert msgspec.json.decode(bytes(again.body or b""), type=Window).start_at > timezone.now() - timedelta(days=2)


def test_a_first_connection_files_its_history_and_revives_what_waited(browser: Browser, settings: Settings) -> None:
    settings.BACKFILL_DAYS = 20
    waiting = Delivery.objects.create(
        vendor="whoop", dedup_key="1", event_type="sleep.updated", vendor_user_id="user_1", state="unlinked"
    )
    browser.connect(invite("whoop"))
    waiting.refresh_from_db()
    assert waiting.state == "received"
    kinds = set(Delivery.objects.filter(origin="backfill").values_list("event_type", flat=True))
    assert kinds == {f"{kind}.backfill" for kind in ("recovery", "sleep", "cycle", "workout")}


def test_a_connection_is_kept_when_its_history_cannot_be_filed(
    browser: Browser, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.BACKFILL_DAYS = 10**7  # before the year one
    browser.connect(invite("oura"))
    assert Link.objects.get().status == "active"
    assert "is connected" in browser.text
    assert "Error calling" in caplog.text


def came_back_wrong(browser: Browser) -> list[tuple[str, Callable[[], str]]]:
    """Ways back that are none: what each is called, and the address it ends at."""

    def swapped() -> str:
        other = query(Browser().start(invite("oura", "user_2")))["state"]
        back = consent(browser.start(invite("oura")))
        return back.replace(query(back)["state"], other)

    def stranger() -> str:
        return consent(Browser().start(invite("oura")))

    def late() -> str:
        back = consent(browser.start(invite("oura")))
        Consent.objects.update(started_at=timezone.now() - timedelta(minutes=16))
        return back

    def other_vendor() -> str:
        return consent(browser.start(invite("oura"))).replace("/connect/oura/", "/connect/whoop/")

    return [
        ("nothing", lambda: "/connect/oura/callback"),
        ("no state", lambda: "/connect/oura/callback?code=abc"),
        ("another state", swapped),
        ("another browser", stranger),
        ("too late", late),
        ("another vendor", other_vendor),
        ("an error without a state", lambda: "/connect/oura/callback?error=access_denied"),
        ("a NUL", lambda: "/connect/oura/callback?code=%00&state=%00"),
        ("a huge state", lambda: f"/connect/oura/callback?code=a&state={'s' * 100_000}"),
    ]


def test_whoever_comes_back_without_their_own_state_gets_nowhere(browser: Browser, sandbox: RunningSandbox) -> None:
    for name, way in came_back_wrong(browser):
        back = way()
        page = browser.open(back)
        assert (name, page.status_code) == (name, 400)
        assert "which request this answers" in browser.text
    assert sandbox.calls("oura", "/oauth/token") == []
    assert not Link.objects.exists()


def test_the_way_back_works_once(browser: Browser, sandbox: RunningSandbox) -> None:
    back = consent(browser.start(invite("oura")))
    assert browser.open(back).status_code == 200
    assert browser.open(back).status_code == 400
    assert len(sandbox.calls("oura", "/oauth/token")) == 1
    assert Link.objects.get().status == "active"


def test_a_look_ahead_does_not_use_the_way_back_up(browser: Browser) -> None:
    back = local(consent(browser.start(invite("oura"))))
    assert browser.client.head(back).status_code == 405
    assert browser.open(back).status_code == 200


@pytest.mark.parametrize("code", ["", "%00", "x" * 3000, "caf%C3%A9"])
def test_a_code_that_cannot_be_one_is_not_sent_on(browser: Browser, sandbox: RunningSandbox, code: str) -> None:
    state = query(browser.start(invite("oura")))["state"]
    page = browser.open(f"/connect/oura/callback?code={code}&state={state}")
    assert page.status_code == 400
    assert sandbox.calls("oura", "/oauth/token") == []


def test_a_code_the_vendor_does_not_take_says_start_again(browser: Browser) -> None:
    invitation = invite("oura")
    state = query(browser.start(invitation))["state"]
    page = browser.open(f"/connect/oura/callback?code=made-up&state={state}")
    assert page.status_code == 400
    assert "Open the link from your message again" in browser.text
    assert address(invitation) in browser.text


def test_an_invitation_connects_one_account(browser: Browser, sandbox: RunningSandbox) -> None:
    invitation = invite("oura")
    first, second = consent(browser.start(invitation), "user_1"), consent(browser.start(invitation), "user_2")
    browser.open(first)
    page = browser.open(second)
    assert page.status_code == 410
    assert [link.vendor_user_id for link in Link.objects.all()] == ["user_1"]
    assert sandbox.granted("oura") == ["user_1"]


@EVERY_VENDOR
def test_a_used_invitation_shows_what_it_connected_and_starts_nothing(browser: Browser, vendor: Vendor) -> None:
    invitation = invite(vendor)
    browser.connect(invitation)
    assert "is connected" in Browser().open(address(invitation)).content.decode()
    assert "is connected" in Browser().client.post(address(invitation)).content.decode()
    assert not Consent.objects.exists()
    Link.objects.update(status="revoked")
    assert "is not connected any more" in Browser().open(address(invitation)).content.decode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"expires_at": timezone.now() - timedelta(seconds=1)}, "This link has expired"),
        ({"revoked_at": timezone.now()}, "This link has been withdrawn"),
        ({"used_at": timezone.now()}, "This link cannot be used any more"),
    ],
)
def test_an_invitation_that_is_over_says_why(browser: Browser, change: dict[str, Any], words: str) -> None:
    invitation = invite("oura")
    Invitation.objects.update(**change)
    for page in (browser.client.get(address(invitation)), browser.client.post(address(invitation))):
        assert page.status_code == 410
        assert words in page.content.decode()
    assert not Consent.objects.exists()


def test_an_invitation_withdrawn_on_the_way_connects_nothing(browser: Browser, sandbox: RunningSandbox) -> None:
    invitation = invite("oura")
    back = consent(browser.start(invitation))
    Invitation.objects.update(revoked_at=timezone.now())
    assert browser.open(back).status_code == 410
    assert sandbox.calls("oura", "/oauth/token") == []


def test_addresses_that_carry_no_invitation_are_told_nothing(browser: Browser) -> None:
    invitation = invite("oura")
    wrong = (
        "/connect/oura/",
        "/connect/oura/?invitation=",
        f"/connect/oura/?invitation={invitation.token}x",
        f"/connect/oura/?invitation={invitation.pk}",
        f"/connect/oura/?invitation={invitation.pk + 1}.{invitation.token.partition('.')[2]}",
        f"/connect/whoop/?invitation={invitation.token}",
        "/connect/oura/?invitation=%00.%00",
        f"/connect/oura/?invitation={'9' * 100_000}",
    )
    for url in wrong:
        for page in (browser.client.get(url), browser.client.post(url)):
            assert (url[:80], page.status_code) == (url[:80], 404)
            assert "This link does not work" in page.content.decode()
    assert browser.client.get("/connect/healthkit/").status_code == 404


@pytest.mark.parametrize(
    ("path", "action", "status", "words"),
    [
        ("/oauth/token", "lose_reply", 502, "was lost"),
        ("/oauth/token", "status", 502, "was lost"),
        ("/v2/usercollection/personal_info", "status", 503, "cannot be reached"),
    ],
)
def test_a_vendor_in_trouble_leads_to_a_page_that_says_what_to_do(
    browser: Browser, sandbox: RunningSandbox, path: str, action: Any, status: int, words: str
) -> None:
    invitation = invite("oura")
    sandbox.script_fault("oura", path, action, count=2)
    page = browser.connect(invitation)
    assert page.status_code == status
    assert words in browser.text
    assert len(sandbox.calls("oura", "/oauth/token")) == 1
    assert not Link.objects.exists()
    sandbox.clear_faults()
    browser.connect(invitation)
    assert Link.objects.get().status == "active"


def test_one_failed_look_at_the_account_costs_nothing(browser: Browser, sandbox: RunningSandbox) -> None:
    sandbox.script_fault("whoop", "/developer/v2/user/profile", count=1)
    browser.connect(invite("whoop"))
    assert Link.objects.get().status == "active"


def test_a_vendor_that_is_away_leads_to_a_page_that_says_so(browser: Browser, settings: Settings) -> None:
    settings.OURA_TOKEN_URL = "http://127.0.0.1:1/oauth/token"
    page = browser.connect(invite("oura"))
    assert page.status_code == 503
    assert "Oura cannot be reached at the moment" in browser.text


def test_the_older_secret_is_tried_when_the_vendor_does_not_know_the_newer(
    browser: Browser, settings: Settings
) -> None:
    settings.OURA_CLIENT_SECRETS = ("not-yet-known", settings.OURA_CLIENT_SECRETS[0])
    browser.connect(invite("oura"))
    assert Link.objects.get().status == "active"


def test_a_client_the_vendor_does_not_know_is_said_to_be_our_fault(browser: Browser, settings: Settings) -> None:
    settings.OURA_CLIENT_SECRETS = ("wrong", "wrong-too")
    assert browser.connect(invite("oura")).status_code == 503
    settings.OURA_CLIENT_ID = ""
    assert browser.open(address(invite("oura"))).status_code == 503


def test_a_code_goes_to_the_token_address_its_trip_began_with(browser: Browser, settings: Settings) -> None:
    legacy = settings.OURA_TOKEN_URL
    back = consent(browser.start(invite("oura")))
    settings.OURA_TOKEN_URL = settings.OURA_TOKEN_URL.replace("/oauth/token", PORTAL["OURA_TOKEN_URL"][5:])
    browser.open(back)
    assert Token.objects.get().issued_by == legacy


def test_these_pages_are_kept_by_nobody_and_named_to_nobody(browser: Browser) -> None:
    invitation = invite("oura")
    page = browser.open(address(invitation))
    assert page.headers["Referrer-Policy"] == "same-origin"
    back = consent(browser.start(invitation))
    pages = [browser.page, browser.client.get(local(back)), browser.open(address(invitation)), browser.open(back)]
    for each in [page, *pages]:
        assert "no-store" in each.headers["Cache-Control"]
    for each in pages:
        assert each.headers["Referrer-Policy"] == "no-referrer"
        assert "unsafe" not in each.headers["Content-Security-Policy"]


def test_the_browsers_name_is_no_business_of_scripts_and_other_sites(browser: Browser, settings: Settings) -> None:
    settings.SESSION_COOKIE_SECURE = True
    browser.open(address(invite("oura")))
    cookie = browser.client.cookies["auren_connect"]
    assert (cookie["httponly"], cookie["samesite"], cookie["secure"], cookie["path"]) == (
        True,
        "Lax",
        True,
        "/connect/oura/",
    )


def test_another_sites_form_starts_nothing(database: str, sandbox: RunningSandbox) -> None:
    strict = Client(enforce_csrf_checks=True)
    invitation = invite("oura")
    strict.get(address(invitation))
    assert strict.post(address(invitation)).status_code == 403
    assert not Consent.objects.exists()


@EVERY_VENDOR
def test_no_code_token_or_state_is_shown_or_logged(
    browser: Browser, vendor: Vendor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    back = consent(browser.start(invite(vendor)))
    page = browser.open(back)
    browser.open(back)
    told = page.content.decode() + "".join(
        record.getMessage()
        for record in caplog.records
        if record.name.startswith(("devices", "django.request", "webhooks"))
    )
    token = Token.objects.get()
    for secret in (query(back)["code"], query(back)["state"], unseal(token.access_token), unseal(token.refresh_token)):
        assert secret not in told


def together(*visits: Callable[[], Any]) -> list[Any]:
    """All at the same moment, each in a thread of its own."""
    gate = Barrier(len(visits))

    def visit(one: Callable[[], Any]) -> Any:
        gate.wait()
        try:
            return one()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(visits)) as pool:
        return list(pool.map(visit, visits))


def tabs(browser: Browser, *urls: str) -> Iterator[Callable[[], int]]:
    for url in urls:
        tab = Client()
        tab.cookies = browser.client.cookies
        yield lambda tab=tab, url=url: tab.get(local(url), follow=True).status_code  # type: ignore[misc]


@EVERY_VENDOR
def test_two_tabs_of_one_invitation_come_back_at_once(browser: Browser, vendor: Vendor) -> None:
    invitation = invite(vendor)
    backs = [consent(browser.start(invitation)) for _ in range(2)]
    assert together(*tabs(browser, *backs)) == [200, 200]
    link = Link.objects.get()
    assert (link.status, Token.objects.count()) == ("active", 1)
    assert not Consent.objects.exists()


def test_one_way_back_taken_twice_at_once_is_taken_once(browser: Browser, sandbox: RunningSandbox) -> None:
    back = consent(browser.start(invite("oura")))
    assert sorted(together(*tabs(browser, back, back))) == [200, 400]
    assert len(sandbox.calls("oura", "/oauth/token")) == 1
    assert Link.objects.get().status == "active"


def test_both_devices_connect_at_once_in_two_tabs(browser: Browser) -> None:
    backs = [consent(browser.start(invite(vendor))) for vendor in ("oura", "whoop")]
    assert together(*tabs(browser, *backs)) == [200, 200]
    assert sorted(Link.objects.values_list("vendor", "status")) == [("oura", "active"), ("whoop", "active")]


def test_one_account_and_two_patients_at_once_goes_to_one_of_them(browser: Browser) -> None:
    backs = [consent(browser.start(invite("oura", user)), "user_1") for user in ("user_1", "user_2")]
    assert sorted(together(*tabs(browser, *backs))) == [200, 409]
    assert Link.objects.count() == Token.objects.count() == 1
    assert Link.objects.get().patient == Invitation.objects.get(used_at__isnull=False).patient
