"""The devices that samples came from: whose each is, and through which link it sends."""

from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html

from auren.admin import BigTableAdmin, Untouched, when
from auren.biometrics.models import Source
from auren.console.admin.conflicts import whose
from devices.models import Link

OF_LINK = {
    "vendor": "vendor",
    "patient_id": "patient_id",
    "display_name": "patient__display_name",
    "external_id": "patient__external_id",
    "last_delivery_at": "last_delivery_at",
}


@admin.register(Source)
class SourceAdmin(Untouched, BigTableAdmin[Source]):
    list_display = ("name", "kind", "patient", "link", "first_seen", "last_data")
    what_would_be_here = "Every ring, band, watch and phone is listed once its first sample has come."
    list_filter = ("kind",)
    search_fields = ("link_id",)  # shows the box; get_search_results does the work
    search_help_text = "A patient's external id, exactly as it is"
    change_form_template = "console/admin/named.html"
    fields = readonly_fields = list_display

    def has_view_permission(self, request: HttpRequest, obj: Source | None = None) -> bool:  # noqa: ARG002
        """Who may see a link may see which devices send through it."""
        return request.user.has_perm("devices.view_link")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Source]:
        link = Link.objects.filter(pk=OuterRef("link_id"))
        known = {name: Subquery(link.values(path)[:1]) for name, path in OF_LINK.items()}
        # Without those whose link was erased while a worker stored: they are swept up in a while.
        return super().get_queryset(request).filter(Exists(link)).annotate(**known)

    def get_search_results(
        self,
        request: HttpRequest,  # noqa: ARG002 - Django's signature
        queryset: QuerySet[Source],
        search_term: str,
    ) -> tuple[QuerySet[Source], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        return queryset.filter(link_id__in=Link.objects.filter(patient__external_id=term).values("pk")), False

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **how: Any) -> HttpResponse:
        context["subtitle"] = f"{context['original']} of {whose(context['original'])}"
        return super().render_change_form(request, context, *args, **how)

    @admin.display(description="patient")
    def patient(self, source: Any) -> str:
        address = reverse("admin:devices_patient_change", args=[source.patient_id])
        return format_html('<a href="{}">{}</a>', address, whose(source))

    @admin.display(description="link", ordering="link_id")
    def link(self, source: Any) -> str:
        vendor = dict(Link.VENDORS).get(source.vendor, source.vendor)
        return format_html('<a href="{}">{}</a>', reverse("admin:devices_link_change", args=[source.link_id]), vendor)

    @admin.display(description="first seen", ordering="id")
    def first_seen(self, source: Source) -> str:
        return when(source.created_at)

    @admin.display(description="last data through its link")
    def last_data(self, source: Any) -> str:
        return when(source.last_delivery_at, "none yet")
