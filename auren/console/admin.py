"""Samples and conflicts in the admin. Registered here because both name patients and deliveries, which `biometrics`
knows only as numbers. A sample has no page of its own: the table has no index by `id`, on purpose.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from auren.admin import BigTableAdmin, TypedAdmin, Untouched, badge, exactly, when
from auren.biometrics.metrics import BY_NUMBER, METRICS, STAGE_LABELS
from auren.biometrics.models import Conflict, Sample, Source
from devices.models import Patient

MOST_DAYS = 366
PAGE = 200
METRIC_CHOICES = [(metric.number, metric.label) for metric in METRICS]


def amount(number: int, value: float) -> str:
    """A value with its unit, as the catalogue has it; a sleep stage by its name."""
    metric = BY_NUMBER.get(number)
    if metric is None:
        return f"{value:g}"
    if metric.adds == "state":
        return STAGE_LABELS.get(int(value), f"{value:g}")
    return f"{value:g} {metric.unit}"


def label(number: int) -> str:
    metric = BY_NUMBER.get(number)
    return metric.label if metric else f"metric {number}"


class SampleSearch(forms.Form):
    """Which stretch of the key to read. Everything is required: nothing less keeps the query small."""

    patient = forms.CharField(max_length=255, help_text="external id", strip=True)
    metric = forms.TypedChoiceField(choices=METRIC_CHOICES, coerce=int)
    start_at = forms.DateTimeField(label="From (UTC)", widget=forms.DateTimeInput(attrs={"type": "datetime-local"}))
    end_at = forms.DateTimeField(label="To (UTC)", widget=forms.DateTimeInput(attrs={"type": "datetime-local"}))

    def clean_patient(self) -> Patient:
        found = Patient.objects.filter(external_id=self.cleaned_data["patient"]).first()
        if found is None:
            raise ValidationError("No patient has this external id.")
        return found

    def clean(self) -> dict[str, Any]:
        found = self.cleaned_data
        if "start_at" in found and "end_at" in found:
            length = found["end_at"] - found["start_at"]
            if not timedelta(0) < length <= timedelta(days=MOST_DAYS):
                raise ValidationError(f"The range must end after it starts and be {MOST_DAYS} days or less.")
        return found

    def samples(self) -> QuerySet[Sample]:
        """Along the key: patient, metric and a bounded range, in the key's own order."""
        asked = self.cleaned_data
        found = Sample.objects.filter(
            patient_id=asked["patient"].pk,
            metric=asked["metric"],
            start_at__gte=asked["start_at"],
            start_at__lt=asked["end_at"],
        )
        return found.select_related("source").order_by("start_at", "source_id", "record")


@dataclass(frozen=True, slots=True)
class Row:
    sample: Sample
    label: str
    amount: str


@admin.register(Sample)
class SampleAdmin(Untouched, TypedAdmin[Sample]):
    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.changelist_view)
        return [path("", view, name="biometrics_sample_changelist")]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        form = SampleSearch(request.GET or None)
        found = list(form.samples()[: PAGE + 1]) if form.is_valid() else None
        context = {
            **self.admin_site.each_context(request),
            "title": "Samples",
            "opts": Sample._meta,
            "form": form,
            "page": PAGE,
            "rows": None if found is None else [_row(sample) for sample in found[:PAGE]],
            "more_from": found[PAGE - 1].start_at if found and len(found) > PAGE else None,
            **(extra_context or {}),
        }
        return TemplateResponse(request, "console/admin/samples.html", context)


def _row(sample: Sample) -> Row:
    return Row(sample, label(sample.metric), amount(sample.metric, sample.value))


class MetricFilter(admin.SimpleListFilter):
    title = "metric"
    parameter_name = "metric"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(str(number), text) for number, text in METRIC_CHOICES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:  # noqa: ARG002
        known = {str(number) for number, _ in METRIC_CHOICES}
        return queryset.filter(metric=int(self.value() or 0)) if self.value() in known else queryset


@admin.register(Conflict)
class ConflictAdmin(Untouched, BigTableAdmin[Conflict]):
    list_display = ("id", "patient", "metric_shown", "start", "end", "said", "winner", "rule", "state_shown")
    list_filter = ("state", MetricFilter)
    list_select_related = ("winner",)
    search_fields = ("patient_id",)  # shows the box; get_search_results does the work
    search_help_text = "A patient's external id, exactly as it is"
    fields = readonly_fields = (
        "patient",
        "metric_shown",
        "start",
        "end",
        "said",
        "winner",
        "rule",
        "state_shown",
        "resolved_by",
        "note",
        "updated",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conflict]:
        name = Patient.objects.filter(pk=OuterRef("patient_id")).values("external_id")[:1]
        return super().get_queryset(request).annotate(external_id=Subquery(name))

    def get_search_results(
        self,
        request: HttpRequest,  # noqa: ARG002 - Django's signature
        queryset: QuerySet[Conflict],
        search_term: str,
    ) -> tuple[QuerySet[Conflict], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        patients = list(Patient.objects.filter(external_id=term).values_list("pk", flat=True))
        return queryset.filter(patient_id__in=patients), False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response = super().changelist_view(request, extra_context)
        if isinstance(response, TemplateResponse) and response.context_data and "cl" in response.context_data:
            _name_sources(response.context_data["cl"].result_list)
        return response

    @admin.display(description="patient")
    def patient(self, conflict: Conflict) -> str:
        address = reverse("admin:devices_patient_change", args=[conflict.patient_id])
        return format_html('<a href="{}">{}</a>', address, getattr(conflict, "external_id", conflict.patient_id))

    @admin.display(description="metric", ordering="metric")
    def metric_shown(self, conflict: Conflict) -> str:
        return label(conflict.metric)

    @admin.display(description="from", ordering="start_at")
    def start(self, conflict: Conflict) -> str:
        return exactly(conflict.start_at)

    @admin.display(description="to")
    def end(self, conflict: Conflict) -> str:
        return exactly(conflict.end_at)

    @admin.display(description="updated")
    def updated(self, conflict: Conflict) -> str:
        return when(conflict.updated_at)

    @admin.display(description="who said what")
    def said(self, conflict: Conflict) -> str:
        names: dict[int, str] = getattr(conflict, "names", None) or _names([conflict])
        values = [(names.get(int(key), f"device {key}"), value) for key, value in conflict.values.items()]
        return ", ".join(f"{name}: {amount(conflict.metric, value)}" for name, value in values)

    @admin.display(description="state", ordering="state")
    def state_shown(self, conflict: Conflict) -> SafeString:
        return badge(conflict.state)


def _name_sources(conflicts: Any) -> None:
    """Look the devices of a whole page up at once, and leave their names with each conflict."""
    shown: list[Model] = list(conflicts)
    names = _names(shown)
    for conflict in shown:
        conflict.names = names  # type: ignore[attr-defined]


def _names(conflicts: list[Any]) -> dict[int, str]:
    numbers = {int(key) for conflict in conflicts for key in conflict.values}
    return dict(Source.objects.filter(pk__in=numbers).values_list("pk", "name"))
