"""The audit log's own screen. Looking at it is in it as well."""

from datetime import timedelta
from ipaddress import ip_address
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import TextFilter

from auren.admin import BigTableAdmin, Untouched, badge, when
from auren.audit.models import LOOKS, SIGNING_IN, Entry, Verb
from auren.console.models import AccessToken
from devices.models import Erasure, Patient
from webhooks.filters import AgeFilter, Ages, Choice

SHOWN_PATIENTS = 3
SINCE = {
    "hour": ("in the last hour", timedelta(hours=1)),
    "day": ("in the last 24 hours", timedelta(days=1)),
    "week": ("in the last 7 days", timedelta(days=7)),
    "month": ("in the last 30 days", timedelta(days=30)),
    "year": ("in the last year", timedelta(days=365)),
}
KINDS = {
    "looks": ("Every look at health data", LOOKS),
    "changes": ("Every change", frozenset(Verb) - LOOKS - SIGNING_IN),
    "signing-in": ("Signing in", SIGNING_IN),
}


class PersonFilter(TextFilter):  # type: ignore[misc]  # unfold has no types
    title = "user name"
    parameter_name = "who"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Entry]) -> QuerySet[Entry]:  # noqa: ARG002
        wanted = (self.value() or "").strip()
        return queryset.filter(username=wanted) if wanted else queryset


class PatientFilter(TextFilter):  # type: ignore[misc]  # likewise
    """By external id, also of one who was erased, or by number."""

    title = "patient's external id"
    parameter_name = "patient"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Entry]) -> QuerySet[Entry]:  # noqa: ARG002
        wanted = (self.value() or "").strip()
        return queryset.filter(about_patient(wanted)) if wanted else queryset


class KindFilter(Choice):
    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(name, words) for name, (words, _) in KINDS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Entry]) -> QuerySet[Entry]:  # noqa: ARG002
        return queryset.filter(verb__in=KINDS[self.value() or ""][1]) if self.value() in KINDS else queryset


class VerbFilter(Choice):
    title = "what was done"
    parameter_name = "verb"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return sorted(Verb.choices, key=lambda choice: choice[1])

    def queryset(self, request: HttpRequest, queryset: QuerySet[Entry]) -> QuerySet[Entry]:  # noqa: ARG002
        return queryset.filter(verb=self.value()) if self.value() in Verb.values else queryset


class TimeFilter(AgeFilter):
    title = "when"
    parameter_name = "since"
    field = "at"
    ages = SINCE
    older: Ages = {}


def about_patient(external_id: str) -> Q:
    """The rows of an external id: of the patient who has it now, and of those who had it and were erased."""
    if "\0" in external_id:
        return Q(pk=None)
    numbers = set(Patient.objects.filter(external_id=external_id).values_list("pk", flat=True))
    erased = Erasure.objects.filter(external_id=external_id).values_list("pk", flat=True)
    gone = Entry.objects.filter(model="devices.erasure", object_id__in=[str(pk) for pk in erased], verb=Verb.ERASE)
    for patients in gone.values_list("patient_ids", flat=True):
        numbers |= set(patients)
    return Q(patient_ids__overlap=sorted(numbers)) if numbers else Q(pk=None)


@admin.register(Entry)
class EntryAdmin(Untouched, BigTableAdmin[Entry]):
    list_display = ("happened", "who", "did_what", "whom", "address", "result_shown")
    list_filter = (KindFilter, TimeFilter, PersonFilter, PatientFilter, VerbFilter)
    list_filter_submit = True
    sortable_by = ()
    search_fields = ("id",)  # shows the box; get_search_results does the work
    search_help_text = "A user name, a patient's external id, an address, or such as webhooks.delivery 17: exactly"
    fields = readonly_fields = ("happened", "who", "did_what", "whom", "address", "result_shown")
    what_would_be_here = "Who did and who saw what, from now on and for good."

    def get_queryset(self, request: HttpRequest) -> QuerySet[Entry]:
        return super().get_queryset(request).defer("account")

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:  # noqa: ARG002 - Django's signature
        return ("-at", "-id")

    def get_search_results(
        self,
        request: HttpRequest,  # noqa: ARG002 - Django's signature
        queryset: QuerySet[Entry],
        search_term: str,
    ) -> tuple[QuerySet[Entry], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        if "\0" in term:
            return queryset.none(), False
        model, _, number = term.partition(" ")
        known = Q(username=term) | about_patient(term) | Q(model=model.lower(), object_id=number.strip())
        return queryset.filter(known | Q(address=term) if is_address(term) else known), False

    @admin.display(description="when", ordering="at")
    def happened(self, entry: Entry) -> str:
        return when(entry.at)

    @admin.display(description="who")
    def who(self, entry: Entry) -> str:
        how = {"session": "in the browser", "command": "on the command line", "nobody": "not signed in"}.get(entry.via)
        if entry.token_id is not None:
            token = AccessToken.objects.filter(pk=entry.token_id).values_list("name", flat=True).first()
            how = f"with token {entry.token_id}" + (f", {token}" if token else "")
        return format_html("{}<small>{}</small>", entry.username or "nobody known", how or entry.via)

    @admin.display(description="did what")
    def did_what(self, entry: Entry) -> str:
        return format_html("{} {}<small>{}</small>", entry.did, thing(entry), entry.detail)

    @admin.display(description="patients")
    def whom(self, entry: Entry) -> str:
        shown = entry.patient_ids[:SHOWN_PATIENTS]
        known = dict(Patient.objects.filter(pk__in=shown).values_list("pk", "external_id"))
        names = format_html_join(", ", "{}", ((one_patient(number, known),) for number in shown))
        more = len(entry.patient_ids) - SHOWN_PATIENTS
        return format_html("{} and {} more", names, more) if more > 0 else names or "-"

    @admin.display(description="result")
    def result_shown(self, entry: Entry) -> SafeString:
        return badge(entry.result)


def one_patient(number: int, known: dict[int, str]) -> str:
    if number not in known:
        return f"patient {number}, not there any more"
    return format_html('<a href="{}">{}</a>', reverse("admin:devices_patient_change", args=[number]), known[number])


def thing(entry: Entry) -> str:
    """What it was done to, as a link where it has a page; nothing for what somebody did to their own account."""
    if not entry.model or (entry.model, entry.object_id) == ("auth.user", str(entry.user_id)):
        return ""
    name = f"{entry.model.partition('.')[2]} {entry.object_id}"
    try:
        address = reverse(f"admin:{entry.model.replace('.', '_')}_change", args=[entry.object_id])
    except NoReverseMatch:
        return name
    return format_html('<a href="{}">{}</a>', address, name)


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
