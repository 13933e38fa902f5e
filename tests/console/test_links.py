from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.conf import settings as configured
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from auren.biometrics.models import Source
from auren.sandbox.grants import Vendor
from auren.sandbox.server import RunningSandbox
from devices.disconnecting import forget
from devices.models import Invitation, Link, Outage, Patient, Subscription, Sync, Token
from devices.tokens import seal, store_grant
from devices.vendors.registry import VENDORS
from tests.console.conftest import person, signed_in
from tests.devices import conftest as vendors
from webhooks.models import Delivery

running_sandbox, sandbox = vendors.running_sandbox, vendors.sandbox
LIST = "/admin/devices/link/"
REVOKE: dict[str, str] = {"oura": "/oauth/revoke", "whoop": "/developer/v2/user/access"}
ALL = "personal daily heartrate spo2 heart_health workout"


def text(response: Any) -> str:
    assert response.status_code == 200
    return " ".join(unescape(response.content.decode()).split())


def page(client: Client, link: Link) -> str:
    return text(client.get(f"{LIST}{link.pk}/change/"))


def answer(client: Client, link: Link) -> str:
    """The first sentence of a link's page."""
    return str(client.get(f"{LIST}{link.pk}/change/").context["findings"][0].text).replace("\xa0", " ")


def act(client: Client, action: str, *links: Link, **more: str) -> str:
    keys = [str(link.pk) for link in links]
    return text(client.post(LIST, {"action": action, "_selected_action": keys, **more}, follow=True))


def connected(sandbox: RunningSandbox, vendor: Vendor, user: str = "user_1", **more: Any) -> Link:
    patient, _ = Patient.objects.get_or_create(external_id=user, defaults={"display_name": user})
    link = Link.objects.create(patient=patient, vendor=vendor, vendor_user_id=user)
    granted = sandbox.grant(vendor, user)
    about = {"expires_in": granted.expires_in, "issued_by": getattr(configured, f"{vendor.upper()}_TOKEN_URL"), **more}
    store_grant(
        link,
        access_token=granted.access_token,
        refresh_token=granted.refresh_token or "",
        scopes=" ".join(granted.scopes),
        **about,
    )
    return link


@pytest.fixture
def live(link: Link) -> Link:
    """A link with everything granted and a token that is good."""
    store_grant(link, access_token="a", refresh_token="r", expires_in=3600, issued_by="https://oura/t", scopes=ALL)
    return link


def without(right: str) -> Client:
    user = person("few", "support")
    kept = Permission.objects.filter(group__name="support").exclude(codename=right)
    user.groups.clear()
    user.user_permissions.set(kept)
    return signed_in(user)


def delivery(of: Link, **fields: Any) -> Delivery:
    return Delivery.objects.create(
        **{
            "vendor": of.vendor,
            "dedup_key": f"key-{Delivery.objects.count()}",
            "event_type": "sleep.updated",
            "vendor_user_id": of.vendor_user_id,
            "link": of,
            **fields,
        }
    )


def three_days_ago() -> Any:
    return timezone.now() - timedelta(days=3)


def test_an_expired_link_says_since_when_why_and_what_to_do(support: Client, live: Link) -> None:
    Link.objects.update(status="expired", status_since=three_days_ago())
    assert answer(support, live) == "Expired for 3 days: Oura refused the refresh token. Send a reconnect invitation."


def test_a_lost_refresh_is_told_apart_from_a_refused_one(support: Client, live: Link) -> None:
    Link.objects.update(status="expired", status_since=three_days_ago())
    Token.objects.update(refresh_token_lease="11111111-1111-1111-1111-111111111111", refresh_until=three_days_ago())
    assert "the answer to a token refresh was lost" in answer(support, live)


