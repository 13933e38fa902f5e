"""Erasing a patient: everything that is known of one goes in one transaction, which tells Kafka and leaves a record.

docs/erasure.md says what goes, what stays, and for how long something may linger elsewhere.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
import stamina
from django.apps import apps
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import Count, Model
from django.db.models.functions import Now
from django.utils import timezone
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from auren.audit.models import Verb
from auren.audit.trail import Actor, record
from devices import oauth
from devices.disconnecting import Ending, end_grant
from devices.models import ApiKey, Assignment, Erasure, Invitation, Link, Patient, Token
from devices.remembered import key_of
from webhooks import events
from webhooks.models import Delivery
from webhooks.telling import lock_timeline, tell

logger = logging.getLogger(__name__)

EVENT_TYPE = "patient.erased"
TRIES = 5
REDIS_SECONDS = 0.5
# Longer than any webhook takes from its arrival, which is its `received_at`, to its commit.
JUST_NOW = timedelta(minutes=5)

# No index leads from an account to its deliveries: this reads the whole table, so it is done before anything is locked.
# What tells of an earlier erasure holds nothing but the name, and may still have to go out.
OF_PATIENT = """
(link_id = ANY(%(links)s) OR patient_id = %(patient)s
 OR (vendor, vendor_user_id) IN (SELECT * FROM unnest(%(vendors)s::text[], %(users)s::text[])))
AND event_type <> 'patient.erased'
"""
FIND = f"SELECT id FROM webhooks_delivery WHERE {OF_PATIENT}"  # noqa: S608 - a constant of this file
# Locked in the order in which publishers and workers take them.
LOCK_DELIVERIES = f"""
SELECT id FROM webhooks_delivery WHERE id IN (
    SELECT unnest(%(known)s::bigint[])
    UNION SELECT id FROM webhooks_delivery WHERE link_id = ANY(%(links)s)
    UNION SELECT id FROM webhooks_delivery WHERE received_at >= %(since)s AND {OF_PATIENT}
)
ORDER BY id FOR UPDATE
"""  # noqa: S608 - likewise
# In this order. `patient_id` alone is a prefix of the samples' key, in each partition.
REMOVE = {
    "biometrics_sample": "DELETE FROM biometrics_sample WHERE patient_id = %(patient)s",
    "biometrics_conflict": "DELETE FROM biometrics_conflict WHERE patient_id = %(patient)s",
    "biometrics_preference": "DELETE FROM biometrics_preference WHERE patient_id = %(patient)s",
    "biometrics_record": "DELETE FROM biometrics_record WHERE patient_id = %(patient)s",
    "biometrics_source": "DELETE FROM biometrics_source WHERE link_id = ANY(%(links)s)",
    "webhooks_attempt": "DELETE FROM webhooks_attempt WHERE delivery_id = ANY(%(deliveries)s)",
    "webhooks_delivery": "DELETE FROM webhooks_delivery WHERE id = ANY(%(deliveries)s)",
}
# A worker names sources before it looks whether a delivery is still its own.
SWEEP = """
DELETE FROM biometrics_source s WHERE NOT EXISTS (SELECT FROM devices_link l WHERE l.id = s.link_id)
"""


class NothingToErase(Exception):
    """There is no such patient, or not any more. The text is for whoever asked."""


class Traces(NamedTuple):
    """Where a patient is found: by their own number and name, by their links, by the accounts of those."""

    patient_id: int
    external_id: str
    link_ids: list[int]
    accounts: list[tuple[str, str]]

    @classmethod
    def of(cls, patient: Patient) -> "Traces":
        links = list(Link.objects.filter(patient=patient).order_by("pk"))
        accounts = [(link.vendor, link.vendor_user_id) for link in links]
        accounts += [("healthkit", patient.external_id), ("auren", patient.external_id)]
        return cls(patient.pk, patient.external_id, [link.pk for link in links], accounts)

    @property
    def parameters(self) -> dict[str, Any]:
        vendors, users = ([account[place] for account in self.accounts] for place in (0, 1))
        return {"patient": self.patient_id, "links": self.link_ids, "vendors": vendors, "users": users}


def find(external_id: str) -> Patient:
    """The patient. Raises `NothingToErase`, which says whether there was one."""
    patient = Patient.objects.filter(external_id=external_id).first()
    if patient is not None:
        return patient
    before = Erasure.objects.filter(external_id=external_id).order_by("-pk").first()
    if before is None:
        raise NothingToErase(f"No patient has the external id {external_id!r}: look it up in the admin.")
    raise NothingToErase(
        f"{external_id!r} was erased on {before.erased_at:%Y-%m-%d at %H:%M} UTC by {before.requested_by}: "
        "there is nothing left to erase."
    )


def erase(patient: Patient, *, by: str, reason: str, who: Any = None) -> Erasure:
    """Remove all that is known of `patient` for good; returns the record of it. Raises `NothingToErase`.

    Vendors are asked to end their grants first. One that is away stops nothing: the tokens go all the same. `who` is a
    request, for the audit log; without one it was a command of `by`.
    """
    find(patient.external_id)
    started_at = timezone.now()
    grants = revoke_grants(patient)
    known = _ids(FIND, Traces.of(patient).parameters)
    for attempt in stamina.retry_context(on=is_collision, attempts=TRIES):
        with attempt, transaction.atomic():
            erasure, traces = _erase(patient, known, started_at - JUST_NOW, {**grants}, by=by, reason=reason)
            record(who or Actor.at_a_shell(by), Verb.ERASE, erasure, patients=[traces.patient_id])
    forget_documents(traces.link_ids)
    sweep_sources()
    return erasure


def is_collision(error: Exception) -> bool:
    """Somebody added to what was being removed, or held it in another order: PostgreSQL undid ours, whole."""
    deadlock = isinstance(error.__cause__, psycopg.errors.DeadlockDetected)
    return isinstance(error, IntegrityError) or (isinstance(error, OperationalError) and deadlock)


def _erase(
    patient: Patient, known: Sequence[int], since: datetime, removed: dict[str, int], *, by: str, reason: str
) -> tuple[Erasure, Traces]:
    traces = _lock(patient)
    parameters = {**traces.parameters, "known": list(known), "since": since}
    deliveries = _ids(LOCK_DELIVERIES, parameters)
    keys = list(ApiKey.objects.filter(patients=patient).values_list("pk", flat=True))
    blank_log(patient, deliveries)
    removed |= _remove({**parameters, "deliveries": deliveries})
    removed |= _remove_person(patient)
    removed["keys_revoked"] = revoke_idle(keys)
    delivery = file_event(traces)
    removed = {name: count for name, count in removed.items() if count}
    record = Erasure(external_id=traces.external_id, requested_by=by, reason=reason, delivery_id=delivery.pk)
    record.removed = removed
    record.save()
    record.refresh_from_db(fields=["erased_at"])
    return record, traces


def _lock(patient: Patient) -> Traces:
    """The timeline first, as whoever stores does; then the patient, so that nothing new can point to them."""
    lock_timeline(patient.pk)
    if not Patient.objects.select_for_update().filter(pk=patient.pk).exists():
        raise NothingToErase(f"{patient.external_id!r} is being, or has been, erased by somebody else.")
    list(Token.objects.select_for_update(of=("self",)).filter(link__patient=patient).order_by("pk"))
    list(Link.objects.select_for_update().filter(patient=patient).order_by("pk"))
    return Traces.of(patient)


def _remove(parameters: Mapping[str, Any]) -> dict[str, int]:
    removed = {}
    with connection.cursor() as cursor:
        for table, statement in REMOVE.items():
            cursor.execute(statement, parameters)
            removed[table] = cursor.rowcount
    return removed


def _remove_person(patient: Patient) -> dict[str, int]:
    """The row itself and whatever points to it, however far away."""
    _, counts = Patient.objects.filter(pk=patient.pk).delete()
    return {apps.get_model(label)._meta.db_table: count for label, count in counts.items()}


def _ids(statement: str, parameters: Mapping[str, Any]) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return [id_ for (id_,) in cursor.fetchall()]


def revoke_idle(key_ids: Sequence[int]) -> int:
    """A key that may post for nobody any more is of no use but to a thief."""
    keys = ApiKey.objects.filter(pk__in=key_ids, revoked_at=None, every_sandbox_user=False)
    idle = [key.pk for key in keys.annotate(left=Count("patients")) if not key.left]
    return ApiKey.objects.filter(pk__in=idle).update(revoked_at=Now())


def blank_log(patient: Patient, delivery_ids: Sequence[int]) -> None:
    """Django's admin log names people: that something was done stays, to whom it was does not."""
    _blank(Patient, [patient.pk])
    _blank(Link, Link.objects.filter(patient=patient).values_list("pk", flat=True))
    _blank(Invitation, Invitation.objects.filter(patient=patient).values_list("pk", flat=True))
    _blank(Assignment, Assignment.objects.filter(patient=patient).values_list("pk", flat=True))
    _blank(Delivery, delivery_ids)


