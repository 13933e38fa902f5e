"""Support's landing page: what needs attention now. Every number leads to the list of just as many.

Each question goes along an index and stops at 10,000 rows, and the answers are good for a few seconds for everybody.
What one's role may not see is left out.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.core.cache import cache
from django.db import connection
from django.db.models import Min
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from auren.admin import MOST_COUNTED
from auren.ages import ago
from auren.biometrics.models import Conflict
from auren.console.diagnosis import OUTAGE_SEEN
from devices.models import Link, Outage
from webhooks.filters import NO_ERROR, REMEMBER, Number, stuck
from webhooks.models import Delivery, Lease

HOUR = timedelta(hours=1)
LATEST = 1_000  # whose way from receipt to stored is measured


@dataclass(frozen=True)
class Fact:
    """One line: how many of what, and the list of them. `level` is `good`, `warn`, `bad` or `plain`."""

    level: str
    value: str
    text: str
    address: str = ""


@dataclass(frozen=True)
class Section:
    """Facts on one subject, for who has the right to it. `fine` is what is said when nothing is the matter."""

    title: str
    right: str
    fine: str
    facts: list[Fact] = field(default_factory=list)

    @property
    def troubled(self) -> bool:
        return any(fact.level in {"warn", "bad"} for fact in self.facts)


def add_overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's DASHBOARD_CALLBACK."""
    sections = [section for section in overview() if request.user.has_perm(section.right)]
    return {**context, "sections": sections, "well": not any(section.troubled for section in sections)}


def overview() -> list[Section]:
    known: list[Section] | None = cache.get("overview")
    if known is None:
        known = [make() for make in SECTIONS]
        cache.set("overview", known, REMEMBER)
    return known


def stuck_deliveries() -> Section:
    facts = [_stuck(*row) for row in _groups()]
    return Section(
        "Stuck deliveries", "webhooks.view_delivery", "Nothing is stuck: no delivery is dead or late.", facts
    )


def _groups() -> list[tuple[str, str, str, int]]:
    """Vendor, state and error class with their counts, the most first; beyond 10,000 rows they are not exact."""
    rows = Delivery.objects.filter(stuck()).order_by()[:MOST_COUNTED]
    found: dict[tuple[str, str, str], int] = {}
    for group in rows.values_list("vendor", "state", "error_class"):
        found[group] = found.get(group, 0) + 1
    return sorted(((*group, count) for group, count in found.items()), key=lambda row: -row[-1])


def _stuck(vendor: str, state: str, error: str, count: int) -> Fact:
    name = dict(Delivery.VENDORS).get(vendor, vendor)
    query = {"stuck": "yes", "vendor__exact": vendor, "state__exact": state, "error": error or NO_ERROR}
    why = error or "no error: it has not been tried, or only waits"
    level = "bad" if state == "dead" else "warn"
    more = "+" if count == MOST_COUNTED else ""
    return Fact(level, f"{count:,}{more}", f"{name}, {state}: {why}", at("webhooks_delivery", **query))


def last_hour() -> Section:
    since = timezone.now() - HOUR
    received = Number.of(Delivery.objects.filter(received_at__gte=since))
    facts = [Fact("plain", str(received), f"received, {_rate(received, since)}", at("webhooks_delivery", age="hour"))]
    median, slowest = _latency(since)
    if median is not None:
        words = f"from receipt to stored in the median, {slowest:,.1f} s in the 99th percentile of the latest webhooks"
        measured = at("webhooks_delivery", age="hour", origin__exact="webhook")
        facts.append(Fact("plain", f"{median:,.1f} s", words, measured))
    return Section("The last hour", "webhooks.view_delivery", "", facts)


def _rate(received: Number, since: datetime) -> str:
    """Beyond what is counted, from the time in which the latest ones came."""
    if received.more:
        latest = Delivery.objects.order_by("-received_at").values_list("received_at", flat=True)[:MOST_COUNTED]
        since = latest.aggregate(first=Min("received_at"))["first"] or since
    seconds = max((timezone.now() - since).total_seconds(), 1)
    return f"{received.count / seconds:,.1f} a second"


LATENCY = """
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds), percentile_cont(0.99) WITHIN GROUP (ORDER BY seconds)
FROM (
    SELECT extract(epoch FROM stored_at - received_at) AS seconds FROM webhooks_delivery
    WHERE received_at >= %s AND origin = 'webhook' AND stored_at IS NOT NULL
    ORDER BY received_at DESC LIMIT %s
) latest
"""


