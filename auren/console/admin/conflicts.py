"""Where devices disagree: the list, one conflict side by side, and deciding it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Model, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import TextFilter

from auren.admin import BigTableAdmin, Untouched, action, acts, badge, exactly, when
from auren.audit.models import Verb
from auren.biometrics.metrics import BY_NUMBER
from auren.biometrics.models import Conflict, Source
from auren.console import deciding, lanes
from auren.console.admin.samples import METRIC_CHOICES, label
from auren.console.disputes import Dispute, Side, share
from auren.console.views import zone_of
from devices.models import Patient
from webhooks.filters import AgeFilter, Choice
from webhooks.overriding import CannotDecide

RULES = {**lanes.RULES, "metric_order": "the metric's order of devices"}
# A rule and a state say the same of all but what an order settled; saying both leads along an index.
STATE_OF = {"person": "overridden", "recency": "open"}
AGES = {
    "day": ("in the last 24 hours", timedelta(days=1)),
    "week": ("in the last 7 days", timedelta(days=7)),
    "month": ("in the last 30 days", timedelta(days=30)),
}
OLDER = {
    "over-week": ("more than 7 days ago", timedelta(days=7)),
    "over-month": ("more than 30 days ago", timedelta(days=30)),
}


class MetricFilter(Choice):
    title = "metric"
    parameter_name = "metric"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(str(number), text) for number, text in METRIC_CHOICES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:  # noqa: ARG002
        known = {str(number) for number, _ in METRIC_CHOICES}
        return queryset.filter(metric=int(self.value() or 0)) if self.value() in known else queryset


class RuleFilter(Choice):
    title = "what decided"
    parameter_name = "rule"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return list(RULES.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Conflict]) -> QuerySet[Conflict]:  # noqa: ARG002
        rule = self.value()
        if rule not in RULES:
            return queryset
        state = {"state": STATE_OF[rule]} if rule in STATE_OF else {}
        return queryset.filter(rule=rule, **state)


class MomentFilter(AgeFilter):
    title = "moment"
    field = "start_at"
    ages = AGES
    older = OLDER


class PatientFilter(TextFilter):  # type: ignore[misc]  # unfold has no types
    title = "patient's external id"
    parameter_name = "patient"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Conflict]) -> QuerySet[Conflict]:  # noqa: ARG002
        wanted = (self.value() or "").strip()
        return queryset.filter(patient_id__in=_patients(wanted)) if wanted else queryset


def _patients(external_id: str) -> list[int]:
    """As numbers: with a subquery PostgreSQL would not see that there are few."""
    if "\0" in external_id:  # PostgreSQL takes none
        return []
    return list(Patient.objects.filter(external_id=external_id).values_list("pk", flat=True))


@admin.register(Conflict)
class ConflictAdmin(Untouched, BigTableAdmin[Conflict]):
    list_display = ("start", "patient", "metric_shown", "said", "differ", "winner", "rule_shown", "state_shown")
    what_would_be_here = "Each moment at which two devices of one patient differ by more than the metric tolerates."
    list_filter = ("state", RuleFilter, MetricFilter, MomentFilter, PatientFilter)
    list_filter_submit = True
    list_select_related = ("winner", "preference")
    ordering = ("-start_at", "-id")
    sortable_by = ("start",)  # what has no index would have all rows sorted
    change_form_template = "console/admin/conflict.html"
    search_fields = ("patient_id",)  # shows the box; get_search_results does the work
    search_help_text = "A patient's external id, exactly as it is"
    actions = ("override", "undo")
    fields = readonly_fields = ("patient", "metric_shown", "start", "end", "state_shown", "rule_shown", "updated")

    class Media:
        css = {"all": ["console/dispute.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conflict]:
        owner = Patient.objects.filter(pk=OuterRef("patient_id"))
        names = {name: Subquery(owner.values(name)[:1]) for name in ("external_id", "display_name")}
        return super().get_queryset(request).annotate(**names)

    def get_search_results(
        self,
        request: HttpRequest,  # noqa: ARG002 - Django's signature
        queryset: QuerySet[Conflict],
        search_term: str,
    ) -> tuple[QuerySet[Conflict], bool]:
        term = search_term.strip()
        return (queryset.filter(patient_id__in=_patients(term)) if term else queryset), False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response = super().changelist_view(request, extra_context)
        if isinstance(response, TemplateResponse) and response.context_data and "cl" in response.context_data:
            _name_sources(response.context_data["cl"].result_list)
        return response

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **how: Any) -> HttpResponse:
        """The model knows metrics and patients by their numbers only; the page's title has their names."""
        conflict = context["original"]
        context["subtitle"] = f"{label(conflict.metric)} of {whose(conflict)}, {exactly(conflict.start_at)}"
        dispute = dispute_of(conflict)
        if dispute:
            shows = request.user.has_perm("biometrics.view_sample")
            context["dispute"] = dispute
            context["sides"] = [(side, samples_of(dispute, side) if shows else "") for side in dispute.sides]
        context["acts"] = [act for act in acts(self, request) if act["name"] != "undo" or conflict.preference_id]
        return super().render_change_form(request, context, *args, **how)

    def has_override_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("biometrics.override_conflict")

    @action("Override", permissions=["override"])
    def override(self, request: HttpRequest, queryset: QuerySet[Conflict]) -> HttpResponse | None:
        """Choose, see what changes, say yes."""
        dispute = self._one(request, queryset)
        if dispute is None:
            return None
        stage = next((name for name in ("confirmed", "foreseen") if name in request.POST), "")
        form = deciding.Choice(dispute, request.POST if stage or "again" in request.POST else None)
        if not stage or not form.is_valid():
            return self._page(request, dispute, form, **CHOOSING)
        by, asked = request.user.get_username(), form.cleaned_data
        act = lambda: deciding.override(dispute, asked, by=by)  # noqa: E731 - said in place
        consequence = deciding.reach(asked, dispute)
        if stage == "confirmed":
            done = f"{consequence} “{asked['note']}”"
            return self._decided(request, dispute, asked, act, Verb.OVERRIDE, done)
        return self._foreseen(request, dispute, form, act, consequence=consequence, **DECIDING)

    @action("Undo the decision", permissions=["override"], danger=True)
    def undo(self, request: HttpRequest, queryset: QuerySet[Conflict]) -> HttpResponse | None:
        dispute = self._one(request, queryset)
        if dispute is None:
            return None
        sent = request.POST if "confirmed" in request.POST else None
        form = deciding.Reason(sent, initial={"seen": deciding.seen(dispute.conflict)})
        by = request.user.get_username()
        try:
            consequence = deciding.taken_back(dispute)
        except CannotDecide as reason:
            return self._refused(request, dispute, reason)
        if not form.is_valid():
            foreseeing = lambda: deciding.undo(dispute, "what would change", by=by)  # noqa: E731 - said in place
            return self._foreseen(request, dispute, form, foreseeing, consequence=consequence, **UNDOING)
        note = form.cleaned_data["note"]
        act = lambda: deciding.undo(dispute, note, by=by)  # noqa: E731 - said in place
        return self._decided(request, dispute, form.cleaned_data, act, Verb.UNDO, f"{consequence} “{note}”")

    def _one(self, request: HttpRequest, queryset: QuerySet[Conflict]) -> Dispute | None:
        chosen = list(queryset.order_by()[:2])
        dispute = dispute_of(chosen[0]) if len(chosen) == 1 else None
        if dispute is None:
            text = "Choose one conflict: each is decided by itself, or with those beside it."
            if not chosen:
                text = "This conflict is gone: the devices agree by now, or one has withdrawn what it said."
            self.message_user(request, text, messages.ERROR)
        return dispute

    def _foreseen(
        self, request: HttpRequest, dispute: Dispute, form: forms.Form, act: Callable[[], object], **words: Any
    ) -> HttpResponse:
        """The page that says what would change; of a choice made before, everything but the question is hidden."""
        try:
            changes = deciding.foresee(dispute, act)
        except CannotDecide as reason:
            return self._refused(request, dispute, reason)
        if words["action"] == "override":
            deciding.hide(form)
        return self._page(request, dispute, form, changes=changes, **words)

    def _decided(
        self,
        request: HttpRequest,
        dispute: Dispute,
        asked: dict[str, Any],
        act: Callable[[], object],
        verb: Verb,
        done: str,
    ) -> HttpResponse:
        try:
            deciding.carry_out(request, dispute, asked["seen"], act, verb, done)
        except CannotDecide as reason:
            return self._refused(request, dispute, reason)
        self.message_user(request, f"Done: {done}", messages.SUCCESS)
        return self._back(dispute)

    def _refused(self, request: HttpRequest, dispute: Dispute, reason: CannotDecide) -> HttpResponse:
        self.message_user(request, str(reason), messages.ERROR)
        return self._back(dispute)

    def _back(self, dispute: Dispute) -> HttpResponse:
        """The conflict's page, or, where the decision has settled it for good, the list."""
        if Conflict.objects.filter(pk=dispute.conflict.pk).exists():
            return redirect("admin:biometrics_conflict_change", dispute.conflict.pk)
        return redirect("admin:biometrics_conflict_changelist")

    def _page(self, request: HttpRequest, dispute: Dispute, form: forms.Form, **words: Any) -> TemplateResponse:
        context = {
            **self.admin_site.each_context(request),
            **words,
            "title": words["heading"],
            "opts": self.opts,
            "media": self.media,
            "dispute": dispute,
            "form": form,
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "console/admin/decide.html", context)

    @admin.display(description="patient")
    def patient(self, conflict: Conflict) -> str:
        address = reverse("admin:devices_patient_change", args=[conflict.patient_id])
        return format_html('<a href="{}">{}</a>', address, whose(conflict))

    @admin.display(description="metric")
    def metric_shown(self, conflict: Conflict) -> str:
        return f"{label(conflict.metric)}, whole day" if conflict.daily else label(conflict.metric)

    @admin.display(description="what decided")
    def rule_shown(self, conflict: Conflict) -> str:
        return RULES.get(conflict.rule, conflict.rule)

    @admin.display(description="from", ordering="start_at")
    def start(self, conflict: Conflict) -> str:
        return when(conflict.start_at)

    @admin.display(description="to")
    def end(self, conflict: Conflict) -> str:
        return exactly(conflict.end_at)

    @admin.display(description="updated")
    def updated(self, conflict: Conflict) -> str:
        return when(conflict.updated_at)

    @admin.display(description="who said what")
    def said(self, conflict: Conflict) -> str:
        names: dict[int, str] = getattr(conflict, "names", None) or _names([conflict])
        values = [(names.get(int(key), f"device {key}"), value) for key, value in conflict.values.items()]
        return ", ".join(f"{name}: {amount(conflict.metric, value)}" for name, value in values)

    @admin.display(description="apart")
    def differ(self, conflict: Conflict) -> str:
        if conflict.metric not in BY_NUMBER:
            return "-"
        agreed = f"{share(conflict)}; up to {amount(conflict.metric, lanes.tolerance(conflict))} agrees"
        return format_html("{}<small>{}</small>", amount(conflict.metric, lanes.apart(conflict)), agreed)

    @admin.display(description="state")
    def state_shown(self, conflict: Conflict) -> SafeString:
        return badge(conflict.state)


