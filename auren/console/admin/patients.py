"""Patients, with their links, invitations and the keys that post for them."""

from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html

from auren.admin import BigTableAdmin, badge, confirmation, exactly, few_enough, when
from auren.console.admin.links import LinkInline, table
from devices.admin.invitations import VendorForm, invite
from devices.models import Patient

SHOWN = 10


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
    what_would_be_here = "The people whose devices send: an admin adds them, support invites them to connect one."
    actions = ("invite",)
    list_display = ("display_name", "external_id", "timezone", "created")
    search_fields = ("=external_id", "display_name__istartswith")
    search_help_text = "The external id exactly, or the beginning of a name"
    inlines = (LinkInline,)

    class Media:
        css = {"all": ["console/link_admin.css"]}

    def get_fields(self, request: HttpRequest, obj: Patient | None = None) -> tuple[str, ...]:  # noqa: ARG002
        about = ("external_id", "display_name", "timezone", "created")
        return (*about, "invitations", "keys") if obj else about

    def get_readonly_fields(self, request: HttpRequest, obj: Patient | None = None) -> tuple[str, ...]:  # noqa: ARG002
        """The external id is the key of Kafka messages and of uploads: it is chosen once."""
        return ("external_id", "created", "invitations", "keys") if obj else ("created",)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        may = {
            "may_invite": self.has_invite_permission(request),
            "may_export": request.user.has_perm("console.export_samples"),
            "may_erase": request.user.has_perm("devices.add_erasure"),
        }
        return super().change_view(request, object_id, form_url, {**may, **(extra_context or {})})

    def has_invite_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("devices.add_invitation")

    @admin.action(description="Invite to connect a device", permissions=["invite"])
    def invite(self, request: HttpRequest, queryset: QuerySet[Patient]) -> HttpResponse:
        chosen = Patient.objects.filter(pk__in=few_enough(queryset) or []).order_by("-id")
        form = VendorForm(request.POST if "confirmed" in request.POST else None)
        if not form.is_valid():
            return confirmation(self, request, chosen, form, **INVITING)
        vendor = form.cleaned_data["vendor"]
        return invite(self, request, [(patient, vendor) for patient in chosen])

    @admin.display(description="invitations")
    def invitations(self, patient: Patient) -> str:
        rows = [
            (one.get_vendor_display(), badge(one.state), when(one.created_at), one.created_by, exactly(one.expires_at))
            for one in patient.invitations.order_by("-id")[:SHOWN]
        ]
        return table(("To connect", "State", "Made", "By", "Open until"), rows) if rows else "none yet"

    @admin.display(description="phone keys")
    def keys(self, patient: Patient) -> str:
        rows = [
            (
                format_html('<a href="{}">{}</a>', reverse("admin:devices_apikey_change", args=[key.pk]), key.owner),
                badge("revoked" if key.revoked_at else "active"),
                when(key.last_used_at),
            )
            for key in patient.api_keys.defer("digest").order_by("-id")[:SHOWN]
        ]
        return table(("Owner", "State", "Last used"), rows) if rows else "no phone may post for this patient"

    @admin.display(description="created")
    def created(self, patient: Patient) -> str:
        return when(patient.created_at if patient.pk else None)

    def has_delete_permission(self, request: HttpRequest, obj: Patient | None = None) -> bool:  # noqa: ARG002
        return False  # a row less here would leave samples behind that nobody could find


INVITING = {
    "action": "invite",
    "title": "Invite to connect a device",
    "consequence": "Makes an address for each patient, which is shown once for you to send. The patient opens it, says "
    "at the vendor what to share, and is connected.",
    "button": "Make the invitation",
}
