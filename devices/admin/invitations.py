"""What patients are sent to connect a device: made here, shown once, withdrawn here."""

from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.safestring import SafeString

from auren.admin import BigTableAdmin, ShownOnce, Untouched, action, badge, confirmation, exactly, few_enough, log, when
from auren.audit.models import Verb
from devices.connect import address_of
from devices.models import Invitation, Patient

STATES = ("open", "used", "expired", "revoked")


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(state, state.capitalize()) for state in STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Invitation]) -> QuerySet[Invitation]:  # noqa: ARG002
        return queryset.filter(in_state(self.value() or "")) if self.value() in STATES else queryset


def in_state(state: str) -> Q:
    """What `Invitation.state` calls so, for the database."""
    used, revoked, over = Q(used_at=None), Q(revoked_at=None), Q(expires_at__lte=timezone.now())
    return {
        "open": used & revoked & ~over,
        "used": ~used,
        "revoked": used & ~revoked,
        "expired": used & revoked & over,
    }[state]


class VendorForm(forms.Form):
    vendor = forms.ChoiceField(choices=Invitation.VENDORS, widget=forms.RadioSelect, label="To connect")


@admin.register(Invitation)
class InvitationAdmin(ShownOnce, Untouched, BigTableAdmin[Invitation]):
    list_display = ("id", "patient", "vendor", "state_shown", "created", "created_by", "expires", "used")
    what_would_be_here = "What patients were sent to connect a device, and whether they have used it."
    list_filter = (StateFilter, "vendor")
    list_select_related = ("patient",)
    search_fields = ("=patient__external_id",)
    search_help_text = "A patient's external id, exactly as it is"
    autocomplete_fields = ("patient",)
    actions = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: Invitation | None = None) -> Any:  # noqa: ARG002
        return SHOWN if obj else ("patient", "vendor")

    def get_readonly_fields(self, request: HttpRequest, obj: Invitation | None = None) -> Any:  # noqa: ARG002
        return SHOWN if obj else ()

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return request.user.has_perm("devices.add_invitation")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("devices.change_invitation")

    def save_model(self, request: HttpRequest, obj: Invitation, form: Any, change: bool) -> None:  # noqa: ARG002
        issued = Invitation.issue(obj.patient, obj.vendor, by=request.user.get_username())
        obj.pk, obj.expires_at = issued.pk, issued.expires_at

    def response_add(self, request: HttpRequest, obj: Invitation, post_url_continue: str | None = None) -> HttpResponse:  # noqa: ARG002
        return addresses(self, request, [obj])

    @action("Withdraw", permissions=["revoke"], danger=True)
    def revoke(self, request: HttpRequest, queryset: QuerySet[Invitation]) -> HttpResponse | None:
        chosen = Invitation.objects.filter(pk__in=few_enough(queryset) or []).order_by("-id")
        if "confirmed" not in request.POST:
            return confirmation(self, request, chosen, forms.Form(), **WITHDRAWING)
        with transaction.atomic():
            valid = list(chosen.filter(in_state("open")).select_for_update())
            Invitation.objects.filter(pk__in=[one.pk for one in valid]).update(revoked_at=timezone.now())
            log(request, valid, Verb.WITHDRAW, "withdrawn")
        level = messages.SUCCESS if valid else messages.WARNING
        self.message_user(request, f"{len(valid)} withdrawn; the others were not open any more.", level)
        return None

    @admin.display(description="state")
    def state_shown(self, invitation: Invitation) -> SafeString:
        return badge(invitation.state)

    @admin.display(description="made", ordering="id")
    def created(self, invitation: Invitation) -> str:
        return when(invitation.created_at)

    @admin.display(description="open until")
    def expires(self, invitation: Invitation) -> str:
        return exactly(invitation.expires_at)

    @admin.display(description="used")
    def used(self, invitation: Invitation) -> str:
        return when(invitation.used_at)

    @admin.display(description="withdrawn")
    def revoked(self, invitation: Invitation) -> str:
        return when(invitation.revoked_at)


SHOWN = ("patient", "vendor", "state_shown", "created", "created_by", "expires", "used", "link", "revoked")
WITHDRAWING: dict[str, Any] = {
    "action": "revoke",
    "title": "Withdraw invitations",
    "consequence": "Their addresses stop working at once. What was connected with one before stays connected.",
    "button": "Withdraw them",
    "danger": True,
}


def invite(page: "admin.ModelAdmin[Any]", request: HttpRequest, wanted: Iterable[tuple[Patient, str]]) -> HttpResponse:
    """Make an invitation for each patient and vendor, log it, and show the addresses."""
    by = request.user.get_username()
    with transaction.atomic():
        made = [Invitation.issue(patient, vendor, by=by) for patient, vendor in wanted]
        for one in made:
            log(request, [one.patient], Verb.INVITE, f"invited to connect {one.get_vendor_display()}")
    return addresses(page, request, made)


def addresses(page: "admin.ModelAdmin[Any]", request: HttpRequest, made: list[Invitation]) -> HttpResponse:
    """The only page that shows an invitation's address. It is the answer to a POST, so nothing keeps it."""
    context = {
        **page.admin_site.each_context(request),
        "title": "Invitation" if len(made) == 1 else "Invitations",
        "opts": page.model._meta,
        "media": page.media,
        "rows": [(one, address_of(request, one)) for one in made],
    }
    return TemplateResponse(request, "devices/admin/addresses.html", context, headers={"Cache-Control": "no-store"})
