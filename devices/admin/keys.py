"""The keys that phone uploaders show: issued here, shown once, replaced and revoked here."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from auren.admin import BigTableAdmin, ShownOnce, Untouched, action, acts, confirmation, few_enough, log, when
from auren.audit.models import Verb
from devices.models import ApiKey

PATIENTS_SHOWN = 50
ABOUT = ("created", "last_used", "revoked")


class Replacing(forms.Form):
    revoke = forms.BooleanField(
        required=False,
        label="Revoke the old keys at once",
        help_text="Otherwise they go on working until you revoke them, and no upload is refused in between.",
    )


HELP = {
    "owner": "Whose phone or which app will show it. It stays: batches that are sent twice are known by it.",
    "patients": "For whom it may post. A body that names no user counts for the key's one patient.",
}


@admin.register(ApiKey)
class ApiKeyAdmin(ShownOnce, Untouched, BigTableAdmin[ApiKey]):
    list_display = ("id", "owner", "patient_count", "created", "last_used", "revoked")
    what_would_be_here = "The keys with which phone uploaders post. Issue one for each phone."
    search_fields = ("owner",)
    autocomplete_fields = ("patients",)
    actions = ("rotate", "revoke")
    change_form_template = "devices/admin/key.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return super().get_queryset(request).defer("digest").annotate(number=Count("patients"))

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        if obj is None:
            return ("owner", "patients")
        return ("owner", "patients" if self.has_change_permission(request, obj) else "may_post_for", *ABOUT)

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        """The owner stays as it is: batches that are sent twice are known by it."""
        return tuple(name for name in self.get_fields(request, obj) if name != "patients") if obj else ()

    def get_form(self, request: HttpRequest, obj: ApiKey | None = None, change: bool = False, **how: Any) -> Any:
        return super().get_form(request, obj, change=change, help_texts=HELP, **how)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        return request.user.has_perm("devices.add_apikey")

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Who may post with it is changed while it is good; the sandbox's one key says so itself."""
        lasting = obj is None or not (obj.revoked_at or obj.every_sandbox_user)
        return lasting and request.user.has_perm("devices.change_apikey")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("devices.change_apikey")

    def has_rotate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perms(["devices.add_apikey", "devices.change_apikey"])

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        shown = {"acts": acts(self, request), **(extra_context or {})}
        return super().change_view(request, object_id, form_url, shown)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if not change:
            obj.choose_text()
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:  # noqa: ARG002
        return texts(self, request, [obj])

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

    @admin.action(description="Replace", permissions=["rotate"])
    def rotate(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        """A new key of the same owner for the same patients."""
        chosen = self._valid(queryset).filter(every_sandbox_user=False)
        if not chosen.exists():
            self.message_user(request, "None of these can be replaced: issue a new key instead.", messages.WARNING)
            return None
        form = Replacing(request.POST if "confirmed" in request.POST else None)
        if not form.is_valid():
            return confirmation(self, request, chosen, form, **REPLACING)
        return texts(self, request, self._replace(request, chosen, revoke=form.cleaned_data["revoke"]))

    def _replace(self, request: HttpRequest, chosen: QuerySet[ApiKey], *, revoke: bool) -> list[ApiKey]:
        with transaction.atomic():
            old = list(chosen.select_for_update())
            new = [ApiKey.issue(key.owner, *key.patients.all())[0] for key in old]
            log(request, old, Verb.REPLACE, "replaced, and revoked" if revoke else "replaced")
            log(request, new, Verb.ISSUE, "issued in place of an earlier key")
            if revoke:
                ApiKey.objects.filter(pk__in=[key.pk for key in old]).update(revoked_at=timezone.now())
        return new

    @action("Revoke", permissions=["revoke"], danger=True)
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        chosen = ApiKey.objects.filter(pk__in=few_enough(queryset) or []).defer("digest").order_by("-id")
        if "confirmed" not in request.POST:
            return confirmation(self, request, chosen, forms.Form(), **REVOKING)
        with transaction.atomic():
            valid = list(chosen.filter(revoked_at=None).select_for_update())
            ApiKey.objects.filter(pk__in=[key.pk for key in valid]).update(revoked_at=timezone.now())
            log(request, valid, Verb.REVOKE, "revoked")
        level = messages.SUCCESS if valid else messages.WARNING
        self.message_user(request, f"{len(valid)} revoked; the others had been before.", level)
        return None

    def _valid(self, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        return ApiKey.objects.filter(pk__in=few_enough(queryset) or [], revoked_at=None).defer("digest").order_by("-id")


REPLACING = {
    "action": "rotate",
    "title": "Replace keys",
    "consequence": "Each gets a successor with the same owner and the same patients, whose text is shown next.",
    "button": "Issue the new ones",
}
REVOKING: dict[str, Any] = {
    "action": "revoke",
    "title": "Revoke keys",
    "consequence": "Uploads with these keys are refused within seconds, for good. A new key must be issued to go on.",
    "button": "Revoke them",
    "danger": True,
}


def texts(page: "admin.ModelAdmin[Any]", request: HttpRequest, issued: list[ApiKey]) -> HttpResponse:
    """The only page that shows a key. It is the answer to a POST, so nothing keeps it."""
    context = {
        **page.admin_site.each_context(request),
        "title": "New key" if len(issued) == 1 else "New keys",
        "opts": page.model._meta,
        "media": page.media,
        "keys": issued,
    }
    return TemplateResponse(request, "devices/admin/keys.html", context, headers={"Cache-Control": "no-store"})
