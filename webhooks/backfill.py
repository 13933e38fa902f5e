"""History: what a vendor has of a patient from before the link, asked for as list pages, each a delivery of its own."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from django.db import connection

from devices.models import Link
from devices.vendors.registry import VENDORS
from webhooks.processing import Window
from webhooks.storing import FOLLOW, window_row


def windows(vendor: str, start_at: datetime, end_at: datetime) -> Iterator[Window]:
    """The lists that cover `start_at` to `end_at`, the newest first, none longer than the vendor gives at once."""
    for kind, days in VENDORS[vendor].history:
        end = end_at
        while end > start_at:
            start = max(start_at, end - timedelta(days=days))
            yield Window(kind, start, end)
            end = start


def file_windows(link: Link, start_at: datetime, end_at: datetime, *, origin: str) -> int:
    """File deliveries that ask for everything between the two; returns how many are new. Safe to repeat."""
    rows = [
        window_row(link.vendor, link.vendor_user_id, window, origin, key="")
        for window in windows(link.vendor, start_at, end_at)
    ]
    if not rows:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(FOLLOW, [list(column) for column in zip(*rows, strict=True)])
        return int(cursor.rowcount)


def file_backfill(link: Link, *, days: int) -> int:
    """File the last `days` days, up to the end of today (UTC), as deliveries of origin `backfill`."""
    tomorrow = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return file_windows(link, tomorrow - timedelta(days=days), tomorrow, origin="backfill")
