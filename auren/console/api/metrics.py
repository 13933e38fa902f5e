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


class Metrics(ApiView):
    def get(self, request: Request) -> Response:
        Query.of(request)
        return Response({"results": Metric(METRICS, many=True).data})
