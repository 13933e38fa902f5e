"""A link's page answers "why is there no data?", and offers what mends it."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from auren.admin import (
    BigTableAdmin,
    TabularInline,
    Untouched,
    action,
    acts,
    back_to,
    badge,
    confirmation,
    exactly,
    few_enough,
    when,
)
from auren.audit.models import Verb
from auren.audit.trail import record
from auren.biometrics.models import Source
from auren.console.admin.link_actions import (
    BACKFILLING,
    DISCONNECTING,
    LONGEST_LOG,
    MOST_DISCONNECTED,
    TO_DO,
    Days,
    end,
    filed,
    pause,
    resume,
    why_not,
)
from auren.console.diagnosis import Diagnosis
from devices.admin.invitations import invite
from devices.models import Link, Sync
from devices.oauth import VENDORS
from devices.vendors.registry import VENDORS as REGISTERED
from webhooks.backfill import file_backfill, file_windows, progress_of


class LinkInline(Untouched, TabularInline):  # type: ignore[type-arg]
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
        return when(link.last_delivery_at, "none yet")

    @admin.display(description="paused")
    def paused(self, link: Link) -> str:
        return when(link.paused_at, "no")


@admin.register(Link)
class LinkAdmin(Untouched, BigTableAdmin[Link]):
    list_display = ("id", "vendor", "vendor_user_id", "patient", "state_shown", "since", "last_delivery", "paused")
    what_would_be_here = "Each account at Oura or WHOOP that a patient has connected, and each phone that posts."
    list_filter = ("status", "vendor")
    list_select_related = ("patient",)
    search_fields = ("=vendor_user_id", "=patient__external_id")
    search_help_text = "A vendor's user id or a patient's external id, exactly as it is"
    actions = ("sync_now", "backfill", "invite", "pause", "resume", "disconnect")

    class Media:
        css = {"all": ["console/link_admin.css"]}

    def get_fieldsets(self, request: HttpRequest, obj: Link | None = None) -> Any:  # noqa: ARG002
        shown: list[tuple[str | None, dict[str, tuple[str, ...]]]] = [(None, {"fields": ABOUT})]
        if obj is not None and obj.vendor in VENDORS:
            shown += [("What the patient allowed", {"fields": ALLOWED}), ("What is asked for", {"fields": ASKED})]
        return [*shown, ("The last deliveries", {"fields": CAME})]

    def get_readonly_fields(self, request: HttpRequest, obj: Link | None = None) -> Any:
        return [name for _, options in self.get_fieldsets(request, obj) for name in options["fields"]]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Link | None:
        """With one `Diagnosis` for the whole page."""
        link = super().get_object(request, object_id, from_field)
        if link is not None:
            link.diagnosis = Diagnosis(link)  # type: ignore[attr-defined]
        return link

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = super().change_view(request, object_id, form_url, extra_context)
        context = getattr(response, "context_data", None)
        if context and context.get("original"):
            link = context["original"]
            context |= {"findings": link.diagnosis.findings, "acts": self._acts(request, link)}
        return response

    def _acts(self, request: HttpRequest, link: Link) -> list[dict[str, Any]]:
        return [act for act in acts(self, request) if not why_not(act["name"], link)]

    def has_sync_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("devices.sync_link")

    def has_pause_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("devices.pause_link")

    def has_disconnect_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("devices.disconnect_link")

    def has_invite_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("devices.add_invitation")

    @admin.action(description="Sync now", permissions=["sync"])
    def sync_now(self, request: HttpRequest, queryset: QuerySet[Link]) -> HttpResponse | None:
        """Lists that end at this moment, so that the same may be asked again a minute later."""
        now = timezone.now()
        start_at = now - timedelta(days=settings.RECENT_DAYS)
        return self._each(
            request,
            "sync_now",
            queryset,
            lambda link: (
                f"asked for the last {settings.RECENT_DAYS} days in "
                f"{file_windows(link, start_at, now, origin='poll')} lists"
            ),
        )

    @admin.action(description="Fetch history", permissions=["sync"])
    def backfill(self, request: HttpRequest, queryset: QuerySet[Link]) -> HttpResponse | None:
        form = Days(request.POST if "confirmed" in request.POST else None, initial={"days": settings.BACKFILL_DAYS})
        if not form.is_valid():
            return confirmation(self, request, self._chosen(queryset), form, **BACKFILLING)
        days = form.cleaned_data["days"]
        return self._each(request, "backfill", queryset, lambda link: filed(file_backfill(link, days=days), days))

    @admin.action(description="Reconnect invitation", permissions=["invite"])
    def invite(self, request: HttpRequest, queryset: QuerySet[Link]) -> HttpResponse | None:
        wanted = [link for link in self._chosen(queryset) if not why_not("invite", link)]
        if wanted:
            return invite(self, request, [(link.patient, link.vendor) for link in wanted])
        self.message_user(request, "Phones are not invited: they post with an API key.", messages.WARNING)
        return None

    @admin.action(description="Pause", permissions=["pause"])
    def pause(self, request: HttpRequest, queryset: QuerySet[Link]) -> HttpResponse | None:
        return self._each(request, "pause", queryset, pause)

    @admin.action(description="Resume", permissions=["pause"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Link]) -> HttpResponse | None:
        return self._each(request, "resume", queryset, resume)

    @action("Disconnect", permissions=["disconnect"], danger=True)
    def disconnect(self, request: HttpRequest, queryset: QuerySet[Link]) -> HttpResponse | None:
        chosen = self._chosen(queryset)
        if chosen.count() > MOST_DISCONNECTED:
            text = f"That is more than {MOST_DISCONNECTED} links at once: each vendor is asked while you wait."
            self.message_user(request, text, messages.ERROR)
            return None
        if "confirmed" not in request.POST:
            return confirmation(self, request, chosen, forms.Form(), **DISCONNECTING)
        return self._each(request, "disconnect", queryset, end, atomic=False)

    def _chosen(self, queryset: QuerySet[Link]) -> QuerySet[Link]:
        """What was ticked, free of the list's own filters, which the action itself may make untrue."""
        return Link.objects.filter(pk__in=few_enough(queryset) or []).select_related("patient").order_by("-id")

    def _each(
        self,
        request: HttpRequest,
        action: str,
        queryset: QuerySet[Link],
        act: Callable[[Link], str],
        *,
        atomic: bool = True,
    ) -> HttpResponse | None:
        """Do it to each that it makes sense for, log it, and say of each what was done or why not."""
        links = list(self._chosen(queryset))
        if not links:
            self.message_user(request, "That is too many links at once. Narrow the list first.", messages.ERROR)
        for link in links:
            reason = why_not(action, link)
            if reason:
                self.message_user(request, f"{link}: left as it was, {reason}.", messages.WARNING)
                continue
            done = self._logged(request, action, link, act, atomic=atomic)
            self.message_user(request, f"{link}: {done}.", messages.WARNING if TO_DO in done else messages.SUCCESS)
        return back_to(links)

    def _logged(
        self, request: HttpRequest, action: str, link: Link, act: Callable[[Link], str], *, atomic: bool
    ) -> str:
        """Do it and log it. What asks a vendor is no single transaction: it is logged first, and nothing gets lost."""
        verb = VERBS[action]
        with transaction.atomic() if atomic else nullcontext():
            record(request, verb, link)
            done = act(link)
            LogEntry.objects.log_actions(request.user.pk, [link], CHANGE, done[:LONGEST_LOG])  # type: ignore[arg-type]
        return done

    @admin.display(description="patient")
    def patient_shown(self, link: Link) -> str:
        address = reverse("admin:devices_patient_change", args=[link.patient_id])
        return format_html('<a href="{}">{}</a> {}', address, link.patient, link.patient.external_id)

    @admin.display(description="status")
    def status_shown(self, link: Link) -> str:
        return format_html("{} {}", badge(link.status), when(link.status_since))

    @admin.display(description="connected")
    def connected(self, link: Link) -> str:
        return when(link.connected_at)

    @admin.display(description="last data")
    def last_data(self, link: Link) -> str:
        return when(link.last_delivery_at, "none yet")

    @admin.display(description="last webhook")
    def last_webhook(self, link: Link) -> str:
        return when(of(link).last_webhook_at, "none yet")

    @admin.display(description="last synced")
    def last_synced(self, link: Link) -> str:
        return when(link.last_synced_at, "not yet")

    @admin.display(description="waiting for the link")
    def waiting(self, link: Link) -> str:
        return f"{of(link).waiting:,} deliveries"

    @admin.display(description="devices")
    def devices(self, link: Link) -> str:
        rows = [
            (format_html('<a href="{}">{}</a>', reverse("admin:biometrics_source_change", args=[one.pk]), one.name),)
            for one in Source.objects.filter(link_id=link.pk).order_by("name")
        ]
        return format_html_join(", ", "{}", rows) or "none has sent a sample yet"

    @admin.display(description="scopes")
    def scopes_shown(self, link: Link) -> str:
        return scope_table(link)

    @admin.display(description="token")
    def token_shown(self, link: Link) -> str:
        token = of(link).token
        if token is None:
            return "none is stored"
        over = "ended" if token.expires_at <= timezone.now() else "good until"
        return (
            f"{over} {exactly(token.expires_at)}; refreshed by itself while {of(link).vendor} takes the refresh token"
        )

    @admin.display(description="issued by")
    def issued_by(self, link: Link) -> str:
        token = of(link).token
        return token.issued_by if token else "no token is stored"

    @admin.display(description="circuit breaker")
    def breaker(self, link: Link) -> str:
        outage = of(link).outage
        if outage is None:
            return "closed: the vendor is asked"
        return format_html("{} since {}", badge("open"), when(outage.opened_at))

    @admin.display(description="webhook subscriptions")
    def subscriptions(self, link: Link) -> str:
        if link.vendor == "whoop":
            return "made by hand in WHOOP's developer dashboard"
        lacking = ", ".join(str(one) for one in of(link).missing_subscriptions)
        return f"missing: {lacking}" if lacking else "none is known to be missing"

    @admin.display(description="by kind of data")
    def syncs(self, link: Link) -> str:
        rows = [(sync.kind, when(sync.synced_at, "not yet"), *polling(link, sync)) for sync in of(link).syncs]
        return table(("Kind", "Last answered for", "Last polled", "Asked again"), rows)

    @admin.display(description="history")
    def history(self, link: Link) -> str:
        return str(progress_of([link]))

    @admin.display(description="deliveries")
    def deliveries(self, link: Link) -> str:
        shown = of(link).deliveries
        rows = [
            (
                at_delivery(one.pk),
                one.event_type,
                one.origin,
                badge(one.state),
                one.error or "none",
                when(one.received_at),
            )
            for one in shown
        ]
        return table(("", "Event", "Origin", "State", "Error", "Received"), rows) if rows else "none yet"

    state_shown = LinkInline.state_shown
    since = LinkInline.since
    last_delivery = LinkInline.last_delivery
    paused = LinkInline.paused