CHOOSING: dict[str, Any] = {
    "action": "override",
    "heading": "Override: let another device count",
    "next": "foreseen",
    "button": "See what changes",
}
DECIDING: dict[str, Any] = {
    "action": "override",
    "heading": "Override: is this right?",
    "next": "confirmed",
    "button": "Decide so",
    "again": "Choose again",
}
UNDOING: dict[str, Any] = {
    "action": "undo",
    "heading": "Undo the decision",
    "next": "confirmed",
    "button": "Undo it",
    "danger": True,
}


def dispute_of(conflict: Conflict) -> Dispute | None:
    """None for a conflict of a patient who is no more, or of a metric that is not in the catalogue."""
    patient = Patient.objects.filter(pk=conflict.patient_id).first()
    if patient is None or conflict.metric not in BY_NUMBER:
        return None
    return Dispute(conflict, patient, zone_of(patient))


def samples_of(dispute: Dispute, side: Side) -> str:
    """The list of the samples by which a device takes part."""
    if side.told is None:
        return ""
    query = {
        "patient": dispute.patient.external_id,
        "metric": dispute.conflict.metric,
        "start_at": f"{side.told.first_at:%Y-%m-%dT%H:%M:%S}",
        "end_at": f"{max(side.told.last_at + timedelta(seconds=1), dispute.conflict.end_at):%Y-%m-%dT%H:%M:%S}",
        "source": side.source.pk,
    }
    return f"{reverse('admin:biometrics_sample_changelist')}?{urlencode(query)}"


def amount(number: int, value: float) -> str:
    metric = BY_NUMBER.get(number)
    return lanes.amount(metric, value) if metric else f"{value:g}"


def whose(row: Any) -> str:
    """`Ada Nowak (user_1)`, of a row that was annotated with its patient's `display_name` and `external_id`."""
    if row.display_name:
        return f"{row.display_name} ({row.external_id})"
    return row.external_id or f"patient {row.patient_id}"


def _name_sources(conflicts: Any) -> None:
    """Look the devices of a whole page up at once, and leave their names with each conflict."""
    shown: list[Model] = list(conflicts)
    names = _names(shown)
    for conflict in shown:
        conflict.names = names  # type: ignore[attr-defined]


def _names(conflicts: list[Any]) -> dict[int, str]:
    numbers = {int(key) for conflict in conflicts for key in conflict.values}
    return dict(Source.objects.filter(pk__in=numbers).values_list("pk", "name"))
