"""History: what a vendor has of a patient from before the link, asked for as list pages, each a delivery of its own."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import connection

from devices.models import Link
from devices.oauth import VENDORS as CONSENTS
from devices.vendors.registry import VENDORS
from webhooks.processing import Window
from webhooks.storing import FOLLOW, window_row

# What has not been claimed yet knows its account, not its link. Each part goes along an index of its own.
PROGRESS = """
WITH mine AS (SELECT id, vendor, vendor_user_id FROM devices_link WHERE id = ANY(%s)), lists AS (
    SELECT d.state, d.pending_asks, d.sample_count FROM webhooks_delivery d JOIN mine ON d.link_id = mine.id
    WHERE d.origin = 'backfill' AND d.state NOT IN ('received', 'retrying', 'unlinked')
    UNION ALL
    SELECT d.state, d.pending_asks, d.sample_count FROM webhooks_delivery d JOIN mine USING (vendor, vendor_user_id)
    WHERE d.origin = 'backfill' AND d.background AND d.state IN ('received', 'retrying')
    UNION ALL
    SELECT d.state, d.pending_asks, d.sample_count FROM webhooks_delivery d JOIN mine USING (vendor, vendor_user_id)
    WHERE d.origin = 'backfill' AND d.state = 'unlinked'
)
SELECT count(*),
       count(*) FILTER (WHERE state NOT IN ('received', 'retrying', 'unlinked')),
       count(*) FILTER (WHERE state = 'dead'),
       count(*) FILTER (WHERE state = 'retrying' AND pending_asks > 0),
       coalesce(sum(sample_count), 0)
FROM lists
"""


def windows(
    vendor: str, start_at: datetime, end_at: datetime, *, scopes: str = "", kinds: Collection[str] | None = None
) -> Iterator[Window]:
    """The lists that cover `start_at` to `end_at`, the newest first, none longer than the vendor gives at once.

    `scopes` are the granted ones: what they do not cover would be refused. Without `kinds` it is all kinds.
    """
    for kind, days in VENDORS[vendor].history:
        if not CONSENTS[vendor].covers(scopes, kind) or (kinds is not None and kind not in kinds):
            continue
        end = end_at
        while end > start_at:
            start = max(start_at, end - timedelta(days=days))
            yield Window(kind, start, end)
            end = start


def file_windows(
    link: Link, start_at: datetime, end_at: datetime, *, origin: str, kinds: Collection[str] | None = None
) -> int:
    """File deliveries that ask for everything between the two; returns how many are new. Safe to repeat."""
    rows = [
        window_row(link.vendor, link.vendor_user_id, window, origin, key="")
        for window in windows(link.vendor, start_at, end_at, scopes=link.scopes, kinds=kinds)
    ]
    if not rows:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(FOLLOW, [list(column) for column in zip(*rows, strict=True)])
        return int(cursor.rowcount)


def file_backfill(link: Link, *, days: int, kinds: Collection[str] | None = None) -> int:
    """File the last `days` days, up to the end of today (UTC), as deliveries of origin `backfill`."""
    tomorrow = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return file_windows(link, tomorrow - timedelta(days=days), tomorrow, origin="backfill", kinds=kinds)


@dataclass(frozen=True)
class Progress:
    """How far the history of some links is, in lists. `done` includes `dead`; `unscored` ones wait for a score."""

    filed: int = 0
    done: int = 0
    dead: int = 0
    unscored: int = 0
    samples: int = 0

    @property
    def is_over(self) -> bool:
        """Nothing is left that could be fetched now."""
        return self.done + self.unscored >= self.filed

    def __str__(self) -> str:
        if not self.filed:
            return "nothing has been asked for"
        parts = [f"{self.done:,} of {self.filed:,} lists done", f"{self.samples:,} samples"]
        parts += [f"{self.dead:,} dead"] if self.dead else []
        parts += [f"{self.unscored:,} wait for a score"] if self.unscored else []
        return ", ".join(parts)


def progress_of(links: Iterable[Link]) -> Progress:
    """Of all lists that a backfill ever filed for `links`, pages that followed pages included."""
    with connection.cursor() as cursor:
        cursor.execute(PROGRESS, [[link.pk for link in links]])
        return Progress(*cursor.fetchone())
