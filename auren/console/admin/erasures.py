"""Erasing a patient, behind a confirmation that has to be typed, and the records of those who were erased."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from auren.admin import MOST_COUNTED, BigTableAdmin, Untouched, when
from devices.models import Erasure, Patient
from webhooks.erasure import NothingToErase, erase
from webhooks.models import Delivery


class Confirmation(forms.Form):
    """Whoever types the external id has looked at whom they erase."""

    external_id = forms.CharField(
        label="External id", max_length=255, strip=True, help_text="Type the patient's external id to confirm."
    )
    reason = forms.CharField(
        max_length=500, help_text="Stays in the record for good: write no name and nothing about health."
    )

    def __init__(self, patient: Patient, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.patient = patient
        self.fields["external_id"].widget.attrs["autocomplete"] = "off"

    def clean_external_id(self) -> str:
        typed: str = self.cleaned_data["external_id"]
        if typed != self.patient.external_id:
            raise ValidationError("This is not the external id of this patient. Nothing was erased.")
        return typed


@admin.register(Erasure)
class ErasureAdmin(Untouched, BigTableAdmin[Erasure]):
    list_display = ("id", "external_id", "erased", "requested_by", "reason", "told")
    what_would_be_here = "For each patient who was erased: when, by whom and why."
    search_fields = ("=external_id",)
    search_help_text = "An external id, exactly as it was"
    fields = readonly_fields = ("external_id", "erased", "requested_by", "reason", "counts", "told")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.erase_view)
        return [path("patient/<int:patient_id>/", view, name="devices_erasure_erase_patient"), *super().get_urls()]

    def has_erase_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("devices.add_erasure")

    def erase_view(self, request: HttpRequest, patient_id: int) -> HttpResponse:
        if not self.has_erase_permission(request):
            raise PermissionDenied
        patient = Patient.objects.filter(pk=patient_id).first()
        if patient is None:
            return self._nobody(request, "There is no such patient, or not any more.")
        form = Confirmation(patient, request.POST or None)
        if not form.is_valid():
            return TemplateResponse(request, "console/admin/erase.html", self._page(request, patient, form))
        try:
            record = erase(patient, by=request.user.get_username(), reason=form.cleaned_data["reason"], who=request)
        except NothingToErase as error:
            return self._nobody(request, str(error))
        self.message_user(request, f"The patient {record.external_id} was erased.", messages.SUCCESS)
        return redirect("admin:devices_erasure_change", record.pk)

    def _nobody(self, request: HttpRequest, why: str) -> HttpResponse:
        self.message_user(request, why, messages.WARNING)
        return redirect("admin:index")

    def _page(self, request: HttpRequest, patient: Patient, form: Confirmation) -> dict[str, Any]:
        return {
            **self.admin_site.each_context(request),
            "title": "Erase a patient",
            "opts": Patient._meta,
            "patient": patient,
            "of": patient,
            "links": list(patient.links.order_by("vendor", "pk")),
            "deliveries": Delivery.objects.filter(link__patient=patient)[:MOST_COUNTED].count(),
            "most": MOST_COUNTED,
            "form": form,
            "media": self.media,
        }

    @admin.display(description="erased", ordering="erased_at")
    def erased(self, erasure: Erasure) -> str:
        return when(erasure.erased_at)

    @admin.display(description="rows removed")
    def counts(self, erasure: Erasure) -> str:
        return ", ".join(f"{table} {count:,}" for table, count in sorted(erasure.removed.items())) or "none"

    @admin.display(description="told to Kafka by")
    def told(self, erasure: Erasure) -> str:
        if erasure.delivery_id is None:
            return "-"
        address = reverse("admin:webhooks_delivery_change", args=[erasure.delivery_id])
        return format_html('<a href="{}">delivery {}</a>', address, erasure.delivery_id)
