"""The REST API's tokens: issued here, shown once, revoked here."""

from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.safestring import SafeString

from auren.admin import BigTableAdmin, ShownOnce, Untouched, action, acts, badge, confirmation, few_enough, log, when
from auren.audit.models import Verb
from auren.console.models import AccessToken

LONGEST_DAYS = 366
ABOUT = ("state_shown", "created", "created_by", "expires", "last_used", "revoked")


class TokenForm(forms.ModelForm):  # type: ignore[type-arg]
    days = forms.IntegerField(min_value=1, max_value=LONGEST_DAYS, help_text="How long it is good for.")

    class Meta:
        model = AccessToken
        fields = ("user", "name")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["days"].initial = settings.API_TOKEN_DAYS


@admin.register(AccessToken)
class AccessTokenAdmin(ShownOnce, Untouched, BigTableAdmin[AccessToken]):
    form = TokenForm
    list_display = ("id", "user", "name", *ABOUT[:1], *ABOUT[3:])
    list_select_related = ("user",)
    search_fields = ("=user__username", "name")
    search_help_text = "A user's name exactly, or a part of the token's"
    actions = ("revoke",)
    change_form_template = "devices/admin/key.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[AccessToken]:
        return super().get_queryset(request).defer("digest")

    def get_fields(self, request: HttpRequest, obj: AccessToken | None = None) -> tuple[str, ...]:  # noqa: ARG002
        return ("user", "name", *ABOUT) if obj else ("user", "name", "days")

    def get_readonly_fields(self, request: HttpRequest, obj: AccessToken | None = None) -> tuple[str, ...]:
        return self.get_fields(request, obj) if obj else ()

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """A token is as good as its user's password: only a superuser makes one that acts as a superuser."""
        users = User.objects.filter(is_active=True).order_by("username")
        kwargs["queryset"] = users if request.user.is_superuser else users.filter(is_superuser=False)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        return request.user.has_perm("console.add_accesstoken")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("console.change_accesstoken")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        shown = {"acts": acts(self, request), **(extra_context or {})}
        return super().change_view(request, object_id, form_url, shown)

    def save_model(self, request: HttpRequest, obj: AccessToken, form: Any, change: bool) -> None:
        obj.choose_text()
        obj.created_by = request.user.get_username()
        obj.expires_at = timezone.now() + timedelta(days=form.cleaned_data["days"])
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: AccessToken, post_url_continue: str | None = None) -> Any:  # noqa: ARG002
        """The only page that shows a token. It is the answer to a POST, so nothing keeps it."""
        context = {
            **self.admin_site.each_context(request),
            "title": "New access token",
            "opts": self.opts,
            "media": self.media,
            "token": obj,
        }
        return TemplateResponse(request, "console/admin/token.html", context, headers={"Cache-Control": "no-store"})

    @admin.display(description="state")
    def state_shown(self, token: AccessToken) -> SafeString:
        return badge(token.state)

    @admin.display(description="created", ordering="created_at")
    def created(self, token: AccessToken) -> str:
        return when(token.created_at)

    @admin.display(description="expires", ordering="expires_at")
    def expires(self, token: AccessToken) -> str:
        return when(token.expires_at)

    @admin.display(description="last used")
    def last_used(self, token: AccessToken) -> str:
        return when(token.last_used_at)

    @admin.display(description="revoked")
    def revoked(self, token: AccessToken) -> str:
        return when(token.revoked_at)

    @action("Revoke", permissions=["revoke"], danger=True)
    def revoke(self, request: HttpRequest, queryset: QuerySet[AccessToken]) -> HttpResponse | None:
        chosen = AccessToken.objects.filter(pk__in=few_enough(queryset) or []).defer("digest").order_by("-id")
        if "confirmed" not in request.POST:
            return confirmation(self, request, chosen, forms.Form(), **REVOKING)
        with transaction.atomic():
            good = list(chosen.filter(revoked_at=None).select_for_update(of=("self",)))
            AccessToken.objects.filter(pk__in=[token.pk for token in good]).update(revoked_at=timezone.now())
            log(request, good, Verb.REVOKE, "revoked")
        level = messages.SUCCESS if good else messages.WARNING
        self.message_user(request, f"{len(good)} revoked; the others had been before.", level)
        return None


REVOKING = {
    "action": "revoke",
    "title": "Revoke access tokens",
    "consequence": "Programs that show these are refused from now on, for good. A new token must be issued to go on.",
    "button": "Revoke them",
    "danger": True,
}
