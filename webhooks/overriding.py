"""What people decide about a patient's devices: which one counts at one moment, for a metric, or in general.

Each act is one transaction under the lock of the patient's timeline: the decision is kept, the conflicts it touches are
settled anew, the version grows, and a delivery tells Kafka what came of it. docs/conflicts.md is for those who decide.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from django.db import connection, transaction
from django.db.models.functions import Now

from auren.biometrics import rules
from auren.biometrics.conflicts import COMPARED, Change, statements
from auren.biometrics.models import Conflict, Preference, Source
from devices.models import Link, Patient
from webhooks import events
from webhooks.telling import advance_timeline, lock_timeline, tell

Scope = Literal["moment", "metric", "patient"]
SCOPES: tuple[Scope, ...] = ("moment", "metric", "patient")
OVERRIDDEN, UNDONE, ORDERED = "conflict.overridden", "conflict.undone", "sources.ordered"
MOST_CHARACTERS = {"note": 2_000, "name": 150}
ALWAYS = datetime.min.replace(year=1900, tzinfo=UTC)

MAKE_TOUCHED = """
CREATE TEMPORARY TABLE IF NOT EXISTS touched (
    patient_id bigint, metric smallint, start_at timestamptz, end_at timestamptz
) ON COMMIT DROP;
DELETE FROM touched;
"""
TOUCH = "INSERT INTO touched VALUES (%(patient)s, %(metric)s, %(start)s, %(end)s)"
# Whether there is a conflict does not depend on who comes first, but for the total of a day: what it is compared with
# is drawn from whoever comes first in each quarter of an hour.
TOUCH_ALL = f"""
INSERT INTO touched
SELECT patient_id, metric, start_at, end_at FROM biometrics_conflict
WHERE patient_id = %(patient)s AND metric = ANY(%(metrics)s) AND end_at > %(since)s
UNION
SELECT patient_id, metric, start_at, end_at FROM biometrics_sample s
WHERE patient_id = %(patient)s AND metric = ANY(%(counts)s) AND start_at > %(since)s - interval '2 days'
  AND {rules.is_total("s")}
"""  # noqa: S608 - a constant of this project


class CannotDecide(Exception):
    """What was asked for cannot be done. The text says why, and what can, for whoever asked."""


class ConflictGone(CannotDecide):
    """There is nothing left to decide: the devices agree by now, or one has withdrawn what it said."""


def override(conflict: Conflict, *, source_id: int, scope: Scope, by: str, note: str) -> Conflict:
    """Let `source_id`, one of those in conflict, count: at this `moment`, for its `metric` from there on, or in general
    (`patient`), before all others of the patient's order. Returns the conflict as it is then.

    Its state is `gone` where the decision leaves nothing to settle. Raises `CannotDecide`, in words.
    """
    by, note = _signed(by, note)
    if scope not in SCOPES:
        raise CannotDecide(f"{scope!r} is no scope: say one of {', '.join(SCOPES)}.")
    with transaction.atomic():
        patient = _locked(conflict.patient_id)
        conflict = _standing(conflict)
        _must_speak(source_id, conflict)
        preference = _decide(conflict, source_id, scope, by, note)
        _settle(patient, preference, OVERRIDDEN)
        return _as_it_is_now(conflict)


def order_sources(patient_id: int, source_ids: Sequence[int], *, by: str, note: str) -> Preference:
    """Let the patient's sources count in this order, whatever the metric, since ever; those left out come after.

    It takes the place of the order before it. Raises `CannotDecide`.
    """
    by, note = _signed(by, note)
    with transaction.atomic():
        patient = _locked(patient_id)
        _must_be_sources_of(patient, source_ids)
        preference = Preference.objects.create(
            patient_id=patient_id, scope="patient", sources=list(source_ids), made_by=by, note=note
        )
        _settle(patient, preference, ORDERED)
    return preference


def undo(decided: Conflict | Preference, *, by: str, note: str) -> Preference:
    """Take a decision back; of a conflict, the one it rests on, however far that reaches. Returns the decision.

    What was decided before it counts again, else the rules do. Raises `CannotDecide`.
    """
    by, note = _signed(by, note)
    with transaction.atomic():
        patient = _locked(decided.patient_id)
        preference = _in_force(decided)
        row = Preference.objects.filter(patient_id=patient.pk, pk=preference.pk)
        row.update(undone_by=by, undone_note=note, undone_at=Now())
        _settle(patient, preference, UNDONE)
    preference.refresh_from_db()
    return preference


def current_order(patient_id: int) -> list[int]:
    """The patient's own order of sources; empty where nobody has given one."""
    orders = Preference.objects.filter(patient_id=patient_id, scope="patient", undone_at=None)
    newest = orders.order_by("-pk").first()
    return list(newest.sources) if newest else []


# What may be asked for


def _signed(by: str, note: str) -> tuple[str, str]:
    by, note = by.strip(), note.strip()
    if not note:
        raise CannotDecide("Say why, in a note: whoever reads the timeline next will want to know.")
    if not by or len(by) > MOST_CHARACTERS["name"]:
        raise CannotDecide(f"Say who decides, in at most {MOST_CHARACTERS['name']} characters.")
    if len(note) > MOST_CHARACTERS["note"] or "\0" in by + note:
        raise CannotDecide(f"Keep the note to plain text of at most {MOST_CHARACTERS['note']:,} characters.")
    return by, note


