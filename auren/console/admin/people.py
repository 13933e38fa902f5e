"""Accounts and roles, in the look of the rest. Who may do what to them is Django's business, and a superuser's."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from auren.admin import Audited, action, acts, back_to, confirmation, few_enough, when
from auren.audit.models import Verb
from auren.audit.trail import record
from auren.console import second_factor
from auren.console.throttle import account_of

admin.site.unregister([User, Group])


@admin.register(User)
class PersonAdmin(Audited, UserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]  # unfold has no types
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "first_name", "last_name", "is_staff", "has_second_factor")
    list_filter = ("groups", "is_staff", "is_active")
    list_select_related = ("second_factor",)
    readonly_fields = ("second_factor_shown",)
    what_would_be_here = "Everybody who can sign in."
    actions = ("unlock", "reset_second_factor")
    change_form_template = "console/admin/person.html"

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        shown = super().get_fieldsets(request, obj)
        return [*shown, ("Signing in", {"fields": ("second_factor_shown",)})] if obj else shown

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        shown = {"acts": [act for act in acts(self, request) if act["name"] in self.actions], **(extra_context or {})}
        page: HttpResponse = super().change_view(request, object_id, form_url, shown)
        return page

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002
        with transaction.atomic():
            page: HttpResponse = super().user_change_password(request, id, form_url)
            if request.method == "POST" and page.status_code == FOUND:
                record(request, Verb.PASSWORD, User.objects.get(pk=id))
        return page

    def has_unlock_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("console.unlock_account")

    def has_reset_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("console.reset_second_factor")

    @action("Unlock", permissions=["unlock"])
    def unlock(self, request: HttpRequest, queryset: QuerySet[User]) -> HttpResponse | None:
        """After too many wrong passwords or codes: the next one is looked at."""
        chosen = list(User.objects.filter(pk__in=few_enough(queryset) or []))
        with transaction.atomic():
            for user in chosen:
                second_factor.relax(user)
                record(request, Verb.UNLOCK, user, account=account_of(user.get_username()))
        self.message_user(request, f"{len(chosen)} unlocked: they can try again at once.", messages.SUCCESS)
        return back_to(chosen)

    @action("Reset the second factor", permissions=["reset"], danger=True)
    def reset_second_factor(self, request: HttpRequest, queryset: QuerySet[User]) -> HttpResponse | None:
        """A superuser's is reset by superusers alone: whoever could do it would be half way into that account."""
        chosen = User.objects.filter(pk__in=few_enough(queryset) or []).order_by("pk")
        if not request.user.is_superuser and chosen.filter(is_superuser=True).exists():
            self.message_user(request, "Only a superuser resets a superuser's second factor.", messages.ERROR)
            return None
        if "confirmed" not in request.POST:
            return confirmation(self, request, chosen, forms.Form(), **RESETTING)
        with transaction.atomic():
            done = [user for user in chosen if second_factor.reset(user)]
            for user in done:
                record(request, Verb.RESET, user)
        level = messages.SUCCESS if done else messages.WARNING
        self.message_user(request, f"{len(done)} reset; the others had none.", level)
        return back_to(list(chosen))

    @admin.display(description="second factor", boolean=True)
    def has_second_factor(self, user: User) -> bool:
        return hasattr(user, "second_factor")

    @admin.display(description="second factor")
    def second_factor_shown(self, user: User) -> str:
        factor = second_factor.factor_of(user)
        return when(factor.created_at if factor else None, "not set up")


FOUND = 302
RESETTING: dict[str, Any] = {
    "action": "reset_second_factor",
    "title": "Reset second factors",
    "consequence": "Their authenticator app and recovery codes are no longer taken, and they are signed out. At the "
    "next sign-in, the password alone leads to setting up a new one: make sure that it is they who ask for this.",
    "button": "Reset them",
    "danger": True,
}


@admin.register(Group)
class RoleAdmin(Audited, GroupAdmin, ModelAdmin):  # type: ignore[misc]  # likewise
    what_would_be_here = "The roles, as `auren/console/roles.py` defines them."
