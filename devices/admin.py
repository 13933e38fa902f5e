"""Whose device it is, for support. Tokens are registered nowhere, and of a key only its owner and its use are shown."""

from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Count, ForeignKey, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.safestring import SafeString

from auren.admin import BigTableAdmin, Untouched, badge, confirmation, exactly, few_enough, log, when
from devices.models import ApiKey, Assignment, Link, Patient

PATIENTS_SHOWN = 50


class PatientForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Patient
        fields = ("external_id", "display_name", "timezone")

    def clean_timezone(self) -> str:
        name: str = self.cleaned_data["timezone"]
        if name not in available_timezones():
            raise ValidationError(f"{name} is no IANA time zone. Use a name such as Europe/Berlin.")
        return name


class LinkInline(Untouched, admin.TabularInline):  # type: ignore[type-arg]
    model = Link
    extra = 0
    show_change_link = True
    fields = readonly_fields = ("vendor", "vendor_user_id", "state_shown", "since", "last_delivery", "paused")

    @admin.display(description="status")
    def state_shown(self, link: Link) -> SafeString:
        return badge(link.status)

    @admin.display(description="since")
    def since(self, link: Link) -> str:
        return when(link.status_since)

    @admin.display(description="last delivery")
    def last_delivery(self, link: Link) -> str:
        return when(link.last_delivery_at)

    @admin.display(description="paused")
    def paused(self, link: Link) -> str:
        return when(link.paused_at)


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


@admin.register(Link)
class LinkAdmin(Untouched, BigTableAdmin[Link]):
    list_display = ("id", "vendor", "vendor_user_id", "patient", "state_shown", "since", "last_delivery", "paused")
    list_filter = ("status", "vendor")
    list_select_related = ("patient",)
    search_fields = ("=vendor_user_id", "=patient__external_id")
    search_help_text = "A vendor's user id or a patient's external id, exactly as it is"
    fields = readonly_fields = (
        "vendor",
        "vendor_user_id",
        "patient",
        "state_shown",
        "since",
        "scopes",
        "connected",
        "last_delivery",
        "last_synced",
        "paused",
    )

    @admin.display(description="connected")
    def connected(self, link: Link) -> str:
        return when(link.connected_at)

    @admin.display(description="last synced")
    def last_synced(self, link: Link) -> str:
        return when(link.last_synced_at)

    state_shown = LinkInline.state_shown
    since = LinkInline.since
    last_delivery = LinkInline.last_delivery
    paused = LinkInline.paused


@admin.register(Assignment)
class AssignmentAdmin(BigTableAdmin[Assignment]):
    fields = ("clinician", "patient", "since", "until")
    list_display = ("clinician", "patient", "starts", "ends")
    list_select_related = ("clinician", "patient")
    search_fields = ("=clinician__username", "=patient__external_id")
    search_help_text = "A clinician's user name or a patient's external id, exactly as it is"
    autocomplete_fields = ("patient",)

    @admin.display(description="since", ordering="since")
    def starts(self, assignment: Assignment) -> str:
        return exactly(assignment.since)

    @admin.display(description="until", ordering="until")
    def ends(self, assignment: Assignment) -> str:
        return exactly(assignment.until)

    def formfield_for_foreignkey(self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "clinician":
            kwargs["queryset"] = User.objects.filter(groups__name="clinician", is_active=True).order_by("username")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"since": timezone.now(), **super().get_changeform_initial_data(request)}


@admin.register(ApiKey)
class ApiKeyAdmin(Untouched, BigTableAdmin[ApiKey]):
    list_display = ("id", "owner", "patient_count", "created", "last_used", "revoked")
    search_fields = ("owner",)
    fields = readonly_fields = ("owner", "may_post_for", "created", "last_used", "revoked")
    actions = ("revoke",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return super().get_queryset(request).defer("digest").annotate(number=Count("patients"))

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("devices.change_apikey")

    @admin.display(description="patients")
    def patient_count(self, key: ApiKey) -> str:
        return "every sandbox user" if key.every_sandbox_user else str(getattr(key, "number", 0))

    @admin.display(description="may post for")
    def may_post_for(self, key: ApiKey) -> str:
        if key.every_sandbox_user:
            return "every sandbox user"
        names = [str(patient) for patient in key.patients.order_by("external_id")[: PATIENTS_SHOWN + 1]]
        return ", ".join(names[:PATIENTS_SHOWN]) + (" and more" if len(names) > PATIENTS_SHOWN else "") or "nobody"

    @admin.display(description="created", ordering="created_at")
    def created(self, key: ApiKey) -> str:
        return when(key.created_at)

    @admin.display(description="last used")
    def last_used(self, key: ApiKey) -> str:
        return when(key.last_used_at)

    @admin.display(description="revoked")
    def revoked(self, key: ApiKey) -> str:
        return when(key.revoked_at)

    @admin.action(description="Revoke", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        chosen = ApiKey.objects.filter(pk__in=few_enough(queryset) or []).defer("digest").order_by("-id")
        if "confirmed" not in request.POST:
            return confirmation(self, request, chosen, forms.Form(), **REVOKING)
        with transaction.atomic():
            valid = list(chosen.filter(revoked_at=None).select_for_update())
            ApiKey.objects.filter(pk__in=[key.pk for key in valid]).update(revoked_at=timezone.now())
            log(request, valid, "revoked")
        level = messages.SUCCESS if valid else messages.WARNING
        self.message_user(request, f"{len(valid)} revoked; the others had been before.", level)
        return None


REVOKING = {
    "action": "revoke",
    "title": "Revoke keys",
    "consequence": "Uploads with these keys are refused within seconds, for good. A new key must be issued to go on.",
    "button": "Revoke them",
}