def _locked(patient_id: int) -> Patient:
    lock_timeline(patient_id)
    patient = Patient.objects.filter(pk=patient_id).first()
    if patient is None:
        raise CannotDecide("There is no such patient any more: they have been erased.")
    return patient


def _standing(conflict: Conflict) -> Conflict:
    """The conflict as it is under the lock: it may have changed since somebody looked at it."""
    standing = Conflict.objects.filter(pk=conflict.pk, patient_id=conflict.patient_id).first()
    if standing is None:
        raise ConflictGone("This conflict is gone: the devices agree by now, or one has withdrawn what it said.")
    return standing


def _must_speak(source_id: int, conflict: Conflict) -> None:
    if str(source_id) in conflict.values:
        return
    names = Source.objects.filter(pk__in=[int(key) for key in conflict.values]).order_by("pk")
    known = ", ".join(f"{source.pk} ({source.name})" for source in names)
    raise CannotDecide(f"Device {source_id} says nothing in this conflict: choose one of {known}.")


def _must_be_sources_of(patient: Patient, source_ids: Sequence[int]) -> None:
    links = Link.objects.filter(patient=patient).values("pk")
    known = set(Source.objects.filter(link_id__in=links).values_list("pk", flat=True))
    if not source_ids:
        raise CannotDecide("Name at least one device; to be without an order, undo the one that counts.")
    if len(set(source_ids)) < len(source_ids):
        raise CannotDecide("Name each device once.")
    if strange := sorted(set(source_ids) - known):
        raise CannotDecide(f"Not a device of {patient.external_id}: {', '.join(map(str, strange))}.")


def _in_force(decided: Conflict | Preference) -> Preference:
    if isinstance(decided, Conflict):
        preference_id = _standing(decided).preference_id
        if preference_id is None:
            raise CannotDecide("Nobody has decided this conflict: a rule did, and there is nothing to undo.")
    else:
        preference_id = decided.pk
    preference = Preference.objects.filter(patient_id=decided.patient_id, pk=preference_id).first()
    if preference is None:
        raise CannotDecide("There is no such decision.")
    if preference.undone_at:
        raise CannotDecide(f"{preference.undone_by} has undone this decision on {preference.undone_at:%Y-%m-%d}.")
    return preference


# What is done


def _decide(conflict: Conflict, source_id: int, scope: Scope, by: str, note: str) -> Preference:
    preference = Preference(patient_id=conflict.patient_id, scope=scope, sources=[source_id], made_by=by, note=note)
    if scope == "patient":
        before = current_order(conflict.patient_id)
        preference.sources = [source_id, *(other for other in before if other != source_id)]
    else:
        preference.metric, preference.since = conflict.metric, conflict.start_at
    if scope == "moment":
        preference.until, preference.daily = conflict.end_at, conflict.daily
    preference.save()
    return preference


def _settle(patient: Patient, preference: Preference, event_type: str) -> None:
    """Settle what the decision touches. Where nothing comes of it there is nothing to tell, but another version."""
    changes = settle_touched(patient, preference)
    if not changes:
        advance_timeline(patient.pk)
        return

    def messages(about: Mapping[str, Any]) -> list[events.Message]:
        return [events.conflict_message(about, change) for change in changes]

    about = str(preference.pk)
    tell(event_type, messages, patient_id=patient.pk, external_id=patient.external_id, object_id=about)


def settle_touched(patient: Patient, preference: Preference) -> list[Change]:
    """Settle anew what `preference` may have changed; within the transaction that has locked the timeline."""
    with connection.cursor() as cursor:
        cursor.execute(MAKE_TOUCHED)
        _touch(cursor, preference)
        changes: list[Change] = []
        for statement, parameters in statements({patient.pk: patient.timezone}):
            cursor.execute(statement, parameters)
            changes += [_change(row) for row in cursor.fetchall()]
    return changes


def _touch(cursor: Any, preference: Preference) -> None:
    names = {"patient": preference.patient_id, "metric": preference.metric}
    if preference.scope == "moment":
        cursor.execute(TOUCH, names | {"start": preference.since, "end": preference.until})
        return
    metrics = [metric for metric in COMPARED if preference.metric in {None, metric.number}]
    numbers = [metric.number for metric in metrics]
    counts = [metric.number for metric in metrics if metric.cumulative]
    since = preference.since or ALWAYS
    cursor.execute(TOUCH_ALL, names | {"metrics": numbers, "counts": counts, "since": since})


def _change(row: Sequence[Any]) -> Change:
    """Django leaves JSON from its cursors as text."""
    fields = dict(zip(Change.__struct_fields__, row, strict=True))
    return Change(**fields | {"values": msgspec.json.decode(fields["values"])})


def _as_it_is_now(conflict: Conflict) -> Conflict:
    now = Conflict.objects.select_related("winner", "preference").filter(pk=conflict.pk).first()
    if now is None:
        conflict.state, conflict.rule = "gone", "agreed"
    return now or conflict
