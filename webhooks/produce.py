"""From a delivery to the samples it stored, which nothing finds by the delivery's number alone.

The samples' key begins with patient, metric and time, so a time has to bound the search: what was asked for where a
list was, else the days before the delivery came.
"""

import json
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.utils.dateparse import parse_datetime

from auren.biometrics.metrics import METRICS
from webhooks.models import Delivery

BEFORE = timedelta(days=14)
AFTER = timedelta(days=2)
SECOND = timedelta(seconds=1)

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
    start, end = delivery.received_at - BEFORE, delivery.received_at + AFTER
    if delivery.origin == "webhook" or delivery.body is None:
        return start, end
    with suppress(ValueError, TypeError, AttributeError):
        asked = json.loads(bytes(delivery.body))
        first, last = parse_datetime(asked["start_at"]), parse_datetime(asked["end_at"])
        if first and last:
            return min(first, start) - AFTER, max(last, end) + AFTER
    return start, end
