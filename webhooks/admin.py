"""Support's view of deliveries: what is stuck, why, what it carried, and the two things one can do about it."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from auren.admin import (
    MOST_AT_ONCE,
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
    log,
    when,
)
from devices.models import Link
from webhooks import actions
from webhooks.filters import AgeFilter, ErrorFilter, EventFilter, PatientFilter, StuckFilter
from webhooks.models import Attempt, Delivery

SHOWN_CHARACTERS = 64 * 1024
PRETTIEST_BYTES = 1024 * 1024  # beyond this, parsing to indent costs more than it shows
LIST_ERROR_CHARACTERS = 80
BULKY = ("body", "document", "headers", "outbox", "refused")
LARGEST_KEY = 2**63 - 1


class AttemptInline(Untouched, TabularInline):  # type: ignore[type-arg]
    model = Attempt
    extra = 0
    verbose_name_plural = "attempts"
    empty_value_display = "none"
    fields = readonly_fields = ("number", "stage", "outcome", "started", "duration", "error_class", "message")

    @admin.display(description="started")
    def started(self, attempt: Attempt) -> str:
        return when(attempt.started_at)

    @admin.display(description="duration")
    def duration(self, attempt: Attempt) -> str:
        return f"{attempt.duration_ms:,} ms"


class Reason(forms.Form):
    reason = forms.CharField(max_length=500, help_text="Stays on the delivery and in the log.")


@admin.register(Delivery)
class DeliveryAdmin(Untouched, BigTableAdmin[Delivery]):
    list_display = (
        "id",
        "vendor",
        "event_type",
        "state_shown",
        "error_shown",
        "received",
        "whose",
        "attempts",
        "sample_count",
        "origin",
    )
    what_would_be_here = "Each webhook, poll and list that comes in stands here from the moment it is promised."
    list_filter = ("state", StuckFilter, "vendor", EventFilter, AgeFilter, ErrorFilter, PatientFilter, "origin")
    list_filter_submit = True
    list_select_related = ("link__patient",)
    search_fields = ("id",)  # shows the box; get_search_results does the work
    search_help_text = "A delivery's number, a vendor's user id, or an object id: exactly as it is"
    actions = ("retry", "ignore")
    inlines = (AttemptInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        return super().get_queryset(request).defer(*BULKY)

    def get_fieldsets(self, request: HttpRequest, obj: Delivery | None = None) -> Any:  # noqa: ARG002
        shown = [(None, {"fields": ABOUT}), ("Times", {"fields": TIMES}), ("Outcome", {"fields": OUTCOME})]
        if self.has_view_payload_permission(request):
            shown.append(("What it carried (health data)", {"fields": CARRIED}))
        return shown

    def get_readonly_fields(self, request: HttpRequest, obj: Delivery | None = None) -> Any:
        return [name for _, options in self.get_fieldsets(request, obj) for name in options["fields"]]

    def get_search_results(
        self,
        request: HttpRequest,  # noqa: ARG002 - Django's signature
        queryset: QuerySet[Delivery],
        search_term: str,
    ) -> tuple[QuerySet[Delivery], bool]:
        """Exact matches along indexes. Object ids have none: they are looked for where nothing else matched."""
        term = search_term.strip()
        if not term:
            return queryset, False
        links = Link.objects.filter(vendor_user_id=term).values_list("pk", flat=True)
        known = Q(link__in=list(links)) | Q(link=None, vendor_user_id=term)
        if term.isascii() and term.isdigit() and int(term) <= LARGEST_KEY:
            known |= Q(pk=int(term))
        found = queryset.filter(known)
        return (found if found.exists() else queryset.filter(object_id=term)), False

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        shown = {"acts": acts(self, request), **(extra_context or {})}
        return super().change_view(request, object_id, form_url, shown)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.retry_delivery")

    def has_ignore_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.ignore_delivery")

    def has_view_payload_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.view_payload")

    @action("Try again", permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> HttpResponse | None:
        chosen = self._chosen(request, queryset)
        if chosen is None:
            return None
        act = lambda: actions.retry(chosen, by=request.user)  # noqa: E731 - said in place
        return self._act(request, chosen, act, "tried again", why_not_retried)

    @action("Ignore, with a reason", permissions=["ignore"], danger=True)
    def ignore(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> HttpResponse | None:
        chosen = self._chosen(request, queryset)
        if chosen is None:
            return None
        form = Reason(request.POST if "confirmed" in request.POST else None)
        if not form.is_valid():
            return confirmation(self, request, chosen, form, **IGNORING)
        reason = form.cleaned_data["reason"]
        act = lambda: actions.ignore(chosen, by=request.user, reason=reason)  # noqa: E731 - said in place
        return self._act(request, chosen, act, f"ignored: {reason}", why_not_ignored)

    def _chosen(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> QuerySet[Delivery] | None:
        """What was ticked, free of the list's own filters, which the action itself is about to make untrue."""
        keys = few_enough(queryset)
        if keys is None:
            text = f"That is more than {MOST_AT_ONCE:,} deliveries at once. Narrow the list with its filters first."
            self.message_user(request, text, messages.ERROR)
            return None
        return Delivery.objects.filter(pk__in=keys).defer(*BULKY).order_by("-id")

    def _act(
        self,
        request: HttpRequest,
        chosen: QuerySet[Delivery],
        act: Callable[[], int],
        done: str,
        why_not: Callable[[Delivery], str],
    ) -> HttpResponse | None:
        """Do it, log it, and say how many were changed and why the others were not."""
        with transaction.atomic():
            before = {delivery.pk: standing(delivery) for delivery in chosen.all()}
            count = act()
            after = list(chosen.annotate(bodiless=Q(body=None)))
            changed = [delivery for delivery in after if standing(delivery) != before.get(delivery.pk)]
            log(request, changed, done)
        self.message_user(
            request, f"{count} of {len(before)}: {done}.", messages.SUCCESS if count else messages.WARNING
        )
        reasons = Counter(why_not(delivery) for delivery in after if delivery not in changed)
        for reason, number in reasons.items():
            self.message_user(request, f"{number} left as it was: {reason}.", messages.WARNING)
        return back_to(after)

    @admin.display(description="state", ordering="state")
    def state_shown(self, delivery: Delivery) -> SafeString:
        return badge(delivery.state)

    @admin.display(description="patient")
    def patient(self, delivery: Delivery) -> str:
        if delivery.link is None:
            return "not known"
        address = reverse("admin:devices_patient_change", args=[delivery.link.patient_id])
        return format_html('<a href="{}">{}</a>', address, delivery.link.patient)

    @admin.display(description="patient")
    def whose(self, delivery: Delivery) -> str:
        return format_html("{}<small>{}</small>", self.patient(delivery), delivery.vendor_user_id)

    @admin.display(description="received", ordering="id")
    def received(self, delivery: Delivery) -> str:
        return when(delivery.received_at)

    @admin.display(description="event time")
    def event_at(self, delivery: Delivery) -> str:
        return exactly(delivery.event_time, "not said by the vendor")

    @admin.display(description="stored")
    def stored(self, delivery: Delivery) -> str:
        return when(delivery.stored_at, "not stored")

    @admin.display(description="published")
    def published(self, delivery: Delivery) -> str:
        return when(delivery.published_at, "not published")

    @admin.display(description="next try")
    def next_try(self, delivery: Delivery) -> str:
        if delivery.state not in {"received", "retrying"}:
            return "none planned"
        planned = ", a planned wait" if delivery.planned_wait else ""
        return f"{exactly(delivery.next_attempt_at)}{planned}"

    @admin.display(description="error", empty_value="-")
    def error_shown(self, delivery: Delivery) -> str:
        text = delivery.error
        return text if len(text) <= LIST_ERROR_CHARACTERS else f"{text[:LIST_ERROR_CHARACTERS]}…"

    @admin.display(description="refused parts")
    def refused_parts(self, delivery: Delivery) -> str:
        if not delivery.refused:
            return "none"
        rows = format_html_join("", "<tr><th>{}</th><td>{}</td></tr>", map(what_and_why, delivery.refused))
        return format_html('<table class="refused">{}</table>', rows)

    @admin.display(description="body, as received")
    def received_body(self, delivery: Delivery) -> str:
        return preformatted(None if delivery.body is None else bytes(delivery.body))

    @admin.display(description="document, as the vendor answered")
    def vendor_document(self, delivery: Delivery) -> str:
        return preformatted(None if delivery.document is None else delivery.document.encode("utf-8", "replace"))