def _blank(model: type[Model], keys: Any) -> None:
    entries = LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(model), object_id__in=[str(key) for key in keys]
    )
    entries.update(object_repr="erased", change_message="")


def file_event(traces: Traces) -> Delivery:
    return tell(EVENT_TYPE, _messages, patient_id=traces.patient_id, external_id=traces.external_id)


def _messages(about: Mapping[str, Any]) -> list[events.Message]:
    return [events.erased_message(about, erased_at=about["received_at"])]


# Outside the transaction


def revoke_grants(patient: Patient) -> dict[str, int]:
    """Ask each vendor to end its grant, while there is a token to say so with; counts for the record."""
    tokens = Token.objects.filter(link__patient=patient).exclude(link__status="revoked").select_related("link")
    revoked = [_revoke(token) for token in tokens]
    return {"grants_revoked": revoked.count(True), "grants_not_revoked": revoked.count(False)}


def _revoke(token: Token) -> bool:
    """Whether the grant is gone. Whatever keeps it from going is no reason to keep the patient."""
    try:
        ending = oauth.run(end_grant(token.link, token))
    except (psycopg.Error, ImproperlyConfigured) as error:
        logger.warning("the grant of link %d was not revoked: %s", token.pk, type(error).__name__)
        return False
    return ending in {Ending.DONE, Ending.BEFORE}


def forget_documents(link_ids: Sequence[int]) -> None:
    """Delete what workers keep of the links in Redis. Redis away stops nothing: it forgets within minutes by itself."""
    if not settings.REDIS_URL:
        return
    try:
        with Redis.from_url(
            settings.REDIS_URL,
            socket_timeout=REDIS_SECONDS,
            socket_connect_timeout=REDIS_SECONDS,
            retry=Retry(NoBackoff(), 0),
        ) as redis:
            for link_id in link_ids:
                redis.delete(key_of(link_id))
    except (RedisError, OSError) as error:
        logger.warning(
            "Redis is away (%s): an erased patient's documents stay there for five minutes", type(error).__name__
        )


def sweep_sources() -> int:
    """Remove sources whose link is gone, left by a worker that an erasure overtook; returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(SWEEP)
        return int(cursor.rowcount)
