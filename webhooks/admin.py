"""Support's view of deliveries: what is stuck, why, what it carried, and what one can do about it."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from auren.admin import (
    MOST_AT_ONCE,
    BigTableAdmin,
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
from auren.audit.models import Verb
from auren.audit.trail import note
from devices.models import Link, Patient
from webhooks import actions
from webhooks.filters import (
    AgeFilter,
    ErrorFilter,
    EventFilter,
    Number,
    PatientFilter,
    StuckFilter,
    by_state,
    of_patient,
)
from webhooks.linking import Known, link_to
from webhooks.models import Attempt, Delivery, Replay
from webhooks.produce import produced
from webhooks.replays import NARROWING, REPLAYABLE, ask, criteria, matching

SHOWN_CHARACTERS = 64 * 1024
PRETTIEST_BYTES = 1024 * 1024  # beyond this, parsing to indent costs more than it shows
LIST_ERROR_CHARACTERS = 80
BULKY = ("body", "document", "headers", "outbox", "refused")
LARGEST_KEY = 2**63 - 1


class Likeness(forms.Form):
    """Beside vendor and state, which always count: what else must be the same."""

    same_error_class = forms.BooleanField(required=False, initial=True, label="The same error class")
    same_event_type = forms.BooleanField(required=False, initial=True, label="The same event type")
    same_origin = forms.BooleanField(required=False, label="The same origin")
    same_link_id = forms.BooleanField(required=False, label="The same link, so of one patient only")

    def __init__(self, delivery: Delivery, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.delivery = delivery
        for name, field in self.fields.items():
            field.help_text = str(getattr(delivery, name.removeprefix("same_")) or "none")

    @property
    def like(self) -> dict[str, Any]:
        wanted = [name.removeprefix("same_") for name, same in self.cleaned_data.items() if same]
        return criteria(self.delivery, wanted)


class Whose(forms.Form):
    external_id = forms.CharField(label="The patient's external id", max_length=255, help_text="Exactly as it is.")

    def clean_external_id(self) -> Patient:
        found = Patient.objects.filter(external_id=self.cleaned_data["external_id"]).first()
        if found is None:
            raise forms.ValidationError("No patient has this external id.")
        return found


class Reason(forms.Form):
    reason = forms.CharField(max_length=500, help_text="Stays on the delivery and in the log.")


@admin.register(Delivery)
class DeliveryAdmin(Untouched, BigTableAdmin[Delivery]):
    list_display = ("id", "what", "state_shown", "error_shown", "received", "whose", "attempts", "samples")
    list_before_template = "webhooks/admin/tabs.html"
    what_would_be_here = "Each webhook, poll and list that comes in stands here from the moment it is promised."
    list_filter = ("state", StuckFilter, "vendor", EventFilter, AgeFilter, ErrorFilter, PatientFilter, "origin")
    list_filter_submit = True
    list_select_related = ("link__patient",)
    sortable_by = ("id", "received")  # what has no index would have all rows sorted
    search_fields = ("id",)  # shows the box; get_search_results does the work
    search_help_text = "Number, dedup key, vendor's user id, object id, or patient's external id: exactly"
    actions = ("retry", "retry_all_like", "link_to_patient", "ignore")

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
        """Exact matches along indexes. Object ids have none: they are looked for where nothing else matched.

        A dedup key's index begins with the vendor, so each of the few vendors is asked.
        """
        term = search_term.strip()
        if not term:
            return queryset, False
        links = Link.objects.filter(vendor_user_id=term).values_list("pk", flat=True)
        known = Q(link__in=list(links)) | Q(link=None, vendor_user_id=term) | of_patient(term)
        known |= Q(vendor__in=[vendor for vendor, _ in Delivery.VENDORS], dedup_key=term)
        if term.isascii() and term.isdigit() and int(term) <= LARGEST_KEY:
            known |= Q(pk=int(term))
        found = queryset.filter(known)
        return (found if found.exists() else queryset.filter(object_id=term)), False

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        delivery = self.get_object(request, object_id)
        if self.has_view_payload_permission(request):
            note(request, detail="with what it carried")
        shown = {
            "acts": [act for act in acts(self, request) if delivery and makes_sense(act["name"], delivery)],
            "tries": list(Attempt.objects.filter(delivery=delivery).order_by("-number")[:MOST_TRIES]),
            "may_see_payload": self.has_view_payload_permission(request),
            **(extra_context or {}),
        }
        return super().change_view(request, object_id, form_url, shown)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        answer = super().changelist_view(request, extra_context)
        context = getattr(answer, "context_data", None)
        if context and "cl" in context:
            context["tabs"] = list(tabs(request, context["cl"]))
        return answer

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:number>/download/<str:part>/", view(self.download), name="webhooks_delivery_download"),
            path("<int:number>/samples/", view(self.samples_view), name="webhooks_delivery_samples"),
            *super().get_urls(),
        ]

    def download(self, request: HttpRequest, number: int, part: str) -> HttpResponse:
        """The body as it was received, or the document as the vendor answered. Whoever takes one is in the log."""
        if not self.has_view_payload_permission(request):
            raise PermissionDenied
        delivery = get_object_or_404(Delivery, pk=number)
        content = {"body": delivery.body, "document": delivery.document}.get(part)
        if content is None:
            raise Http404("That is not kept.")
        note(request, delivery, detail=f"the {part}")
        log(request, [delivery], Verb.DOWNLOAD, f"downloaded the {part}")
        raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else bytes(content)
        disposition = f'attachment; filename="delivery-{number}-{part}.json"'
        headers = {"Content-Disposition": disposition, "Cache-Control": "no-store"}
        return HttpResponse(raw, content_type="application/octet-stream", headers=headers)

    def samples_view(self, request: HttpRequest, number: int) -> HttpResponse:
        if not request.user.has_perm("biometrics.view_sample"):
            raise PermissionDenied
        delivery = get_object_or_404(Delivery.objects.select_related("link__patient"), pk=number)
        note(request, delivery, detail="samples")
        context = {
            **self.admin_site.each_context(request),
            "title": "Samples",
            "opts": Delivery._meta,
            "of": delivery,
            "delivery": delivery,
            "found": produced(delivery),
        }
        return TemplateResponse(request, "webhooks/admin/samples.html", context)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.retry_delivery")

    def has_ignore_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.ignore_delivery")

    def has_link_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("devices.add_link")

    def has_view_payload_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.view_payload")

    @action("Try again", permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> HttpResponse | None:
        chosen = self._chosen(request, queryset)
        if chosen is None:
            return None
        act = lambda: actions.retry(chosen, by=request.user)  # noqa: E731 - said in place
        return self._act(request, chosen, act, Verb.RETRY, "tried again", why_not_retried)

    @action("Try all like this again", permissions=["retry"])
    def retry_all_like(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> HttpResponse | None:
        chosen = list(queryset.order_by()[:2])
        if len(chosen) != 1 or chosen[0].state not in REPLAYABLE or chosen[0].vendor == "auren":
            text = f"Choose one delivery that is {', '.join(REPLAYABLE)}: those like it are found by what it has."
            self.message_user(request, text, messages.ERROR)
            return None
        form = Likeness(chosen[0], request.POST if "confirmed" in request.POST else None)
        if not form.is_valid():
            number = Number.of(matching(criteria(chosen[0], ())))
            how_many = f"Of this vendor and in this state there are {number}. "
            words = {**REPLAYING, "consequence": how_many + REPLAYING["consequence"]}
            return confirmation(self, request, queryset, form, **words)
        with transaction.atomic():
            replay = ask(form.like, user_id=request.user.pk or 0, username=request.user.get_username())
            log(request, [replay], Verb.RETRY_ALL, f"asked for: {in_words(replay.like)}")
        text = "They are sent through again in the background, a thousand at a time. This page says how far that is."
        self.message_user(request, text, messages.SUCCESS)
        return redirect("admin:webhooks_replay_change", replay.pk)

    @action("Link to a patient", permissions=["link"])
    def link_to_patient(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> HttpResponse | None:
        chosen = list(queryset.order_by()[:2])
        if len(chosen) != 1 or not makes_sense("link_to_patient", chosen[0]):
            self.message_user(request, "Choose one delivery whose account is nobody's yet.", messages.ERROR)
            return None
        form = Whose(request.POST if "confirmed" in request.POST else None)
        if not form.is_valid():
            return confirmation(self, request, queryset, form, **LINKING)
        try:
            with transaction.atomic():
                link, count = link_to(chosen[0], form.cleaned_data["external_id"])
                said = f"{link.vendor_user_id} linked to {link.patient.external_id}"
                log(request, [link, chosen[0]], Verb.LINK, said)
        except Known as error:
            self.message_user(request, str(error), messages.ERROR)
            return None
        text = f"Linked to {link.patient}: {count} waiting deliveries go on."
        if link.status == "expired":
            text = f"Linked to {link.patient}. They wait until the patient has connected: send an invitation."
        self.message_user(request, text, messages.SUCCESS)
        return redirect("admin:devices_link_change", link.pk)

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
        return self._act(request, chosen, act, Verb.IGNORE, f"ignored: {reason}", why_not_ignored)

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
        verb: Verb,
        done: str,
        why_not: Callable[[Delivery], str],
    ) -> HttpResponse | None:
        """Do it, log it, and say how many were changed and why the others were not."""
        with transaction.atomic():
            before = {delivery.pk: standing(delivery) for delivery in chosen.all()}
            count = act()
            after = list(chosen.annotate(bodiless=Q(body=None)))
            changed = [delivery for delivery in after if standing(delivery) != before.get(delivery.pk)]
            log(request, changed, verb, done)
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

    @admin.display(description="what", ordering="event_type")
    def what(self, delivery: Delivery) -> str:
        about = f"{delivery.get_vendor_display()}, {delivery.origin}"
        return format_html("{}<small>{}</small>", delivery.event_type, about)

    @admin.display(description="samples", ordering="sample_count")
    def samples(self, delivery: Delivery) -> str:
        return f"{delivery.sample_count:,}"

    @admin.display(description="samples")
    def samples_found(self, delivery: Delivery) -> str:
        if not delivery.sample_count:
            return "none"
        address = reverse("admin:webhooks_delivery_samples", args=[delivery.pk])
        return format_html('<a href="{}">{} stored: show them</a>', address, f"{delivery.sample_count:,}")

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


ABOUT = (
    "id",
    "vendor",
    "event_type",
    "state_shown",
    "origin",
    "vendor_user_id",
    "object_id",
    "dedup_key",
    "link",
    "patient",
)
TIMES = ("received", "event_at", "stored", "published", "next_try")
OUTCOME = ("attempts", "failures", "pending_asks", "samples_found", "ignored_count", "error_class", "error")
CARRIED = ("refused_parts", "received_body", "vendor_document")
IGNORING: dict[str, Any] = {
    "action": "ignore",
    "title": "Ignore deliveries",
    "consequence": "What these deliveries announce will not be fetched or stored. Trying again brings them back.",
    "button": "Ignore them",
    "danger": True,
}


REPLAYING: dict[str, Any] = {
    "action": "retry_all_like",
    "title": "Try all like this again",
    "consequence": "Every delivery like this one is sent through once more, under its own number and as one more "
    "attempt: thousands of them in the background, beside live data and within the vendors' limits.",
    "button": "Try them all again",
}
LINKING: dict[str, Any] = {
    "action": "link_to_patient",
    "title": "Link to a patient",
    "consequence": "From now on everything of this account is that patient's. A mistake puts one person's data into "
    "another's record: make sure whose account it is.",
    "button": "Link it",
}
MOST_TRIES = 100


def makes_sense(name: str, delivery: Delivery) -> bool:
    """Whether an action is offered on a delivery's own page."""
    if name == "link_to_patient":
        return delivery.state == "unlinked" and delivery.link is None
    if name == "retry_all_like":
        return delivery.state in REPLAYABLE and delivery.vendor != "auren"
    return name != "ignore" or delivery.state in actions.IGNORABLE


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
        return format_html('<pre class="payload" tabindex="0">{}</pre>', text)
    note = f"The first {SHOWN_CHARACTERS:,} of {len(text):,} characters are shown."
    return format_html('<p>{}</p><pre class="payload" tabindex="0">{}</pre>', note, text[:SHOWN_CHARACTERS])


