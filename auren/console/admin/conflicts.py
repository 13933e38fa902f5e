"""Where devices disagree."""

from typing import Any

from django.contrib import admin
from django.db.models import Model, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from auren.admin import BigTableAdmin, Untouched, badge, exactly, when
from auren.biometrics.models import Conflict, Source
from auren.console import lanes
from auren.console.admin.samples import METRIC_CHOICES, amount, label
from devices.models import Patient

RULES = {**lanes.RULES, "metric_order": "the metric's order of devices"}


class MetricFilter(admin.SimpleListFilter):
    title = "metric"
    parameter_name = "metric"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(str(number), text) for number, text in METRIC_CHOICES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:  # noqa: ARG002
        known = {str(number) for number, _ in METRIC_CHOICES}
        return queryset.filter(metric=int(self.value() or 0)) if self.value() in known else queryset


@admin.register(Conflict)
class ConflictAdmin(Untouched, BigTableAdmin[Conflict]):
    list_display = ("id", "patient", "metric_shown", "start", "end", "said", "winner", "rule_shown", "state_shown")
    what_would_be_here = "Each moment at which two devices of one patient differ by more than the metric tolerates."
    list_filter = ("state", MetricFilter)
    list_select_related = ("winner",)
    change_form_template = "console/admin/named.html"
    search_fields = ("patient_id",)  # shows the box; get_search_results does the work
    search_help_text = "A patient's external id, exactly as it is"
    fields = readonly_fields = (
        "patient",
        "metric_shown",
        "start",
        "end",
        "said",
        "winner",
        "rule_shown",
        "state_shown",
        "resolved_by",
        "note",
        "updated",
    )

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
        if not term:
            return queryset, False
        patients = list(Patient.objects.filter(external_id=term).values_list("pk", flat=True))
        return queryset.filter(patient_id__in=patients), False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response = super().changelist_view(request, extra_context)
        if isinstance(response, TemplateResponse) and response.context_data and "cl" in response.context_data:
            _name_sources(response.context_data["cl"].result_list)
        return response

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **how: Any) -> HttpResponse:
        """The model knows metrics and patients by their numbers only; the page's title has their names."""
        conflict = context["original"]
        context["subtitle"] = f"{label(conflict.metric)} of {whose(conflict)}, {exactly(conflict.start_at)}"
        return super().render_change_form(request, context, *args, **how)

    @admin.display(description="patient")
    def patient(self, conflict: Conflict) -> str:
        address = reverse("admin:devices_patient_change", args=[conflict.patient_id])
        return format_html('<a href="{}">{}</a>', address, whose(conflict))

    @admin.display(description="metric", ordering="metric")
    def metric_shown(self, conflict: Conflict) -> str:
        return label(conflict.metric)

    @admin.display(description="rule", ordering="rule")
    def rule_shown(self, conflict: Conflict) -> str:
        return RULES.get(conflict.rule, conflict.rule)

    @admin.display(description="from", ordering="start_at")
    def start(self, conflict: Conflict) -> str:
        return exactly(conflict.start_at)

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

    @admin.display(description="state", ordering="state")
    def state_shown(self, conflict: Conflict) -> SafeString:
        return badge(conflict.state)


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