def test_an_open_invitation_is_not_asked_for_twice(support: Client, live: Link) -> None:
    Link.objects.update(status="expired")
    Invitation.issue(live.patient, "oura", by="sam")
    assert "An invitation is open until" in answer(support, live)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": "revoked", "status_since": three_days_ago()}, "Disconnected 3 days ago"),
        ({"paused_at": three_days_ago()}, "Paused 3 days ago"),
        ({"status": "stale", "last_delivery_at": three_days_ago()}, "Quiet: its last data came 3 days ago"),
        ({"last_delivery_at": three_days_ago()}, "Nothing is wrong: data came 3 days ago."),
        ({}, "its history is being fetched"),
        ({"connected_at": three_days_ago()}, "no data has come"),
    ],
)
def test_each_standing_has_its_sentence(support: Client, live: Link, change: dict[str, Any], words: str) -> None:
    Link.objects.update(**change)
    assert words in answer(support, live)


def test_a_link_without_a_token_says_so(support: Client, link: Link) -> None:
    assert answer(support, link).startswith("No token is stored")


def test_a_revoked_link_is_not_offered_a_pause(support: Client, live: Link) -> None:
    address = f"/admin/devices/link/{live.pk}/change/"
    assert "Pause" in support.get(address).content.decode()
    Link.objects.update(status="revoked")
    assert "Pause" not in support.get(address).content.decode().replace("Paused", "")


def test_a_paused_link_counts_what_waits_for_it(support: Client, live: Link) -> None:
    Link.objects.update(paused_at=timezone.now())
    delivery(live, link=None, state="unlinked")
    assert "1 deliveries wait" in answer(support, live)


def test_dead_deliveries_are_named_with_their_reason(support: Client, live: Link) -> None:
    dead = delivery(live, state="dead", error="oura answered 403 to /v2/usercollection/sleep")
    assert "1 of the last 1 deliveries are dead" in answer(support, live)
    assert "oura answered 403" in page(support, live)
    assert f"/admin/webhooks/delivery/{dead.pk}/change/" in page(support, live)


def test_deliveries_that_nobody_processes_are_noticed(support: Client, live: Link) -> None:
    delivery(live, link=None, received_at=timezone.now() - timedelta(hours=1))
    assert "wait to be processed" in answer(support, live)


def test_what_the_patient_left_out_is_named_by_what_it_carries(support: Client, live: Link) -> None:
    Link.objects.update(scopes="extapi:personal extapi:daily extapi:workout extapi:heart_health extapi:spo2")
    assert answer(support, live).startswith("The patient does not share: heart rate during the day.")
    assert page(support, live).count("state-missing") == 1


def test_an_open_breaker_is_said_while_it_is_seen(support: Client, live: Link) -> None:
    outage = Outage.objects.create(
        vendor="oura", worker="11111111-1111-1111-1111-111111111111", opened_at=timezone.now(), seen_at=timezone.now()
    )
    assert answer(support, live).startswith("Oura has been failing since")
    Outage.objects.filter(pk=outage.pk).update(seen_at=timezone.now() - timedelta(minutes=2))
    assert "failing" not in answer(support, live)


def test_missing_subscriptions_are_said(support: Client, live: Link) -> None:
    Subscription.objects.create(event_type="create", data_type="sleep")
    assert "1 webhook subscriptions are missing" in answer(support, live)
    assert "missing: sleep create" in page(support, live)


def test_the_page_shows_token_and_syncs_but_no_secret(support: Client, live: Link) -> None:
    Sync.objects.create(link=live, kind="sleep", synced_at=three_days_ago())
    Token.objects.update(access_token=seal("in-the-clear"), refresh_token="sealed-text")
    shown = page(support, live)
    assert "https://oura/t" in shown
    assert "good until" in shown
    assert "3 days ago" in shown.replace("\xa0", " ")
    for secret in ("in-the-clear", "sealed-text", Token.objects.get().access_token):
        assert secret not in shown


def test_a_polled_kind_says_when_it_is_asked_for_next(support: Client, live: Link) -> None:
    body = page(support, live)
    assert "<td>sleep</td><td>not yet</td><td>not polled</td><td>when a webhook announces it</td>" in body
    polled_at = live.connected_at + timedelta(hours=1)
    Sync.objects.create(link=live, kind="heartrate", polled_at=polled_at)
    seconds = next(seconds for kind, seconds, _ in VENDORS["oura"].polled if kind == "heartrate")
    due_at = polled_at + timedelta(seconds=seconds)
    assert f"every {seconds // 60} minutes, next at {due_at:%Y-%m-%d %H:%M:%S} UTC" in page(support, live)
    Link.objects.update(status="expired")
    assert "not while the link is expired" in page(support, live)


