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
from auren.console.api.asking import Listed, Query, Text
from auren.console.api.lists import ListView, page_of
from auren.console.api.views import ApiView
from devices.models import Patient as PatientRow


class Patient(serializers.ModelSerializer[PatientRow]):
    class Meta:
        model = PatientRow
        fields = ("id", "external_id", "display_name", "timezone", "created_at")


class PatientsAsked(Listed):
    external_id = Text(max_length=255, required=False, help_text="Exactly this one.")


EXAMPLE = {
    "id": 7,
    "external_id": "user_7",
    "display_name": "Ada Nowak",
    "timezone": "Europe/Berlin",
    "created_at": "2026-11-01T09:30:00Z",
}


class Patients(ListView):
    """Support and admins see everybody, clinicians the patients assigned to them now. In the order they were made."""

    operation = "list_patients"
    summary = "Patients you may see"
    example = page_of(EXAMPLE)
    query = PatientsAsked
    shown = Patient

    def found(self, request: Request, asked: Mapping[str, Any]) -> QuerySet[PatientRow]:
        seen = patients_seen(user_of(request))
        return seen.filter(external_id=asked["external_id"]) if "external_id" in asked else seen


class OnePatient(ApiView):
    operation = "get_patient"
    summary = "One patient"
    example = EXAMPLE
    shown = Patient
    validated = "read"

    def get(self, request: Request, pk: int) -> Response:
        Query.of(request)
        content = Patient(get_object_or_404(patients_seen(user_of(request)), pk=pk)).data
        etag = etags.of_content(content)
        return etags.unchanged(request, etag) or Response(content, headers={"ETag": etag})
