"""The metric catalogue, as `auren/biometrics/metrics.py` has it."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from auren.biometrics.metrics import METRICS
from auren.console.api.asking import Query
from auren.console.api.views import ApiView


class Metric(serializers.Serializer[Any]):
    name = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]
    unit = serializers.CharField()
    loinc = serializers.CharField(allow_null=True)
    code = serializers.CharField()
    kind = serializers.ChoiceField(choices=["point", "interval", "daily", "stage"])
    adds = serializers.ChoiceField(choices=["mean", "sum", "last", "state"])
    low = serializers.FloatField()
    high = serializers.FloatField()


EXAMPLE = {
    "name": "heart_rate",
    "label": "Heart rate",
    "unit": "/min",
    "loinc": "8867-4",
    "code": "8867-4",
    "kind": "point",
    "adds": "mean",
    "low": 20.0,
    "high": 300.0,
}


class Catalogue(serializers.Serializer[Any]):
    results = Metric(many=True)


class Metrics(ApiView):
    """Units are UCUM. `code` is LOINC's where there is one (`loinc`), else ours. New metrics may come at any time."""

    operation = "list_metrics"
    summary = "The metric catalogue"
    example = {"results": [EXAMPLE]}
    shown = Catalogue

    def get(self, request: Request) -> Response:
        Query.of(request)
        return Response({"results": Metric(METRICS, many=True).data})