def test_a_phones_page_has_nothing_about_consent(support: Client, patient: Patient) -> None:
    phone = Link.objects.create(patient=patient, vendor="healthkit", vendor_user_id="user_1")
    shown = page(support, phone)
    assert "circuit breaker" not in shown
    assert 'value="sync_now"' not in shown
    assert 'value="pause"' in shown


def test_what_a_link_does_not_have_is_said_in_words(support: Client, link: Link) -> None:
    shown = page(support, link)
    for words in ("none has sent a sample yet", "none yet", "not yet", "no token is stored", "not recorded"):
        assert words in shown
    assert '<div class="readonly">-</div>' not in shown
    assert "<td>-</td>" not in shown


def test_a_link_leads_to_its_devices(support: Client, ring: Source) -> None:
    assert f'<a href="/admin/biometrics/source/{ring.pk}/change/">Oura ring</a>' in page(support, Link.objects.get())


def test_the_page_takes_a_fixed_number_of_queries(
    support: Client, live: Link, django_assert_max_num_queries: Any
) -> None:
    for _ in range(30):
        delivery(live)
    page(support, live)  # begins the session
    with django_assert_max_num_queries(28):
        assert page(support, live).count("sleep.updated") == 20


def test_syncing_now_asks_for_recent_days_as_often_as_wanted(support: Client, live: Link) -> None:
    kinds = len(VENDORS["oura"].history)
    assert f"asked for the last {configured.RECENT_DAYS} days in" in act(support, "sync_now", live)
    first = Delivery.objects.filter(origin="poll").count()
    assert first >= kinds
    act(support, "sync_now", live)
    assert Delivery.objects.filter(origin="poll").count() == 2 * first
    assert LogEntry.objects.count() == 2


def test_history_is_fetched_for_as_many_days_as_asked(support: Client, live: Link) -> None:
    assert 'name="days"' in act(support, "backfill", live)
    for wrong in ("0", "366", "many", ""):
        assert "errorlist" in act(support, "backfill", live, confirmed="1", days=wrong)
    assert not Delivery.objects.exists()
    assert "asked for the last 30 days" in act(support, "backfill", live, confirmed="1", days="30")
    assert Delivery.objects.filter(origin="backfill").exists()
    assert "asked for today already" in act(support, "backfill", live, confirmed="1", days="30")


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"status": "expired"}, "it is expired"), ({"paused_at": timezone.now()}, "it is paused: resume it first")],
)
def test_what_cannot_be_asked_is_not_asked(support: Client, live: Link, change: dict[str, Any], reason: str) -> None:
    Link.objects.update(**change)
    assert reason in act(support, "sync_now", live)
    assert reason in act(support, "backfill", live, confirmed="1", days="3")
    assert not Delivery.objects.exists()
    assert not LogEntry.objects.exists()


def test_pausing_and_resuming_sets_what_waited_going(support: Client, live: Link) -> None:
    assert "paused" in act(support, "pause", live)
    live.refresh_from_db()
    assert live.paused_at is not None
    waiting = delivery(live, link=None, state="unlinked")
    assert "1 waiting deliveries go on" in act(support, "resume", live)
    live.refresh_from_db()
    waiting.refresh_from_db()
    assert live.paused_at is None
    assert waiting.state == "received"
    assert [entry.change_message for entry in LogEntry.objects.order_by("pk")] == [
        "paused",
        "resumed, 1 waiting deliveries go on",
    ]


@pytest.mark.parametrize("vendor", ["oura", "whoop"])
def test_disconnecting_ends_the_grant_at_the_vendor_and_here(
    support: Client,
    sandbox: RunningSandbox,
    vendor: Vendor,
) -> None:
    link = connected(sandbox, vendor)
    assert "Only the patient can connect again" in act(support, "disconnect", link)
    assert sandbox.granted(vendor) == ["user_1"]
    assert "the vendor has ended its grant" in act(support, "disconnect", link, confirmed="1")
    link.refresh_from_db()
    assert (link.status, Token.objects.count()) == ("revoked", 0)
    assert sandbox.granted(vendor) == []
    assert len(sandbox.calls(vendor, REVOKE[vendor])) == 1
    assert LogEntry.objects.get().change_message.startswith("disconnected")


