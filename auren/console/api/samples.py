"""Samples as they are stored, every source's: what the timeline is drawn from."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from auren.audit.trail import note
from auren.biometrics.metrics import BY_NUMBER, Metric
from auren.biometrics.models import Sample as SampleRow
from auren.biometrics.models import Timeline
from auren.console.api import cursors, etags
from auren.console.api.access import patients_seen, user_of
from auren.console.api.asking import Listed, MetricNames, Number, Ranged, within
from auren.console.api.lists import page_of, paged
from auren.console.api.views import CostlyView

SEE_SAMPLES = "biometrics.view_sample"
MOST_DAYS = 366
MOST_METRICS = 10
KEY = ("start_at", "source_id", "record")  # what follows patient and metric in the table's key


class Sample(serializers.ModelSerializer[SampleRow]):
    metric = serializers.SerializerMethodField()
    unit = serializers.SerializerMethodField()
    source = serializers.CharField(source="source.name")  # type: ignore[assignment]
    source_id = Number()
    delivery_id = Number()

    class Meta:
        model = SampleRow
        fields = (
            *("metric", "start_at", "end_at", "value", "unit", "utc_offset_minutes", "record", "source", "source_id"),
            *("revised_at", "delivery_id"),
        )

    def get_metric(self, sample: SampleRow) -> str:
        return BY_NUMBER[sample.metric].name

    def get_unit(self, sample: SampleRow) -> str:
        return BY_NUMBER[sample.metric].unit


class SamplesAsked(Listed, Ranged):
    patient_id = Number(help_text="Whose.")
    metric = MetricNames(min_length=1, max_length=MOST_METRICS, help_text="Which; repeated for several.")
    source_id = Number(required=False, help_text="From this source alone.")


EXAMPLE = {
    "metric": "sleep_duration",
    "start_at": "2026-11-23T22:41:00Z",
    "end_at": "2026-11-24T06:32:00Z",
    "value": 25200.0,
    "unit": "s",
    "utc_offset_minutes": 60,
    "record": "8f9a5221-639e-4a85-81cb-4065ef23f979",
    "source": "Oura ring",
    "source_id": 11,
    "revised_at": "2026-11-24T06:58:03.412907Z",
    "delivery_id": 48151,
}


class Samples(CostlyView):
    """Of every source, also of one that lost a conflict; the timeline has what counts.

    In the order of the catalogue's metrics, then of `start_at`: to be walked page by page. `from` to `to` is a year
    (366 days) at most.
    """

    operation = "list_samples"
    summary = "A patient's samples, as they are stored"
    example = page_of(EXAMPLE)
    query = SamplesAsked
    shown = Sample
    listed = True
    tells = ("bad-range",)
    validated = "read"

    # Along the table's key, one metric after the other: each statement reads one bounded stretch of it.
    def get(self, request: Request) -> Response:
        asked = SamplesAsked.of(request)
        within(asked, MOST_DAYS)
        patient = get_object_or_404(patients_seen(user_of(request), SEE_SAMPLES), pk=asked["patient_id"])
        note(request, patients=[patient.pk])
        etag = etags.of_version(version_of(patient.pk), request.query_params.urlencode())
        unchanged = etags.unchanged(request, etag)
        if unchanged is not None:
            return unchanged
        answer = paged(_page(asked, request), Sample, request)
        answer.headers["ETag"] = etag
        return answer


def version_of(patient_id: int) -> int:
    """How often the patient's data have changed. To be read before the data: an answer may be newer than it says."""
    return Timeline.objects.filter(pk=patient_id).values_list("version", flat=True).first() or 0


def _page(asked: Mapping[str, Any], request: Request) -> cursors.Page:
    last = cursors.start(asked, request)
    rows: list[SampleRow] = []
    for metric in _from(asked["metric"], last):
        found = _stretch(asked, metric)
        if last and metric.number == last[0]:
            found = found.filter(cursors.behind(KEY, last[1:]))
        rows += found[: asked["limit"] + 1 - len(rows)]
        if len(rows) > asked["limit"]:
            break
    return cursors.cut(rows, [_place(row) for row in rows[-2:]], asked, request)


def _from(metrics: Sequence[Metric], last: Sequence[Any] | None) -> list[Metric]:
    """In the key's order, from the cursor's on."""
    ordered = sorted(metrics, key=lambda metric: metric.number)
    return [metric for metric in ordered if last is None or metric.number >= last[0]]


def _stretch(asked: Mapping[str, Any], metric: Metric) -> QuerySet[SampleRow]:
    found = SampleRow.objects.filter(
        patient_id=asked["patient_id"], metric=metric.number, start_at__gte=asked["from"], start_at__lt=asked["to"]
    )
    if "source_id" in asked:
        found = found.filter(source_id=asked["source_id"])
    return found.select_related("source").order_by(*KEY)


def _place(row: SampleRow) -> list[int | str | datetime]:
    return [row.metric, row.start_at, row.source_id, row.record]
