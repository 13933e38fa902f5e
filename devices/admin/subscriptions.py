"""What Oura is subscribed to announce: what is missing or ends soon comes first."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Case, QuerySet, Value, When
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.safestring import SafeString

from auren.admin import BigTableAdmin, Untouched, badge, exactly, when
from auren.audit.models import Verb
from auren.audit.trail import record
from devices.models import Subscription
from devices.subscriptions import check_now, state_of, verdict


@admin.register(Subscription)
class SubscriptionAdmin(Untouched, BigTableAdmin[Subscription]):
    list_display = ("data_type", "event_type", "state_shown", "until", "error", "checked")
    what_would_be_here = "What Oura is subscribed to announce, once the scheduler has asked."
    list_display_links = None
    fields = readonly_fields = (
        *("vendor", "data_type", "event_type", "state_shown", "until", "callback_url", "vendor_id", "error", "checked"),
    )
    actions = ("check_now",)
    change_list_template = "admin/devices/subscription/change_list.html"
    list_per_page = 100

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscription]:
        """What is missing first, then what could not be mended, then what ends next."""
        troubled = Case(When(vendor_id="", then=Value(0)), When(error="", then=Value(2)), default=Value(1))
        return super().get_queryset(request).order_by(troubled, "expires_at", "data_type", "event_type")

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:  # noqa: ARG002 - Django's signature
        return ()

    def has_check_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("devices.change_subscription")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        about = {"verdict": verdict(), "may_check": self.has_check_permission(request)}
        return super().changelist_view(request, {**about, **(extra_context or {})})

    @admin.action(description="Check now", permissions=["check"])
    def check_now(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> None:
        """All of them, whatever was ticked: one look at Oura's list says it of each."""
        del queryset
        record(request, Verb.CHECK)
        check = check_now()
        done = f"Oura was asked: {check}." if str(check) else "Oura was asked: nothing had to be changed."
        if check.fault or check.problems:
            self.message_user(request, check.fault or next(iter(check.problems.values())), messages.ERROR)
        else:
            self.message_user(request, done, messages.SUCCESS)

    @admin.display(description="state")
    def state_shown(self, subscription: Subscription) -> SafeString:
        return badge(state_of(subscription, timezone.now()))

    @admin.display(description="ends")
    def until(self, subscription: Subscription) -> str:
        return exactly(subscription.expires_at)

    @admin.display(description="checked")
    def checked(self, subscription: Subscription) -> str:
        return when(subscription.checked_at)
