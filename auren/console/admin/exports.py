"""Who exported what, and when. The files are for those who asked; here is only that it was done."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from auren.admin import BigTableAdmin, Untouched, badge, exactly, when
from auren.console.models import Export


@admin.register(Export)
class ExportAdmin(Untouched, BigTableAdmin[Export]):
    list_display = ("id", "patient_shown", "requested_by", "requested", "range", "format", "state_shown", "downloads")
    list_filter = ("state", "format")
    list_select_related = ("patient",)
    search_fields = ("=patient__external_id", "=requested_by")
    search_help_text = "A patient's external id, or the name of who asked, exactly"
    fields = readonly_fields = (
        "patient_shown",
        "requested_by",
        "requested",
        "range",
        "format",
        "what",
        "state_shown",
        "error",
        "samples",
        "file_size",
        "finished",
        "expires",
        "downloads",
        "downloaded",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Export]:
        return super().get_queryset(request).select_related("patient")

    @admin.display(description="patient")
    def patient_shown(self, export: Export) -> SafeString:
        address = reverse("admin:devices_patient_change", args=[export.patient_id])
        return format_html('<a href="{}">{}</a>', address, export.patient)

    @admin.display(description="requested", ordering="id")
    def requested(self, export: Export) -> str:
        return when(export.requested_at)

    @admin.display(description="range")
    def range(self, export: Export) -> SafeString:
        return format_html("{} to<br>{}", exactly(export.start_at), exactly(export.end_at))

    @admin.display(description="what")
    def what(self, export: Export) -> str:
        sources = "every device" if export.every_source else "what the timeline counts"
        return f"{', '.join(export.labels) or 'all metrics'}; {sources}"

    @admin.display(description="state", ordering="state")
    def state_shown(self, export: Export) -> SafeString:
        return badge(export.state)

    @admin.display(description="samples read")
    def samples(self, export: Export) -> str:
        total = "?" if export.samples_total is None else f"{export.samples_total:,}"
        return f"{export.samples_done:,} of {total}"

    @admin.display(description="size")
    def file_size(self, export: Export) -> str:
        return "made at each download" if export.direct else filesizeformat(export.size)

    @admin.display(description="finished")
    def finished(self, export: Export) -> str:
        return when(export.finished_at)

    @admin.display(description="expires")
    def expires(self, export: Export) -> str:
        return exactly(export.expires_at)

    @admin.display(description="last download")
    def downloaded(self, export: Export) -> str:
        return when(export.downloaded_at, "never")