def indented(content: bytes) -> str:
    if len(content) <= PRETTIEST_BYTES:
        # What is not JSON, or too deep to be read as such, is shown as it came.
        with suppress(ValueError, RecursionError):
            content = json.dumps(json.loads(content), indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return content.decode("utf-8", "replace")


def tabs(request: HttpRequest, shown: Any) -> Iterator[dict[str, Any]]:
    """A tab for each state. The numbers are of all deliveries, so they are left out where a filter narrows the list."""
    narrowed = bool(shown.query) or set(request.GET) - {"state__exact", "o", "p"}
    counts = {} if narrowed else by_state()
    now = request.GET.get("state__exact", "")
    yield {"title": "All", "address": shown.get_query_string(remove=["state__exact", "p"]), "active": not now}
    for state, _ in Delivery.STATES:
        address = shown.get_query_string({"state__exact": state}, ["p"])
        yield {"title": state, "address": address, "active": now == state, "count": counts.get(state)}


def in_words(like: dict[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_id', '').replace('_', ' ')} {like[name] or 'none'}" for name in NARROWING if name in like
    )


@admin.register(Replay)
class ReplayAdmin(Untouched, BigTableAdmin[Replay]):
    """How far the scheduler is with deliveries that were all tried again."""

    list_display = ("id", "what", "state_shown", "progress", "asked", "requested_by", "ended")
    fields = readonly_fields = (
        "what",
        "state_shown",
        "progress",
        "left_alone",
        "asked",
        "requested_by",
        "ended",
        "stopped_by",
    )
    what_would_be_here = "When somebody has all deliveries like one tried again, this says how far that is."
    actions = ("stop",)
    change_form_template = "webhooks/admin/replay.html"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        replay = self.get_object(request, object_id)
        still = replay is not None and replay.ended_at is None
        shown = {"acts": acts(self, request) if still else [], "replay": replay, **(extra_context or {})}
        return super().change_view(request, object_id, form_url, shown)

    def has_stop_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.retry_delivery")

    @action("Stop", permissions=["stop"], danger=True)
    def stop(self, request: HttpRequest, queryset: QuerySet[Replay]) -> HttpResponse | None:
        chosen = Replay.objects.filter(pk__in=few_enough(queryset) or []).order_by("-id")
        if "confirmed" not in request.POST:
            return confirmation(self, request, chosen, forms.Form(), **STOPPING)
        with transaction.atomic():
            open_ = list(chosen.filter(ended_at=None).select_for_update())
            by = request.user.get_username()
            Replay.objects.filter(pk__in=[one.pk for one in open_]).update(ended_at=timezone.now(), stopped_by=by)
            log(request, open_, Verb.STOP, "stopped")
        self.message_user(request, f"{len(open_)} stopped; the others had ended.", messages.SUCCESS)
        return back_to(list(chosen))

    @admin.display(description="what is tried again")
    def what(self, replay: Replay) -> str:
        return in_words(replay.like)

    @admin.display(description="state")
    def state_shown(self, replay: Replay) -> SafeString:
        return badge(replay.state)

    @admin.display(description="sent through again")
    def progress(self, replay: Replay) -> str:
        if replay.ended_at:
            return f"{replay.sent:,}"
        rest = matching(replay.like).filter(pk__gt=replay.reached_id, pk__lte=replay.until_id)
        left = Number.of(rest)
        return f"{replay.sent:,}, {left} to go"

    @admin.display(description="left alone")
    def left_alone(self, replay: Replay) -> str:
        alone = replay.seen - replay.sent
        return f"{alone:,}: a worker had them, or their body is no longer kept" if alone else "none"

    @admin.display(description="asked for", ordering="id")
    def asked(self, replay: Replay) -> str:
        return when(replay.requested_at)

    @admin.display(description="ended")
    def ended(self, replay: Replay) -> str:
        return when(replay.ended_at, "not yet")


STOPPING: dict[str, Any] = {
    "action": "stop",
    "title": "Stop trying again",
    "consequence": "What was sent through again stays so; the rest is left as it is.",
    "button": "Stop it",
    "danger": True,
}