VERBS = {
    "sync_now": Verb.SYNC,
    "backfill": Verb.BACKFILL,
    "pause": Verb.PAUSE,
    "resume": Verb.RESUME,
    "disconnect": Verb.DISCONNECT,
}
ABOUT = (
    *("vendor", "vendor_user_id", "patient_shown", "status_shown", "paused", "connected"),
    *("devices", "last_data", "last_webhook", "last_synced", "waiting"),
)
ALLOWED = ("scopes_shown", "token_shown", "issued_by")
ASKED = ("breaker", "subscriptions", "history", "syncs")
CAME = ("deliveries",)


def of(link: Link) -> Diagnosis:
    diagnosis: Diagnosis = link.diagnosis  # type: ignore[attr-defined]
    return diagnosis


def polling(link: Link, sync: Sync) -> tuple[str, str]:
    """When a kind of document was last polled, and when it will be; most are announced and need none."""
    seconds = {kind: seconds for kind, seconds, _ in REGISTERED[link.vendor].polled}.get(sync.kind)
    if seconds is None:
        return "not polled", "when a webhook announces it"
    last = when(sync.polled_at, "not yet")
    if link.paused_at or link.status not in {"active", "stale"}:
        return last, f"not while the link is {'paused' if link.paused_at else link.status}"
    due_at = (sync.polled_at or link.connected_at) + timedelta(seconds=seconds)
    return last, f"every {seconds // 60} minutes, next at {exactly(due_at)}"


def scope_table(link: Link) -> str:
    """Granted against needed, the missing ones first."""
    if not link.scopes:
        return "not recorded"
    facts = VENDORS[link.vendor]
    missing = facts.missing(link.scopes)
    rows = [(badge("missing"), scope.name, scope.carries or "the connection itself") for scope in missing]
    rows += [
        (badge("granted"), scope.name, scope.carries or "the connection itself")
        for scope in facts.scopes
        if scope not in missing
    ]
    return table(("", "Scope", "What it carries"), rows)


def at_delivery(number: int) -> str:
    return format_html('<a href="{}">{}</a>', reverse("admin:webhooks_delivery_change", args=[number]), number)


def table(names: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = format_html_join("", '<th scope="col">{}</th>', ((name,) for name in names))
    lines = [format_html("<tr>{}</tr>", format_html_join("", "<td>{}</td>", ((cell,) for cell in row))) for row in rows]
    body = format_html_join("", "{}", ((line,) for line in lines))
    return format_html(
        '<div class="facts"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>', head, body
    )
