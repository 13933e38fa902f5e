"""What the vendor does not say by itself: polls, reconciliation, and links that have fallen silent.

Both polls and reconciliation file deliveries that ask for a list, so that they are retried, bounded and seen like
everything else. Of what such a list holds only that is news which is not stored yet: see `webhooks.storing`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from devices.oauth import VENDORS as CONSENTS
from devices.vendors.oauth import PREFIX
from devices.vendors.registry import VENDORS
from webhooks.backfill import windows
from webhooks.processing import Window
from webhooks.storing import FOLLOW, window_row

MOST_POLLS = 1000  # in one turn of the schedule
MOST_RECONCILED = 200

# A link that still waits for an earlier list of the kind is not asked to wait for a second one. One that waits for a
# score is no reason: that may take two days.
ASKABLE = """
    l.status IN ('active', 'stale') AND l.paused_at IS NULL
    AND EXISTS (SELECT FROM devices_token t WHERE t.link_id = l.id)
"""
DUE_POLLS = f"""
SELECT l.id, l.vendor, l.vendor_user_id, k.kind, k.days, coalesce(s.polled_at, l.connected_at), now()
FROM devices_link l
JOIN unnest(%s::text[], %s::text[], %s::integer[], %s::integer[], %s::text[])
    AS k (vendor, kind, seconds, days, scope) USING (vendor)
LEFT JOIN devices_sync s ON s.link_id = l.id AND s.kind = k.kind
WHERE {ASKABLE}
  AND (l.scopes = '' OR k.scope = '' OR k.scope = ANY(string_to_array(replace(l.scopes, '{PREFIX}', ''), ' ')))
  AND coalesce(s.polled_at, l.connected_at) <= now() - make_interval(secs => k.seconds)
  AND (l.vendor, l.vendor_user_id, k.kind || '.poll') NOT IN (
    SELECT d.vendor, d.vendor_user_id, d.event_type FROM webhooks_delivery d
    WHERE d.state IN ('received', 'retrying') AND d.background AND d.origin = 'poll'
  )
ORDER BY 6, l.id
LIMIT %s
"""  # noqa: S608 - put together from a constant of this file
POLLED = """
INSERT INTO devices_sync (link_id, kind, polled_at) SELECT * FROM unnest(%s::bigint[], %s::text[], %s::timestamptz[])
ON CONFLICT (link_id, kind) DO UPDATE SET polled_at = excluded.polled_at
"""
DUE_RECONCILIATIONS = f"""
UPDATE devices_link SET reconciled_at = now()
WHERE id IN (
    SELECT l.id FROM devices_link l
    WHERE {ASKABLE} AND l.vendor = ANY(%s)
      AND NOT EXISTS (
        SELECT FROM webhooks_delivery d
        WHERE d.vendor = l.vendor AND d.vendor_user_id = l.vendor_user_id AND d.origin = 'reconcile' AND d.background
          AND d.state IN ('received', 'retrying') AND d.pending_asks = 0
      )
      AND coalesce(l.reconciled_at, l.connected_at) <= now() - make_interval(secs => %s)
    ORDER BY coalesce(l.reconciled_at, l.connected_at), l.id
    LIMIT %s
    FOR UPDATE SKIP LOCKED
)
RETURNING vendor, vendor_user_id, scopes, now()
"""  # noqa: S608 - as above
# A link's habit is the gap that nine in ten of its last month's gaps do not reach. Three of those, and at least two
# days, is quiet: a ring in a drawer, or a fault. Failing is: hours of tries and no answer in between.
GONE_QUIET = """
UPDATE devices_link l SET status = 'stale', status_since = now()
WHERE l.status = 'active' AND l.paused_at IS NULL AND (
    (
        coalesce(l.last_delivery_at, l.connected_at) < now() - interval '2 days'
        AND coalesce(l.last_delivery_at, l.connected_at) < now() - 3 * coalesce((
            SELECT percentile_cont(0.9) WITHIN GROUP (ORDER BY gap) FROM (
                SELECT d.received_at - lag(d.received_at) OVER (ORDER BY d.received_at) AS gap
                FROM webhooks_delivery d
                WHERE d.link_id = l.id AND d.origin = 'webhook'
                  AND d.received_at > coalesce(l.last_delivery_at, l.connected_at) - interval '30 days'
            ) AS gaps
        ), interval '0')
    ) OR (
        coalesce(l.last_synced_at, l.connected_at) < now() - interval '6 hours'
        AND EXISTS (
            SELECT FROM webhooks_delivery d
            WHERE d.link_id = l.id AND d.state IN ('retrying', 'dead') AND d.failures >= 4
              AND d.received_at > now() - interval '7 days'
        )
    )
)
"""


def file_polls() -> int:
    """File a list delivery for every kind that is due of every link that can be asked; returns how many."""
    polled = [
        (name, *how, CONSENTS[name].scope_of(how[0])) for name, vendor in VENDORS.items() for how in vendor.polled
    ]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(DUE_POLLS, [*columns(polled), MOST_POLLS])
        due = cursor.fetchall()
        if not due:
            return 0
        rows = [
            window_row(vendor, user, Window(kind, since(polled_at, now, days), now), "poll", key="")
            for _, vendor, user, kind, days, polled_at, now in due
        ]
        cursor.execute(FOLLOW, columns(rows))
        filed = int(cursor.rowcount)
        cursor.execute(POLLED, columns([(link_id, kind, now) for link_id, _, _, kind, _, _, now in due]))
    return filed


def since(polled_at: datetime, now: datetime, days: int) -> datetime:
    """A poll reaches back over all that may have come late, and over every poll that was missed."""
    return min(polled_at, now - timedelta(days=days))


def file_reconciliations() -> int:
    """File list deliveries over the last days of every link that is due; returns how many."""
    vendors = [name for name, vendor in VENDORS.items() if vendor.history]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(DUE_RECONCILIATIONS, [vendors, settings.RECONCILE_HOURS * 3600, MOST_RECONCILED])
        rows = [
            window_row(vendor, user, window, "reconcile", key="")
            for vendor, user, scopes, now in cursor.fetchall()
            for window in windows(vendor, now - timedelta(days=settings.RECONCILE_DAYS), now, scopes=scopes)
        ]
        if rows:
            cursor.execute(FOLLOW, columns(rows))
        return len(rows)


def mark_stale() -> int:
    """Say of links that are quiet beyond their habit, or failing, that they are; they are tried all the same."""
    with connection.cursor() as cursor:
        cursor.execute(GONE_QUIET)
        return int(cursor.rowcount)


def columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
