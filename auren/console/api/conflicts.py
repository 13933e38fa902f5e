"""Conflicts: where two of a patient's devices disagree, and which one counts."""

from collections.abc import Mapping
from typing import Any

from django.db.models import Q, QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from auren.biometrics.metrics import BY_NUMBER
from auren.biometrics.models import Conflict as ConflictRow
from auren.console.api import etags
from auren.console.api.access import seen, user_of
from auren.console.api.asking import Instant, Listed, MetricNames, Number, Query
from auren.console.api.lists import ListView, page_of
from auren.console.api.views import ApiView

SEE_CONFLICTS = "biometrics.view_conflict"


class Conflict(serializers.ModelSerializer[ConflictRow]):
    metric = serializers.SerializerMethodField()
    unit = serializers.SerializerMethodField()
    values = serializers.DictField(child=serializers.FloatField())
    winner_id = Number()
    rule = serializers.CharField()

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
        content = Conflict(get_object_or_404(conflicts_seen(request), pk=pk)).data
        etag = etags.of_content(content)
        return etags.unchanged(request, etag) or Response(content, headers={"ETag": etag})
