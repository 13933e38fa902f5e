"""A history that comes in, under a vendor's rate limit, leaves room for what has just happened."""

from django.db.models import QuerySet

from auren.sandbox.server import RunningSandbox
from tests.webhooks.living import announce, connect, running, until
from webhooks.backfill import file_backfill
from webhooks.models import Delivery

PEOPLE = [f"user_{number}" for number in range(1, 21)]
LIMIT = "100/15"  # of which a process away from Redis takes a quarter, and history half of that


def history() -> "QuerySet[Delivery]":
    return Delivery.objects.filter(origin="backfill", pending_asks=0)


def test_live_deliveries_do_not_wait_for_a_backfill_of_twenty_people(vendors: RunningSandbox) -> None:
    filed = sum(file_backfill(connect(vendors, "whoop", who), days=90) for who in PEOPLE)
    nights = {who: str(vendors.documents("whoop", who, "sleep")[-2]["id"]) for who in PEOPLE[:8]}
    postponed = history().filter(state="retrying", error__contains="rate limit")
    with running("process_deliveries", vendors, WHOOP_RATE_LIMIT=LIMIT, POLL_INTERVAL="0.1"):
        until(lambda: postponed.count() > filed / 4)
        live = [announce("whoop", "sleep.updated", night, user=who) for who, night in nights.items()]
        numbers = [delivery.pk for delivery in live]
        until(lambda: not Delivery.objects.filter(pk__in=numbers, state__in=["received", "retrying"]).exists())
        still_waiting = postponed.count()
    assert still_waiting > filed / 4
    stored = Delivery.objects.filter(pk__in=numbers)
    assert {(each.attempts, each.planned_wait) for each in stored} == {(1, False)}
    # The history may have brought the same revision first: then the announcement is no news.
    assert {each.error.partition(":")[0] for each in stored} <= {"", "nothing new"}