ABOUT = ("id", "vendor", "event_type", "state_shown", "origin", "vendor_user_id", "object_id", "link", "patient")
TIMES = ("received", "event_at", "stored", "published", "next_try")
OUTCOME = ("attempts", "failures", "pending_asks", "sample_count", "ignored_count", "error_class", "error")
CARRIED = ("refused_parts", "received_body", "vendor_document")
IGNORING: dict[str, Any] = {
    "action": "ignore",
    "title": "Ignore deliveries",
    "consequence": "What these deliveries announce will not be fetched or stored. Trying again brings them back.",
    "button": "Ignore them",
    "danger": True,
}


def standing(delivery: Delivery) -> tuple[Any, ...]:
    return delivery.state, delivery.next_attempt_at, delivery.error


def why_not_retried(delivery: Delivery) -> str:
    if delivery.vendor == "auren":
        return "made by a person, there is no vendor to ask"
    if delivery.vendor == "healthkit" and getattr(delivery, "bodiless", False):
        return "its body is no longer kept"
    return "a worker has it at this moment"


def why_not_ignored(delivery: Delivery) -> str:
    return f"already {delivery.state}"


def what_and_why(part: Any) -> tuple[str, str]:
    if isinstance(part, dict):
        return str(part.get("what", "")), str(part.get("why", ""))
    return "", str(part)


def preformatted(content: bytes | None) -> str:
    """Whatever came, as text in a `<pre>`: indented where it is JSON, cut where it is long, escaped always."""
    if content is None:
        return "not kept"
    text = indented(content)
    if len(text) <= SHOWN_CHARACTERS:
        return format_html('<pre class="payload">{}</pre>', text)
    note = f"The first {SHOWN_CHARACTERS:,} of {len(text):,} characters are shown."
    return format_html('<p>{}</p><pre class="payload">{}</pre>', note, text[:SHOWN_CHARACTERS])


def indented(content: bytes) -> str:
    if len(content) <= PRETTIEST_BYTES:
        # What is not JSON, or too deep to be read as such, is shown as it came.
        with suppress(ValueError, RecursionError):
            content = json.dumps(json.loads(content), indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return content.decode("utf-8", "replace")
