"""What a new connection sets going: what has waited for it, and its history."""

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from devices.models import Link
from webhooks.actions import requeue_unlinked
from webhooks.backfill import file_backfill, file_windows

OVERLAP = timedelta(days=1)  # a ring tells its phone of a night only in the morning
LONGEST_GAP = timedelta(days=365)


def on_link_connected(
    sender: type[Link],  # noqa: ARG001 - Django's signature
    *,
    link: Link,
    reconnected: bool,
    quiet_since: datetime | None,
    **_: Any,
) -> None:
    """File what the vendor should now be asked for. A fault in here leaves the connection's transaction usable."""
    with transaction.atomic():
        requeue_unlinked(link.vendor, link.vendor_user_id)
        if reconnected and quiet_since is not None:
            file_gap(link, quiet_since)
        else:
            file_backfill(link, days=settings.BACKFILL_DAYS)


def file_gap(link: Link, quiet_since: datetime) -> int:
    """Up to this very moment, so that a second reconnection on one day asks anew."""
    now = timezone.now()
    return file_windows(link, max(quiet_since - OVERLAP, now - LONGEST_GAP), now, origin="backfill")
