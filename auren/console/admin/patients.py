"""Patients, with their links."""

from zoneinfo import available_timezones

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from auren.admin import BigTableAdmin, when
from auren.console.admin.links import LinkInline
from devices.models import Patient


class PatientForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Patient
        fields = ("external_id", "display_name", "timezone")

    def clean_timezone(self) -> str:
        name: str = self.cleaned_data["timezone"]
        if name not in available_timezones():
            raise ValidationError(f"{name} is no IANA time zone. Use a name such as Europe/Berlin.")
        return name


@admin.register(Patient)
class PatientAdmin(BigTableAdmin[Patient]):
    form = PatientForm
    fields = ("external_id", "display_name", "timezone", "created")
    list_display = ("display_name", "external_id", "timezone", "created")
    search_fields = ("=external_id", "display_name__istartswith")
    search_help_text = "The external id exactly, or the beginning of a name"
    inlines = (LinkInline,)

    def get_readonly_fields(self, request: HttpRequest, obj: Patient | None = None) -> tuple[str, ...]:  # noqa: ARG002
        """The external id is the key of Kafka messages and of uploads: it is chosen once."""
        return ("external_id", "created") if obj else ("created",)

    @admin.display(description="created")
    def created(self, patient: Patient) -> str:
        return when(patient.created_at if patient.pk else None)

    def has_delete_permission(self, request: HttpRequest, obj: Patient | None = None) -> bool:  # noqa: ARG002
        return False  # a row less here would leave samples behind that nobody could find
