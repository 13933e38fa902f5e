"""The landing page: what it says needs attention, and that its numbers are those of the lists behind them."""

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from auren import admin as shared
from auren.biometrics.models import Conflict, Source
from auren.console import overview
from devices.models import Link, Outage, Patient
from tests.biometrics.stored import dispute
from tests.console.conftest import NOW, person, signed_in
from tests.console.test_deliveries import delivery
from webhooks import filters
from webhooks.models import Lease

LONG_AGO = timedelta(minutes=20)


def page(client: Client) -> str:
    cache.clear()
    return " ".join(unescape(client.get("/admin/").content.decode()).split())


def numbers(client: Client) -> dict[str, str]:
    """What each number of the page leads to."""
    found = re.findall(r'<li class="\w+"><a href="([^"]+)"><b>([^<]+)</b>', page(client))
    return {address: value for address, value in found if re.fullmatch(r"[\d,]+\+?", value)}


def alive() -> None:
    for name in ("schedule", "shard-1"):
        holder = "00000000-0000-0000-0000-000000000001"
        Lease.objects.create(name=name, holder=holder, until=timezone.now() + timedelta(minutes=1))


def test_all_is_well_is_said_plainly(support: Client) -> None:
    alive()
    delivery(state="published")
    body = page(support)
    assert "All is well: nothing needs you now." in body
    for fine in ("Nothing is stuck", "Nothing waits.", "no circuit breaker is open", "No conflict is open."):
        assert fine in body


def test_each_number_leads_to_a_list_of_just_as_many(
    support: Client, link: Link, patient: Patient, ring: Source
) -> None:
    old = timezone.now() - LONG_AGO
    for error in ("Refused", "Refused", ""):
        delivery(link, state="dead", error_class=error)
    delivery(vendor="whoop", state="retrying", received_at=old, error_class="ReadTimeout")
    delivery(vendor="whoop", state="retrying", received_at=old, planned_wait=True, error_class="ReadTimeout")
    delivery(state="stored", outbox=b"x", stored_at=old)
    delivery(state="unlinked", received_at=timezone.now() - timedelta(hours=2))
    delivery()
    Link.objects.update(status="stale")
    dispute("heart_rate", NOW, NOW, {ring: 48}, ring, patient_id=patient.pk, state="open")
    dispute("steps", NOW, NOW, {ring: 48}, ring, patient_id=patient.pk, state="settled")
    shown = numbers(support)
    assert len(shown) == 11
    for address, value in shown.items():
        assert support.get(address).context["cl"].result_count == int(value), address
    assert "2" in shown.values()


def test_the_dead_are_told_by_vendor_and_reason(support: Client) -> None:
    delivery(state="dead", error_class="Refused")
    assert "Oura, dead: Refused" in page(support)
    assert "Something needs attention" in page(support)


def test_what_keeps_vendors_and_kafka_from_working_is_said(support: Client) -> None:
    now = timezone.now()
    Outage.objects.create(vendor="whoop", worker="00000000-0000-0000-0000-000000000001", opened_at=now - LONG_AGO)
    delivery(state="stored", outbox=b"x", stored_at=now, publish_at=now + timedelta(minutes=1))
    body = page(support)
    assert "WHOOP</b> <span>is not asked since" in body
    assert 'vendor__exact=whoop&state__exact=retrying"><b>WHOOP' in body
    assert "Kafka did not take a message" in body
    assert "no publisher is running" in body
    alive()
    assert "no publisher is running" not in page(support)


def test_the_oldest_that_waits_is_one_click_away(support: Client) -> None:
    delivery(received_at=timezone.now() - timedelta(minutes=5))
    oldest = delivery(received_at=timezone.now() - timedelta(hours=3))
    delivery(received_at=timezone.now() - timedelta(days=3), planned_wait=True, state="retrying")
    assert f'href="/admin/webhooks/delivery/{oldest.pk}/change/"><b>3\xa0hours ago'.replace("\xa0", " ") in page(
        support
    )


def test_only_what_the_role_may_see_is_shown(database: str) -> None:
    user = person("few", "support")
    user.groups.clear()
    assert "nothing here that your role may see" in page(signed_in(user))
    user.user_permissions.set(Permission.objects.filter(codename="view_conflict"))
    body = page(signed_in(user))
    assert "No conflict is open." in body
    assert "Stuck deliveries" not in body
    assert "Links</h2>" not in body


def test_a_second_look_within_seconds_asks_the_database_for_none_of_it(support: Client, redis: str) -> None:
    page(support)
    with CaptureQueriesContext(connection) as asked:
        support.get("/admin/")
    assert not any("webhooks_delivery" in query["sql"] for query in asked.captured_queries)


def test_numbers_stop_at_what_lists_count(support: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (shared, filters, overview):
        monkeypatch.setattr(module, "MOST_COUNTED", 3)
    for _ in range(5):
        delivery(state="dead", error_class="Refused")
    assert "3+" in numbers(support).values()


def test_an_empty_list_says_what_would_be_there(support: Client, admin: Client) -> None:
    lists: dict[str, Any] = {
        "webhooks/delivery": "Each webhook, poll and list",
        "devices/erasure": "when, by whom and why",
    }
    for address, words in lists.items():
        assert words in support.get(f"/admin/{address}/").content.decode()
    assert "Nothing matches" in support.get("/admin/webhooks/delivery/?q=nobody").content.decode()
    assert "Add patient" in admin.get("/admin/devices/patient/").content.decode()


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ({"state": "open"}, "conflict_by_state"),
        ({"state": "overridden", "rule": "person"}, "conflict_by_state"),
        ({"rule": "patient_order"}, "conflict_by_order"),
        ({"metric": 33}, "conflict_by_metric"),
        ({"start_at__gte": NOW}, "conflict_by_time"),
    ],
)
def test_conflicts_are_counted_and_listed_along_an_index(database: str, query: dict[str, Any], index: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off")
        rows = Conflict.objects.filter(**query).order_by("-start_at", "-id")[:50]
        assert f"using {index} on" in rows.explain()
