"""Links: a patient's accounts at vendors. Their tokens are nobody's to see."""

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from auren.audit.trail import note
from auren.console.api.access import seen, user_of
from auren.console.api.asking import Listed, Number, Query
from auren.console.api.lists import ListView, page_of
from auren.console.api.views import ApiView
from devices.models import Link as LinkRow

SEE_LINKS = "devices.view_link"


class Link(serializers.ModelSerializer[LinkRow]):
    patient_id = Number()

    class Meta:
        model = LinkRow
        fields = (
            *("id", "patient_id", "vendor", "vendor_user_id", "status", "status_since", "scopes", "connected_at"),
            *("paused_at", "last_delivery_at", "last_synced_at"),
        )


class LinksAsked(Listed):
    patient_id = Number(required=False, help_text="Of this patient.")
    vendor = serializers.ChoiceField(choices=LinkRow.VENDORS, required=False, help_text="At this vendor.")
    status = serializers.ChoiceField(choices=LinkRow.STATUSES, required=False, help_text="In this state.")


def links_seen(request: Request) -> QuerySet[LinkRow]:
    return seen(LinkRow.objects.all(), user_of(request), SEE_LINKS)


EXAMPLE = {
    "id": 11,
    "patient_id": 7,
    "vendor": "oura",
    "vendor_user_id": "8f9a5221-639e-4a85-81cb-4065ef23f979",
    "status": "active",
    "status_since": "2026-11-01T09:31:12Z",
    "scopes": "daily heartrate workout",
    "connected_at": "2026-11-01T09:31:12Z",
    "paused_at": None,
    "last_delivery_at": "2026-11-24T06:58:03.120154Z",
    "last_synced_at": "2026-11-24T07:00:00Z",
}


class Links(ListView):
    """`stale` is quiet or failing but still tried, `expired` needs the patient to reconnect."""

    operation = "list_links"
    summary = "Links: patients' accounts at vendors"
    example = page_of(EXAMPLE)
    query = LinksAsked
    shown = Link

    def found(self, request: Request, asked: Mapping[str, Any]) -> QuerySet[LinkRow]:
        wanted = {name: asked[name] for name in ("patient_id", "vendor", "status") if name in asked}
        return links_seen(request).filter(**wanted)


class OneLink(ApiView):
    operation = "get_link"
    summary = "One link"
    example = EXAMPLE
    shown = Link

    def get(self, request: Request, pk: int) -> Response:
        Query.of(request)
        link = get_object_or_404(links_seen(request), pk=pk)
        note(request, link)
        return Response(Link(link).data)
