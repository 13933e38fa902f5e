"""From a delivery to the samples it stored, which nothing finds by the delivery's number alone.

The samples' key begins with patient, metric and time, so a time has to bound the search: the days before the delivery
came, and all the days that stand in what it carried. A phone may send what is years old.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection

from auren.biometrics.metrics import METRICS
from webhooks.models import Delivery

BEFORE = timedelta(days=14)
AFTER = timedelta(days=2)
SECOND = timedelta(seconds=1)
A_DAY = re.compile(rb"\b20\d\d-\d\d-\d\d")

FIND = """
SELECT m.metric, found.first_at, found.last_at, found.number
FROM unnest(%(metrics)s::smallint[]) AS m (metric),
LATERAL (
    SELECT min(s.start_at) AS first_at, max(s.start_at) AS last_at, count(*) AS number FROM biometrics_sample s
    WHERE s.patient_id = %(patient)s AND s.metric = m.metric AND s.start_at >= %(start)s AND s.start_at < %(end)s
      AND s.delivery_id = %(delivery)s
) found
WHERE found.number > 0
ORDER BY m.metric
"""


def produced(delivery: Delivery) -> dict[str, Any]:
    """`rows` of metric, label, first and last time and number, and between which `start` and `end` was looked."""
    start, end = bounds(delivery)
    patient = delivery.patient_id or (delivery.link.patient_id if delivery.link else None)
    if patient is None:
        return {"rows": [], "start": start, "end": end}
    sought: dict[str, Any] = {"patient": patient, "start": start, "end": end, "delivery": delivery.pk}
    with connection.cursor() as cursor:
        cursor.execute(FIND, {**sought, "metrics": [metric.number for metric in METRICS]})
        found = cursor.fetchall()
    labels = {metric.number: metric.label for metric in METRICS}
    rows = [
        {
            "metric": metric,
            "label": labels[metric],
            "first": first,
            "last": last,
            "until": last + SECOND,
            "number": number,
        }
        for metric, first, last, number in found
    ]
    return {"rows": rows, "start": start, "end": end}


def bounds(delivery: Delivery) -> tuple[datetime, datetime]:
    """From before the first day that its body or document names to after the last one."""
    start, end = delivery.received_at - BEFORE, delivery.received_at + AFTER
    named = list(_days(delivery))
    if not named:
        return start, end
    return min(start, min(named) - AFTER), max(end, max(named) + AFTER)


def _days(delivery: Delivery) -> Iterator[datetime]:
    body = b"" if delivery.body is None else bytes(delivery.body)
    document = (delivery.document or "").encode("utf-8", "replace")
    for day in {*A_DAY.findall(body), *A_DAY.findall(document)}:
        with suppress(ValueError):
            yield datetime.fromisoformat(day.decode()).replace(tzinfo=UTC)
