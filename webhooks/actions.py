"""What support does to deliveries: try again, or let be. The same functions serve the admin and the command line."""

from typing import Protocol

from django.db import connection
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from webhooks.models import Delivery

RETRYABLE = ("received", "retrying", "stored", "published", "ignored", "unlinked", "dead")
IGNORABLE = ("received", "retrying", "unlinked", "dead")
CHANNEL = "deliveries"


class Person(Protocol):
    def get_username(self) -> str: ...


def not_held(deliveries: QuerySet[Delivery]) -> QuerySet[Delivery]:
    """Those no worker has under lease at this moment: what is being done now needs no help."""
    return deliveries.filter(Q(lease_until__isnull=True) | Q(lease_until__lt=Now()))


def retry(deliveries: QuerySet[Delivery], *, by: Person) -> int:
    """Send deliveries through once more, each under its own id, as one more attempt; returns how many.

    Left alone: what a worker holds, what people did (vendor `auren`), and what cannot do without its body (a HealthKit
    batch, a page of a list) after that is gone.
    """
    chosen = not_held(deliveries).filter(state__in=RETRYABLE).exclude(vendor="auren")
    chosen = chosen.exclude(~Q(vendor__in=["oura", "whoop"], origin="webhook"), body__isnull=True)
    count = chosen.update(
        state="received",
        next_attempt_at=Now(),
        planned_wait=False,
        publish_at=None,
        error=f"tried again by {by.get_username()}",
        lease_token=None,
        lease_until=None,
    )
    _ring()
    return count


def ignore(deliveries: QuerySet[Delivery], *, by: Person, reason: str) -> int:
    """Give up on deliveries that are not done yet; returns how many. A retry brings them back."""
    note = f"ignored by {by.get_username()} on {timezone.now():%Y-%m-%d}: {reason}"
    return deliveries.filter(state__in=IGNORABLE).update(
        state="ignored", error=note, planned_wait=False, lease_token=None, lease_until=None
    )


def requeue_unlinked(vendor: str = "", vendor_user_id: str = "") -> int:
    """Set what waited for a link back to received, where the link is there now; returns how many.

    Called when a link is made or revived, and once a minute for all.
    """
    with connection.cursor() as cursor:
        cursor.execute(REQUEUE, {"vendor": vendor, "user": vendor_user_id})
        count: int = cursor.rowcount
    if count:
        _ring()
    return count


# A phone's deliveries wait for their patient only: the worker makes the link itself.
REQUEUE = """
UPDATE webhooks_delivery d SET state = 'received', next_attempt_at = now(), error = ''
WHERE d.state = 'unlinked' AND (%(vendor)s = '' OR (d.vendor = %(vendor)s AND d.vendor_user_id = %(user)s))
  AND CASE WHEN EXISTS (SELECT FROM devices_link l WHERE l.vendor = d.vendor AND l.vendor_user_id = d.vendor_user_id)
      THEN EXISTS (
        SELECT FROM devices_link l
        WHERE l.vendor = d.vendor AND l.vendor_user_id = d.vendor_user_id
          AND l.status IN ('active', 'stale') AND l.paused_at IS NULL)
      ELSE d.vendor = 'healthkit' AND EXISTS (SELECT FROM devices_patient p WHERE p.external_id = d.vendor_user_id) END
"""


def _ring() -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"NOTIFY {CHANNEL}")
