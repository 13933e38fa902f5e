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
from auren.console.api.lists import ListView
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


class Conflicts(ListView):
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
    def get(self, request: Request, pk: int) -> Response:
        Query.of(request)
        content = Conflict(get_object_or_404(conflicts_seen(request), pk=pk)).data
        etag = etags.of_content(content)
        return etags.unchanged(request, etag) or Response(content, headers={"ETag": etag})
