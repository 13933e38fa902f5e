"""A patient's timeline: what counts, settled and reduced, as the clinician's page draws it."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from auren.biometrics import timeline, windows
from auren.console import gaps, lanes
from auren.console.api.access import patients_seen, user_of
from auren.console.api.asking import Instant, MetricNames, Number, Query, within
from auren.console.api.conflicts import Conflict
from auren.console.api.samples import SEE_SAMPLES
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


class Gap(serializers.Serializer[gaps.Gap]):
    """Where no line has data, in Unix seconds, and why as far as it is known."""

    start = serializers.FloatField()
    end = serializers.FloatField()
    why = serializers.ChoiceField(choices=list(gaps.WHYS))
    text = serializers.CharField(help_text="The same as a sentence, with times in the patient's zone.")


class Series(serializers.Serializer[timeline.Series]):
    metric = serializers.CharField(source="metric.name")
    unit = serializers.CharField(source="metric.unit")
    shape = serializers.ChoiceField(choices=["line", "dots", "bars", "stages"])
    lines = Line(many=True)
    gaps = serializers.SerializerMethodField()
    every_source = Line(many=True, allow_null=True)

    @extend_schema_field(Gap(many=True, allow_null=True, help_text="Null for what is measured now and then."))
    def get_gaps(self, series: timeline.Series) -> Any:
        found = self.context["gaps"].get(series.metric.number)
        return None if found is None else Gap(found, many=True).data


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
            "gaps": [
                {
                    "start": 1795395600.0,
                    "end": 1795420800.0,
                    "why": "not_synced",
                    "text": "Not synced: the newest data of Oura ring are of 23 Nov 2026, 02:00.",
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
    seconds, `value`, and the `low` and `high` of what was drawn into one value. A null value is a gap; `gaps` say where
    no line of a series has data, and why. Stages are 1
    awake, 2 light, 3 deep, 4 REM, 5 in bed, 6 asleep. `from` to `to` is 92 days at most.
    """

    operation = "read_timeline"
    summary = "A patient's timeline: what counts, settled and reduced"
    example = EXAMPLE
    query = TimelineAsked
    shown = Timeline
    tells = ("bad-range",)
    validated = "read"

    def get(self, request: Request, pk: int) -> HttpResponse:
        asked = TimelineAsked.of(request)
        within(_range(asked), MOST_DAYS)
        patient = get_object_or_404(patients_seen(user_of(request), SEE_SAMPLES), pk=pk)
        known = request.headers.get("If-None-Match", "")
        window, metrics = _window(patient, asked), asked.get("metric", lanes.METRICS)
        found = windows.rendered(window, metrics, as_bytes, known=known, beside=gaps.stand(patient.pk))
        headers = {"ETag": found.etag}
        if found.body is None:
            return HttpResponse(status=304, headers=headers)
        return HttpResponse(found.body, content_type="application/json", headers=headers)


def as_bytes(found: timeline.Timeline) -> bytes:
    """The answer, as `windows` keeps it."""
    return bytes(JSONRenderer().render(Timeline(found, context={"gaps": gaps.of(found)}).data))


def _range(asked: Mapping[str, Any]) -> dict[str, datetime]:
    to = asked.get("to", timezone.now())
    return {"from": asked.get("from", to - timedelta(days=DAYS)), "to": to}


def _window(patient: Patient, asked: Mapping[str, Any]) -> timeline.Window:
    """Exactly what was asked for; one that ends now is widened a little, so that it is the same one for a while."""
    zone, every = zone_of(patient), asked.get("sources") == "all"
    start_at, end_at = _range(asked).values()
    window = timeline.Window(patient.pk, start_at, end_at, zone, asked["points"], every_source=every)
    return window if "to" in asked else window.aligned()