def _latency(since: datetime) -> tuple[float | None, float]:
    with connection.cursor() as cursor:
        cursor.execute(LATENCY, [since, LATEST])
        median, slowest = cursor.fetchone()
    return median, slowest or 0.0


def waiting() -> Section:
    facts = []
    due = Delivery.objects.filter(state__in=["received", "retrying"], planned_wait=False)
    oldest = due.order_by("received_at").values_list("pk", "received_at").first()
    if oldest:
        number, at_ = oldest
        level = "warn" if timezone.now() - at_ > timedelta(minutes=15) else "plain"
        address = reverse("admin:webhooks_delivery_change", args=[number])
        facts.append(Fact(level, ago(at_), "the oldest that waits to be processed came", address))
    for state, words in (("received", "wait for their first try"), ("retrying", "wait for another try")):
        number_ = Number.of(Delivery.objects.filter(state=state))
        if number_:
            facts.append(Fact("plain", str(number_), words, at("webhooks_delivery", state__exact=state)))
    unlinked = Number.of(Delivery.objects.filter(state="unlinked"))
    if unlinked:
        words = "wait for a link: nobody is known by that account, or the link is not usable"
        facts.append(Fact("warn", str(unlinked), words, at("webhooks_delivery", state__exact="unlinked")))
    return Section("Waiting", "webhooks.view_delivery", "Nothing waits.", facts)


def kafka() -> Section:
    facts = []
    unsent = Number.of(Delivery.objects.filter(state="stored", outbox__isnull=False))
    refused = Delivery.objects.filter(outbox__isnull=False, publish_at__gt=timezone.now()).exists()
    if refused:
        words = "Kafka did not take a message: it is tried again every few seconds"
        facts.append(Fact("bad", "refused", words, at("webhooks_delivery", state__exact="stored")))
    if unsent:
        level = "warn" if refused else "plain"
        facts.append(
            Fact(level, str(unsent), "stored, and not yet published", at("webhooks_delivery", state__exact="stored"))
        )
    alive = Lease.objects.filter(until__gt=timezone.now(), holder__isnull=False)
    if not alive.filter(name__startswith="shard-").exists():
        facts.append(Fact("bad", "away", "no publisher is running: start `manage.py publish_deliveries`"))
    if not alive.filter(name="schedule").exists():
        facts.append(Fact("bad", "away", "no scheduler is running: start `manage.py run_schedule`"))
    return Section("Kafka and processes", "webhooks.view_delivery", "Everything that was stored is published.", facts)


def vendors() -> Section:
    standing = Outage.objects.filter(closed_at=None, seen_at__gt=timezone.now() - OUTAGE_SEEN)
    facts = [
        Fact(
            "bad",
            str(dict(Link.VENDORS)[vendor]),
            f"is not asked since {ago(since)}: it kept failing",
            at("webhooks_delivery", vendor__exact=vendor, state__exact="retrying"),
        )
        for vendor, since in standing.values_list("vendor").annotate(since=Min("opened_at")).order_by("vendor")
    ]
    return Section("Vendors", "devices.view_link", "Every vendor is asked: no circuit breaker is open.", facts)


def links() -> Section:
    facts = []
    for status, level, words in (
        ("expired", "bad", "expired: the patient has to reconnect"),
        ("stale", "warn", "stale: quiet or failing, still tried"),
    ):
        number = Number.of(Link.objects.filter(status=status))
        if number:
            facts.append(Fact(level, str(number), words, at("devices_link", status__exact=status)))
    return Section("Links", "devices.view_link", "Every link is active, or was ended on purpose.", facts)


def conflicts() -> Section:
    number = Number.of(Conflict.objects.filter(state="open"))
    address = at("biometrics_conflict", state__exact="open")
    facts = [Fact("warn", str(number), "open: only recency decides, a person should", address)] if number else []
    return Section("Conflicts", "biometrics.view_conflict", "No conflict is open.", facts)


def at(page: str, **query: str) -> str:
    return f"{reverse(f'admin:{page}_changelist')}?{urlencode(query)}"


SECTIONS: list[Callable[[], Section]] = [stuck_deliveries, waiting, last_hour, kafka, vendors, links, conflicts]
