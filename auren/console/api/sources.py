"""Sources: the devices that samples come from. The watch and the phone under one link are two."""

from collections.abc import Mapping
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from auren.audit.trail import note
from auren.biometrics.models import Source as SourceRow
from auren.console.api.access import seen, user_of
from auren.console.api.asking import Listed, Number, Query
from auren.console.api.links import SEE_LINKS
from auren.console.api.lists import ListView, page_of
from auren.console.api.views import ApiView
from devices.models import Link


class Source(serializers.ModelSerializer[SourceRow]):
    link_id = Number()
    patient_id = Number()
    vendor = serializers.ChoiceField(choices=Link.VENDORS)

    class Meta:
        model = SourceRow
        fields = ("id", "patient_id", "link_id", "vendor", "name", "kind", "created_at")


class SourcesAsked(Listed):
    patient_id = Number(required=False, help_text="Of this patient.")
    link_id = Number(required=False, help_text="Under this link.")
    kind = serializers.ChoiceField(choices=SourceRow.KINDS, required=False, help_text="Of this kind.")


def sources_seen(request: Request) -> QuerySet[SourceRow]:
    """With the patient and the vendor of its link; who may see a link may see what sends through it."""
    link = Link.objects.filter(pk=OuterRef("link_id"))
    known = SourceRow.objects.annotate(
        patient_id=Subquery(link.values("patient_id")[:1]), vendor=Subquery(link.values("vendor")[:1])
    )
    return seen(known.filter(patient_id__isnull=False), user_of(request), SEE_LINKS)


EXAMPLE = {
    "id": 11,
    "patient_id": 7,
    "link_id": 11,
    "vendor": "oura",
    "name": "Oura ring",
    "kind": "ring",
    "created_at": "2026-11-01T09:33:40Z",
}


class Sources(ListView):
    """The watch and the phone under one HealthKit link are two sources."""

    operation = "list_sources"
    summary = "Sources: devices that samples come from"
    example = page_of(EXAMPLE)
    query = SourcesAsked
    shown = Source

    def found(self, request: Request, asked: Mapping[str, Any]) -> QuerySet[SourceRow]:
        found = sources_seen(request)
        if "patient_id" in asked:
            found = found.filter(link_id__in=Link.objects.filter(patient_id=asked["patient_id"]).values("pk"))
        return found.filter(**{name: asked[name] for name in ("link_id", "kind") if name in asked})


class OneSource(ApiView):
    operation = "get_source"
    summary = "One source"
    example = EXAMPLE
    shown = Source

    def get(self, request: Request, pk: int) -> Response:
        Query.of(request)
        source = get_object_or_404(sources_seen(request), pk=pk)
        note(request, source)
        return Response(Source(source).data)
