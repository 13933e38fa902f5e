"""What a new connection sets going: what has waited for it, and its history."""

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from devices.models import Link
from devices.vendors.registry import VENDORS
from webhooks.actions import requeue_unlinked
from webhooks.backfill import file_backfill, file_windows

OVERLAP = timedelta(days=1)  # a ring tells its phone of a night only in the morning
LONGEST_GAP = timedelta(days=365)


def on_link_connected(
    sender: type[Link],  # noqa: ARG001 - Django's signature
    *,
    link: Link,
    **_: Any,
) -> None:
    """File what the vendor should now be asked for. A fault in here leaves the connection's transaction usable."""
    with transaction.atomic():
        requeue_unlinked(link.vendor, link.vendor_user_id)
        file_history(link)


def file_history(link: Link) -> None:
    """Kind by kind, for a patient may now share what was left out before: the gap since the vendor last answered for
    it, else the whole history."""
    answered = {sync.kind: sync.synced_at for sync in link.syncs.all() if sync.synced_at}
    new = {kind for kind, _ in VENDORS[link.vendor].history} - set(answered)
    file_backfill(link, days=settings.BACKFILL_DAYS, kinds=new)
    for kind, quiet_since in answered.items():
        file_gap(link, kind, quiet_since)


def file_gap(link: Link, kind: str, quiet_since: datetime) -> int:
    """Up to this very moment, so that a second reconnection on one day asks anew."""
    now = timezone.now()
    start_at = max(quiet_since - OVERLAP, now - LONGEST_GAP)
    return file_windows(link, start_at, now, origin="backfill", kinds=[kind])
