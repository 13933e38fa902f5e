"""The keys that phone uploaders show."""

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from auren.admin import BigTableAdmin, Untouched, confirmation, few_enough, log, when
from devices.models import ApiKey

PATIENTS_SHOWN = 50


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
