"""A patient's timeline: what counts, settled and reduced, as the clinician's page draws it."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.shortcuts import get_object_or_404
from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from auren.biometrics import timeline
from auren.console import lanes
from auren.console.api import etags
from auren.console.api.access import patients_seen, user_of
from auren.console.api.asking import Instant, MetricNames, Number, Query, within
from auren.console.api.conflicts import Conflict
from auren.console.api.samples import SEE_SAMPLES, version_of
from auren.console.api.views import CostlyView
from auren.console.views import DAYS, DEFAULT_POINTS, LEAST_POINTS, MOST_DAYS, zone_of
from devices.models import Patient

MOST_METRICS = 20


class Column(serializers.ListField):
    """Numbers that are sent as they are: to ask a field about each of 60,000 takes longer than to read them."""

    def to_representation(self, data: list[Any]) -> list[Any]:
        return data


class Line(serializers.Serializer[timeline.Line]):
    sources = serializers.ListField(child=Number())
    start = Column(child=serializers.FloatField())
    end = Column(child=serializers.FloatField())
    value = Column(child=serializers.FloatField(allow_null=True))
    low = Column(child=serializers.FloatField(allow_null=True))
    high = Column(child=serializers.FloatField(allow_null=True))


class Series(serializers.Serializer[timeline.Series]):
    metric = serializers.CharField(source="metric.name")
    unit = serializers.CharField(source="metric.unit")
    shape = serializers.ChoiceField(choices=["line", "dots", "bars", "stages"])
    lines = Line(many=True)
    every_source = Line(many=True, allow_null=True)


class Device(serializers.Serializer[Any]):
    id = Number()
    name = serializers.CharField()
    kind = serializers.CharField()


class Timeline(serializers.Serializer[timeline.Timeline]):
    """`start` and `end` of lines are Unix seconds, as columns of equal length with the values."""

    patient_id = Number(source="window.patient_id")
    from_ = serializers.DateTimeField(source="window.start_at")
    to = serializers.DateTimeField(source="window.end_at")
    timezone = serializers.CharField(source="window.zone.key")
    series = Series(many=True)
    sources = serializers.SerializerMethodField()
    conflicts = Conflict(many=True)
    more_conflicts = serializers.BooleanField()

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {name.rstrip("_"): field for name, field in super().get_fields().items()}

    @extend_schema_field(Device(many=True))
    def get_sources(self, found: timeline.Timeline) -> Any:
        return Device(sorted(found.sources.values(), key=lambda source: source.pk), many=True).data


class TimelineAsked(Query):
    from_ = Instant(required=False, help_text=f"The beginning, included. {DAYS} days before `to` where it is missing.")
    to = Instant(required=False, help_text="The end, not included. Now where it is missing.")
    metric = MetricNames(
        required=False, max_length=MOST_METRICS, help_text="Which; repeated for several. Those of the page by default."
    )
    points = serializers.IntegerField(
        min_value=LEAST_POINTS, max_value=timeline.MOST_POINTS, default=DEFAULT_POINTS, help_text="How many a line."
    )
    sources = serializers.ChoiceField(
        choices=["all"], required=False, help_text="`all`: also what every source says on its own."
    )


EXAMPLE = {
    "patient_id": 7,
    "from": "2026-11-23T00:00:00Z",
    "to": "2026-11-24T00:00:00Z",
    "timezone": "Europe/Berlin",
    "series": [
        {
            "metric": "heart_rate",
            "unit": "/min",
            "shape": "line",
            "lines": [
                {
                    "sources": [11],
                    "start": [1795392000.0, 1795392300.0],
                    "end": [1795392300.0, 1795392600.0],
                    "value": [52.5, None],
                    "low": [50.0, None],
                    "high": [55.0, None],
                }
            ],
            "every_source": None,
        }
    ],
    "sources": [{"id": 11, "name": "Oura ring", "kind": "ring"}],
    "conflicts": [],
    "more_conflicts": False,
}


class PatientTimeline(CostlyView):
    """What counts, of each metric, reduced to `points` a line; a day is the patient's day.

    A line is what one device says (bars: one set of devices), as columns of equal length: `start` and `end` in Unix
    seconds, `value`, and the `low` and `high` of what was drawn into one value. A null value is a gap. Stages are 1
    awake, 2 light, 3 deep, 4 REM, 5 in bed, 6 asleep. `from` to `to` is 92 days at most.
    """

    operation = "read_timeline"
    summary = "A patient's timeline: what counts, settled and reduced"
    example = EXAMPLE
    query = TimelineAsked
    shown = Timeline
    tells = ("bad-range",)
    validated = "read"

    def get(self, request: Request, pk: int) -> Response:
        asked = _range(TimelineAsked.of(request))
        within(asked, MOST_DAYS)
        patient = get_object_or_404(patients_seen(user_of(request), SEE_SAMPLES), pk=pk)
        window = _window(patient, asked)
        metrics = asked.get("metric", lanes.METRICS)
        etag = etags.of_version(version_of(pk), *_essence(window, metrics))
        unchanged = etags.unchanged(request, etag)
        return unchanged or Response(Timeline(timeline.read(window, metrics)).data, headers={"ETag": etag})


def _range(asked: dict[str, Any]) -> dict[str, Any]:
    to = asked.get("to", timezone.now())
    return {"from": to - timedelta(days=DAYS), "to": to} | asked


def _window(patient: Patient, asked: Mapping[str, Any]) -> timeline.Window:
    zone, every = zone_of(patient), asked.get("sources") == "all"
    return timeline.Window(patient.pk, asked["from"], asked["to"], zone, asked["points"], every_source=every)


def _essence(window: timeline.Window, metrics: Sequence[Any]) -> list[Any]:
    names = [metric.name for metric in metrics]
    return [window.start_at, window.end_at, window.zone.key, window.points, window.every_source, names]
