"""Conflicts: where two of a patient's devices disagree, and which one counts."""

from collections.abc import Callable, Mapping
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from auren.audit.models import Verb
from auren.audit.trail import note, record
from auren.biometrics.metrics import BY_NUMBER
from auren.biometrics.models import Conflict as ConflictRow
from auren.console.api import etags
from auren.console.api.access import holds, seen, user_of
from auren.console.api.asking import Body, Instant, Listed, MetricNames, Number, Query, Text
from auren.console.api.lists import ListView, page_of
from auren.console.api.problems import Problem
from auren.console.api.views import ApiView
from webhooks import overriding
from webhooks.telling import lock_timeline

SEE_CONFLICTS = "biometrics.view_conflict"


class Conflict(serializers.ModelSerializer[ConflictRow]):
    metric = serializers.SerializerMethodField()
    unit = serializers.SerializerMethodField()
    values = serializers.DictField(child=serializers.FloatField())
    winner_id = Number()
    rule = serializers.CharField()
    state = serializers.ChoiceField(choices=[*ConflictRow.STATES, ("gone", "gone")])

    class Meta:
        model = ConflictRow
        fields = (
            *("id", "patient_id", "metric", "unit", "start_at", "end_at", "daily", "values", "winner_id", "rule"),
            *("state", "resolved_by", "note", "updated_at"),
        )

    def get_metric(self, conflict: ConflictRow) -> str:
        return BY_NUMBER[conflict.metric].name

    def get_unit(self, conflict: ConflictRow) -> str:
        return BY_NUMBER[conflict.metric].unit


class ConflictsAsked(Listed):
    patient_id = Number(required=False, help_text="Of this patient.")
    metric = MetricNames(required=False, max_length=50, help_text="Of these metrics; repeated for several.")
    state = serializers.ChoiceField(choices=ConflictRow.STATES, required=False, help_text="In this state.")
    from_ = Instant(required=False, help_text="That end after this.")
    to = Instant(required=False, help_text="That start before this.")


def conflicts_seen(request: Request) -> QuerySet[ConflictRow]:
    return seen(ConflictRow.objects.all(), user_of(request), SEE_CONFLICTS)


EXAMPLE = {
    "id": 311,
    "patient_id": 7,
    "metric": "sleep_duration",
    "unit": "s",
    "start_at": "2026-11-23T22:41:00Z",
    "end_at": "2026-11-24T06:32:00Z",
    "daily": False,
    "values": {"11": 25200.0, "14": 21600.0},
    "winner_id": 11,
    "rule": "metric_order",
    "state": "settled",
    "resolved_by": "",
    "note": "",
    "updated_at": "2026-11-24T06:58:03.412907Z",
}


class Conflicts(ListView):
    """Newest first. `values` is what each source says, by its number, in `unit`; `winner_id` is the source that counts.

    `settled` by a rule, `overridden` by a person, `open` when only recency decided and a person should look.
    """

    operation = "list_conflicts"
    summary = "Conflicts: where two devices of a patient disagree"
    example = page_of(EXAMPLE)
    query = ConflictsAsked
    shown = Conflict
    order = ("-id",)

    def found(self, request: Request, asked: Mapping[str, Any]) -> QuerySet[ConflictRow]:
        found = conflicts_seen(request).filter(
            **{name: asked[name] for name in ("patient_id", "state") if name in asked}
        )
        if "metric" in asked:
            found = found.filter(metric__in=[metric.number for metric in asked["metric"]])
        return found.filter(_overlapping(asked))


def _overlapping(asked: Mapping[str, Any]) -> Q:
    after = Q(end_at__gt=asked["from"]) if "from" in asked else Q()
    return after & (Q(start_at__lt=asked["to"]) if "to" in asked else Q())


class OneConflict(ApiView):
    operation = "get_conflict"
    summary = "One conflict"
    example = EXAMPLE
    shown = Conflict
    validated = "read"

    def get(self, request: Request, pk: int) -> Response:
        Query.of(request)
        conflict = get_object_or_404(conflicts_seen(request), pk=pk)
        note(request, conflict)
        content = Conflict(conflict).data
        etag = etags.of_content(content)
        return etags.unchanged(request, etag) or Response(content, headers={"ETag": etag})


class Decision(Body):
    source_id = Number(help_text="The source that is to count: one of those in `values`.")
    scope = serializers.ChoiceField(
        choices=overriding.SCOPES,
        default="moment",
        help_text="`moment`: this conflict alone. `metric`: this metric from here on. `patient`: before all others.",
    )
    note = Text(max_length=overriding.MOST_CHARACTERS["note"], help_text="Why.")


class Undoing(Body):
    note = Text(max_length=overriding.MOST_CHARACTERS["note"], help_text="Why.")


OVERRIDDEN = {**EXAMPLE, "winner_id": 14, "rule": "person", "state": "overridden", "resolved_by": "clara"}


class Override(ApiView):
    """For clinicians whose patient it is, support and admins. The decision is kept and told to Kafka.

    `state` is `gone` where it leaves nothing to settle. 409 where it cannot be done, because the devices agree by now
    or the source says nothing here. With `If-Match` nobody's decision is overwritten unseen.
    """

    operation = "override_conflict"
    summary = "Decide which source counts"
    example = {**OVERRIDDEN, "note": "The ring slipped off."}
    permission_classes = (holds("biometrics.override_conflict"),)
    body = Decision
    shown = Conflict
    tells = ("not-possible",)
    validated = "change"

    def post(self, request: Request, pk: int) -> Response:
        Query.of(request)
        asked = Decision.of(request)
        return _decided(request, pk, Verb.OVERRIDE, lambda conflict, by: overriding.override(conflict, by=by, **asked))


class Undo(ApiView):
    """However far the decision reached. What was decided before it counts again, else the rules do."""

    operation = "undo_conflict"
    summary = "Take back the decision a conflict rests on"
    example = EXAMPLE
    permission_classes = (holds("biometrics.override_conflict"),)
    body = Undoing
    shown = Conflict
    tells = ("not-possible",)
    validated = "change"

    def post(self, request: Request, pk: int) -> Response:
        Query.of(request)
        note = Undoing.of(request)["note"]
        return _decided(request, pk, Verb.UNDO, lambda conflict, by: overriding.undo(conflict, by=by, note=note))


def _decided(request: Request, pk: int, verb: Verb, decide: Callable[[ConflictRow, str], object]) -> Response:
    """Under the lock of the patient's timeline, so that what `If-Match` names is what is decided upon."""
    seen_by_caller = get_object_or_404(conflicts_seen(request), pk=pk)
    with transaction.atomic():
        lock_timeline(seen_by_caller.patient_id)
        conflict = get_object_or_404(conflicts_seen(request), pk=pk)
        etags.unchanged(request, etags.of_content(Conflict(conflict).data))
        try:
            decide(conflict, user_of(request).get_username())
        except overriding.CannotDecide as reason:
            raise Problem("not-possible", str(reason)) from reason
        record(request, verb, conflict)
    content = Conflict(_as_it_is_now(conflict)).data
    return Response(content, headers={"ETag": etags.of_content(content)})


def _as_it_is_now(conflict: ConflictRow) -> ConflictRow:
    now = ConflictRow.objects.filter(pk=conflict.pk).first()
    if now is None:
        conflict.state, conflict.rule = "gone", "agreed"
    return now or conflict
