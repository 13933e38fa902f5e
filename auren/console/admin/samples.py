"""Samples in the admin. A sample has no page of its own: the table has no index by `id`, on purpose."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone

from auren.admin import TypedAdmin, Untouched
from auren.biometrics.metrics import BY_NUMBER, METRICS, STAGE_LABELS
from auren.biometrics.models import Sample
from devices.models import Patient

MOST_DAYS = 366
PAGE = 200
PRESETS = {"1": "Today", "7": "7 days", "14": "14 days"}
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

    delivery = forms.IntegerField(required=False, min_value=1, widget=forms.HiddenInput)

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
        wanted = self.cleaned_data
        found = Sample.objects.filter(
            patient_id=wanted["patient"].pk,
            metric=wanted["metric"],
            start_at__gte=wanted["start_at"],
            start_at__lt=wanted["end_at"],
        )
        if wanted["delivery"]:
            found = found.filter(delivery_id=wanted["delivery"])
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
        form = SampleSearch(asked(request.GET) or None)
        found = list(form.samples()[: PAGE + 1]) if form.is_valid() else None
        context = {
            **self.admin_site.each_context(request),
            "title": "Samples",
            "opts": Sample._meta,
            "form": form,
            "presets": PRESETS.items(),
            "page": PAGE,
            "rows": None if found is None else [_row(sample) for sample in found[:PAGE]],
            "more_from": found[PAGE - 1].start_at if found and len(found) > PAGE else None,
            **(extra_context or {}),
        }
        return TemplateResponse(request, "console/admin/samples.html", context)


def asked(query: QueryDict) -> dict[str, str]:
    """What the form was sent; a preset of so many days, today's included, in place of its dates. Days are UTC's."""
    sent = {name: str(value) for name, value in query.items()}
    if sent.get("days") in PRESETS:
        today = timezone.now().replace(hour=0, minute=0)
        start_at, end_at = today - timedelta(days=int(sent["days"]) - 1), today + timedelta(days=1)
        sent |= {"start_at": f"{start_at:%Y-%m-%dT%H:%M}", "end_at": f"{end_at:%Y-%m-%dT%H:%M}"}
    return sent


def _row(sample: Sample) -> Row:
    return Row(sample, label(sample.metric), amount(sample.metric, sample.value))
