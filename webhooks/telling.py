"""What people do that others must hear of is a delivery too: vendor `auren`, origin `operator`, stored by their act."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from django.db import connection
from django.db.models.functions import Now

from auren.biometrics.store import ADVANCE, LOCK, LOCKED
from devices.vendors.webhook import digest
from webhooks import events
from webhooks.models import Delivery
from webhooks.storing import SHARDS

VENDOR = "auren"


def lock_timeline(patient_id: int) -> None:
    """The first act of whoever changes what is stored of a patient: see docs/decisions/0003-timeline-lock.md."""
    with connection.cursor() as cursor:
        cursor.execute(LOCK, [[patient_id]])
        cursor.execute(LOCKED, [[patient_id]])


def advance_timeline(patient_id: int) -> int:
    """The patient's next version, above all that they have had: what is told under it goes out after the rest."""
    with connection.cursor() as cursor:
        cursor.execute(ADVANCE, [[patient_id], [1]])
        [(_, version)] = cursor.fetchall()
    return int(version)


def tell(
    event_type: str,
    messages: Callable[[Mapping[str, Any]], list[events.Message]],
    *,
    patient_id: int,
    external_id: str,
    object_id: str = "",
) -> Delivery:
    """File what was done, under the patient's next version. `messages` are made of what they have in common."""
    delivery = Delivery.objects.create(
        vendor=VENDOR,
        dedup_key=digest(event_type, uuid4().hex),
        event_type=event_type,
        vendor_user_id=external_id,
        object_id=object_id,
        patient_id=patient_id,
        shard=patient_id % SHARDS,
        origin="operator",
        state="stored",
        stored_at=Now(),
        sequence=advance_timeline(patient_id),
    )
    delivery.refresh_from_db(fields=["received_at"])
    delivery.outbox = events.encode(events.Outbox(external_id, messages(_about(delivery))))
    delivery.save(update_fields=["outbox"])
    return delivery


def _about(delivery: Delivery) -> dict[str, Any]:
    return {
        "patient": delivery.vendor_user_id,
        "vendor": delivery.vendor,
        "delivery": delivery.pk,
        "origin": delivery.origin,
        "received_at": delivery.received_at,
    }
