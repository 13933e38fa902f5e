"""Patients: for support everybody, for clinicians those assigned to them now."""

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from auren.console.api import etags
from auren.console.api.access import patients_seen, user_of
from auren.console.api.asking import Listed, Query
from auren.console.api.lists import ListView
from auren.console.api.views import ApiView
from devices.models import Patient as PatientRow


class Patient(serializers.ModelSerializer[PatientRow]):
    class Meta:
        model = PatientRow
        fields = ("id", "external_id", "display_name", "timezone", "created_at")


class PatientsAsked(Listed):
    external_id = serializers.CharField(max_length=255, required=False, help_text="Exactly this one.")


class Patients(ListView):
    query = PatientsAsked
    shown = Patient

    def found(self, request: Request, asked: Mapping[str, Any]) -> QuerySet[PatientRow]:
        seen = patients_seen(user_of(request))
        return seen.filter(external_id=asked["external_id"]) if "external_id" in asked else seen


class OnePatient(ApiView):
    def get(self, request: Request, pk: int) -> Response:
        Query.of(request)
        content = Patient(get_object_or_404(patients_seen(user_of(request)), pk=pk)).data
        etag = etags.of_content(content)
        return etags.unchanged(request, etag) or Response(content, headers={"ETag": etag})
