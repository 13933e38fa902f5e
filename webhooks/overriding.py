"""What people decide about a patient's devices: which one counts at one moment, for a metric, or in general.

Each act is one transaction under the lock of the patient's timeline: the decision is kept, the conflicts it touches are
settled anew, the version grows, and a delivery tells Kafka what came of it. docs/conflicts.md is for those who decide.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec
from django.db import connection, transaction
from django.db.models.functions import Now

from auren.biometrics import rules
from auren.biometrics.conflicts import COMPARED, Change, Touched, statements
from auren.biometrics.models import Conflict, Preference, Source
from devices.models import Link, Patient
from webhooks import events
from webhooks.telling import advance_timeline, lock_timeline, tell

Scope = Literal["moment", "metric", "patient"]
SCOPES: tuple[Scope, ...] = ("moment", "metric", "patient")
OVERRIDDEN, UNDONE, ORDERED = "conflict.overridden", "conflict.undone", "sources.ordered"
MOST_CHARACTERS = {"note": 2_000, "name": 150}
ALWAYS = datetime.min.replace(year=1900, tzinfo=UTC)

# Whether there is a conflict does not depend on who comes first, but for the total of a day: what it is compared with
# is drawn from whoever comes first in each quarter of an hour.
TOUCHED = f"""
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


class Switch(NamedTuple):
    """A conflict in which another source counts."""

    metric: int
    start_at: datetime
    end_at: datetime
    before: int
    after: int


class Effect(NamedTuple):
    """What an act does to a patient's conflicts.

    `kept` is the number of those in which the same source counts as before, for another reason; `gone` and `come` of
    those that are no more, and that were none.
    """

    switched: list[Switch]
    kept: int
    gone: int
    come: int


class Standing(NamedTuple):
    end_at: datetime
    winner_id: int
    rule: str
    preference_id: int | None


Bucket = tuple[int, datetime, bool]


def override(
    conflict: Conflict, *, source_id: int, scope: Scope, by: str, note: str, until: datetime | None = None
) -> Conflict:
    """Let `source_id`, one of those in conflict, count: at this `moment`, for its `metric` from there on, or in general
    (`patient`), before all others of the patient's order. Returns the conflict as it is then.

    A moment may last `until` the end of the conflicts that follow this one. The state is `gone` where the decision
    leaves nothing to settle. Raises `CannotDecide`, in words.
    """
    by, note = _signed(by, note)
    if scope not in SCOPES:
        raise CannotDecide(f"{scope!r} is no scope: say one of {', '.join(SCOPES)}.")
    with transaction.atomic():
        patient = _locked(conflict.patient_id)
        conflict = _standing(conflict)
        _must_speak(source_id, conflict)
        preference = _decide(conflict, source_id, scope, by, note, until)
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


def foresee(patient_id: int, decide: Callable[[], object]) -> Effect:
    """What `decide()`, one of the acts above, would do to this patient's conflicts: it is done, and taken back.

    Under the lock of the timeline, for as long as the act itself takes. Raises what the act raises.
    """
    with transaction.atomic():
        lock_timeline(patient_id)
        before = _all_standing(patient_id)
        decide()
        after = _all_standing(patient_id)
        transaction.set_rollback(True)
    return _effect(before, after)


def _all_standing(patient_id: int) -> dict[Bucket, Standing]:
    rows = Conflict.objects.filter(patient_id=patient_id).order_by("start_at", "metric", "daily")
    found = rows.values_list("metric", "start_at", "daily", *Standing._fields)
    return {(metric, start_at, daily): Standing(*rest) for metric, start_at, daily, *rest in found}


def _effect(before: Mapping[Bucket, Standing], after: Mapping[Bucket, Standing]) -> Effect:
    stayed = [(bucket, before[bucket], now) for bucket, now in after.items() if bucket in before]
    return Effect(
        [
            Switch(metric, start_at, now.end_at, was.winner_id, now.winner_id)
            for (metric, start_at, _), was, now in stayed
            if was.winner_id != now.winner_id
        ],
        kept=sum(was.winner_id == now.winner_id and was != now for _, was, now in stayed),
        gone=len(before.keys() - after.keys()),
        come=len(after.keys() - before.keys()),
    )


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


def _decide(conflict: Conflict, source_id: int, scope: Scope, by: str, note: str, until: datetime | None) -> Preference:
    preference = Preference(patient_id=conflict.patient_id, scope=scope, sources=[source_id], made_by=by, note=note)
    if scope == "patient":
        before = current_order(conflict.patient_id)
        preference.sources = [source_id, *(other for other in before if other != source_id)]
    else:
        preference.metric, preference.since = conflict.metric, conflict.start_at
    if scope == "moment":
        preference.until, preference.daily = max(until or conflict.end_at, conflict.end_at), conflict.daily
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
    changes: list[Change] = []
    with connection.cursor() as cursor:
        for statement, parameters in statements(_touched(cursor, preference), {patient.pk: patient.timezone}):
            cursor.execute(statement, parameters)
            changes += [_change(row) for row in cursor.fetchall()]
    return changes


def _touched(cursor: Any, preference: Preference) -> Iterable[Touched]:
    if preference.metric and preference.since and preference.until:
        return [(preference.patient_id, preference.metric, preference.since, preference.until)]
    metrics = [metric for metric in COMPARED if preference.metric in {None, metric.number}]
    about = {
        "patient": preference.patient_id,
        "metrics": [metric.number for metric in metrics],
        "counts": [metric.number for metric in metrics if metric.cumulative],
        "since": preference.since or ALWAYS,
    }
    cursor.execute(TOUCHED, about)
    return list(cursor.fetchall())


def _change(row: Sequence[Any]) -> Change:
    """Django leaves JSON from its cursors as text."""
    fields = dict(zip(Change.__struct_fields__, row, strict=True))
    return Change(**fields | {"values": msgspec.json.decode(fields["values"])})


def _as_it_is_now(conflict: Conflict) -> Conflict:
    now = Conflict.objects.select_related("winner", "preference").filter(pk=conflict.pk).first()
    if now is None:
        conflict.state, conflict.rule = "gone", "agreed"
    return now or conflict