def test_a_token_that_has_ended_is_refreshed_to_disconnect(
    support: Client,
    sandbox: RunningSandbox,
) -> None:
    link = connected(sandbox, "whoop", expires_in=0)
    assert "the vendor has ended its grant" in act(support, "disconnect", link, confirmed="1")
    assert sandbox.granted("whoop") == []


def test_a_grant_that_was_gone_before_is_fine(support: Client, sandbox: RunningSandbox) -> None:
    link = connected(sandbox, "oura")
    sandbox.revoke("oura", "user_1")
    assert "had ended its grant before" in act(support, "disconnect", link, confirmed="1")
    assert not Token.objects.exists()


@pytest.mark.parametrize("vendor", ["oura", "whoop"])
def test_a_vendor_that_is_away_is_left_to_be_asked_and_the_link_ends_all_the_same(
    support: Client,
    sandbox: RunningSandbox,
    vendor: Vendor,
) -> None:
    link = connected(sandbox, vendor)
    sandbox.script_fault(vendor, REVOKE[vendor], count=2)
    said = act(support, "disconnect", link, confirmed="1")
    assert "STILL TO DO: ask the patient to end the sharing in the" in said
    link.refresh_from_db()
    assert (link.status, Token.objects.count()) == ("revoked", 0)
    assert "STILL TO DO" in LogEntry.objects.get().change_message


def test_an_ended_token_that_cannot_be_refreshed_proves_nothing(
    support: Client,
    sandbox: RunningSandbox,
) -> None:
    link = connected(sandbox, "whoop")
    Token.objects.update(access_token=seal("long-gone"), expires_at=three_days_ago())
    Link.objects.update(status="expired")
    assert "STILL TO DO" in act(support, "disconnect", link, confirmed="1")


def test_a_grant_is_revoked_where_it_came_from(
    support: Client,
    sandbox: RunningSandbox,
    settings: Settings,
) -> None:
    link = connected(sandbox, "oura")
    settings.OURA_TOKEN_URL = f"{sandbox.url}/oura/oauth/v2/ext/oauth-token"
    settings.OURA_REVOKE_URL = f"{sandbox.url}/oura/oauth/v2/ext/oauth-revoke"
    act(support, "disconnect", link, confirmed="1")
    assert [call.path for call in sandbox.calls("oura", "/oauth", method="POST")] == ["/oauth/revoke"]


def test_a_token_that_no_key_opens_is_deleted_all_the_same(
    support: Client,
    sandbox: RunningSandbox,
) -> None:
    link = connected(sandbox, "oura")
    Token.objects.update(access_token="damaged")
    assert "STILL TO DO" in act(support, "disconnect", link, confirmed="1")
    assert not Token.objects.exists()


def test_a_patient_who_connects_again_meanwhile_stays_connected(live: Link) -> None:
    stale = Link.objects.get()
    store_grant(live, access_token="new", refresh_token="new", expires_in=60, issued_by="https://oura/t")
    assert not forget(stale)
    assert Token.objects.exists()
    assert Link.objects.get().status == "active"


def test_few_links_are_disconnected_at_once(support: Client, live: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auren.console.admin.links.MOST_DISCONNECTED", 0)
    assert "links at once" in act(support, "disconnect", live, confirmed="1")
    assert Token.objects.exists()


@pytest.mark.parametrize(
    ("action", "right"),
    [
        ("sync_now", "sync_link"),
        ("backfill", "sync_link"),
        ("pause", "pause_link"),
        ("resume", "pause_link"),
        ("disconnect", "disconnect_link"),
    ],
)
def test_an_action_without_its_right_is_neither_offered_nor_accepted(live: Link, action: str, right: str) -> None:
    client = without(right)
    before = Link.objects.values().get()
    assert f'value="{action}"' not in page(client, live)
    act(client, action, live, confirmed="1", days="3")
    assert Link.objects.values().get() == before
    assert Token.objects.exists()
    assert not Delivery.objects.exists()
    assert not LogEntry.objects.exists()
