"""Samples in the admin. A sample has no page of its own: the table has no index by `id`, on purpose.

They are found along the key and in its order, a page at a time from where the last one ended, and never counted: so a
search costs the same however many there are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone as clock
from django.utils.dateparse import parse_datetime

from auren.admin import TypedAdmin, Untouched
from auren.audit.trail import note
from auren.biometrics.metrics import BY_NAME, BY_NUMBER, METRICS, STAGE_LABELS
from auren.biometrics.models import Sample
from auren.console import lanes
from auren.console.views import zone_of
from devices.models import Patient

MOST_DAYS = 366
PAGE = 100
DAY = timedelta(days=1)
PRESETS = {"1": "Today", "7": "7 days", "14": "14 days"}
METRIC_CHOICES = [(metric.number, metric.label) for metric in METRICS]
USUAL = BY_NAME["heart_rate"].number  # what is looked for where no metric is said
WRITTEN = "%Y-%m-%dT%H:%M"  # as the browser writes a time


def amount(number: int, value: float) -> str:
    """A value with its unit, as the catalogue has it, seconds also as people say them; a sleep stage by its name."""
    metric = BY_NUMBER.get(number)
    if metric is None:
        return f"{value:g}"
    if metric.adds == "state":
        return STAGE_LABELS.get(int(value), f"{value:g}")
    said = f" ({lanes.amount(metric, value)})" if metric.unit == "s" else ""
    return f"{value:g} {metric.unit}{said}"


def label(number: int) -> str:
    metric = BY_NUMBER.get(number)
    return metric.label if metric else f"metric {number}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the key a page ended: the next one begins behind it. Written into the address, and read from it."""

    start_at: datetime
    source_id: int
    record: str

    @classmethod
    def of(cls, sample: Sample) -> "Place":
        return cls(sample.start_at, sample.source_id, sample.record)

    @classmethod
    def read(cls, text: str) -> "Place":
        """Raises ValueError."""
        at, source, record = text.split("~", 2)
        start_at = datetime.fromisoformat(at)
        if start_at.tzinfo is None or not source.isascii() or not source.isdigit() or "\0" in record:
            raise ValueError(text)
        return cls(start_at, int(source[:18]), record)

    def __str__(self) -> str:
        return f"{self.start_at.isoformat()}~{self.source_id}~{self.record}"

    def behind(self) -> Q:
        """The first condition leads along the key; the others are about the few that begin at the same moment."""
        same = Q(start_at=self.start_at)
        rest = Q(source_id__lt=self.source_id) | Q(source_id=self.source_id, record__lt=self.record)
        return Q(start_at__lte=self.start_at) & (~same | rest)


class SampleSearch(forms.Form):
    """Which stretch of the key to read: nothing less keeps the query small."""

    patient = forms.CharField(
        max_length=255,
        help_text="external id",
        strip=True,
        error_messages={"required": "Say whose samples: a patient's external id."},
    )
    metric = forms.TypedChoiceField(choices=METRIC_CHOICES, coerce=int)
    start_at = forms.DateTimeField(label="From (UTC)", widget=forms.DateTimeInput(attrs={"type": "datetime-local"}))
    end_at = forms.DateTimeField(label="To (UTC)", widget=forms.DateTimeInput(attrs={"type": "datetime-local"}))

    delivery = forms.IntegerField(required=False, min_value=1, max_value=2**63 - 1, widget=forms.HiddenInput)
    source = forms.IntegerField(required=False, min_value=1, max_value=2**63 - 1, widget=forms.HiddenInput)
    older = forms.CharField(required=False, max_length=1_000, widget=forms.HiddenInput)

    def clean_patient(self) -> Patient:
        wanted = self.cleaned_data["patient"]
        found = Patient.objects.filter(external_id=wanted).first()
        if found is None:
            raise ValidationError("No patient has this external id. It is looked for exactly as it is written.")
        return found

    def clean_older(self) -> Place | None:
        text = self.cleaned_data["older"]
        try:
            return Place.read(text) if text else None
        except ValueError:
            raise ValidationError("The address names no page of these samples: search again.") from None

    def clean(self) -> dict[str, Any]:
        found = self.cleaned_data
        if "start_at" in found and "end_at" in found:
            length = found["end_at"] - found["start_at"]
            if not timedelta(0) < length <= timedelta(days=MOST_DAYS):
                raise ValidationError(f"The range must end after it starts and be {MOST_DAYS} days or less.")
        return found

    def samples(self) -> QuerySet[Sample]:
        """Along the key: patient, metric and a bounded range, against the key's own order, the newest first."""
        wanted = self.cleaned_data
        found = self._of_metric().filter(start_at__gte=wanted["start_at"], start_at__lt=wanted["end_at"])
        for name in ("delivery", "source"):
            if wanted[name]:
                found = found.filter(**{f"{name}_id": wanted[name]})
        if wanted["older"]:
            found = found.filter(wanted["older"].behind())
        return found.select_related("source").order_by("-start_at", "-source_id", "-record")

    def nearest(self) -> list[datetime]:
        """Where there is nothing, when the last sample before the range begins, and the first one behind it."""
        before = self._of_metric().filter(start_at__lt=self.cleaned_data["start_at"]).order_by("-start_at")
        behind = self._of_metric().filter(start_at__gte=self.cleaned_data["end_at"]).order_by("start_at")
        return [at for rows in (before, behind) for at in rows.values_list("start_at", flat=True)[:1]]

    def _of_metric(self) -> QuerySet[Sample]:
        return Sample.objects.filter(patient_id=self.cleaned_data["patient"].pk, metric=self.cleaned_data["metric"])

    def address(self, **other: Any) -> str:
        """This search, but for what is `other`."""
        query = {**self.data, **other, "days": ""}
        return f"?{urlencode({name: value for name, value in query.items() if value})}"

    def around(self, at: datetime) -> tuple[datetime, str]:
        """A moment, and the search for its day."""
        start_at, end_at = at.astimezone(UTC) - DAY / 2, at.astimezone(UTC) + DAY / 2
        range_ = {"start_at": f"{start_at:{WRITTEN}}", "end_at": f"{end_at:{WRITTEN}}"}
        return at, self.address(**range_, **dict.fromkeys(("older", "source", "delivery"), ""))


@dataclass(frozen=True, slots=True)
class Row:
    """Ready to be written, since there are many: times by the clock on the wall where the device was, and in UTC.

    A sample of a moment has no `end_at`.
    """

    sample: Sample
    amount: str
    start_at: str
    start_utc: str
    end_at: str
    end_utc: str
    revised_at: str
    source: str
    delivery: str


@admin.register(Sample)
class SampleAdmin(Untouched, TypedAdmin[Sample]):
    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.changelist_view)
        return [path("", view, name="biometrics_sample_changelist")]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        sent = asked(request.GET)
        form = SampleSearch(sent, initial={"metric": USUAL}) if sent else SampleSearch(initial=_last_day())
        if form.is_valid():
            note(request, form.cleaned_data["patient"], detail=BY_NUMBER[form.cleaned_data["metric"]].name)
        context = {
            **self.admin_site.each_context(request),
            "title": "Samples",
            "opts": Sample._meta,
            "form": form,
            "presets": PRESETS.items(),
            "page": PAGE,
            **(_found(form) if form.is_valid() else {}),
            **(extra_context or {}),
        }
        return TemplateResponse(request, "console/admin/samples.html", context)


def _found(form: SampleSearch) -> dict[str, Any]:
    samples = list(form.samples()[: PAGE + 1])
    zone = zone_of(form.cleaned_data["patient"])
    return {
        "whose": form.cleaned_data["patient"],
        "what": label(form.cleaned_data["metric"]),
        "zone": zone.key,
        "rows": list(_rows(samples[:PAGE], zone)),
        "older": form.address(older=Place.of(samples[PAGE - 1])) if len(samples) > PAGE else "",
        "newest": form.address(older="") if form.cleaned_data["older"] else "",
        "nearest": [] if samples else [form.around(at) for at in form.nearest()],
    }


def asked(query: Mapping[str, Any]) -> dict[str, str]:
    """What the form was sent, with the last day and a metric where it does not say which.

    A preset of so many days, today's included, takes the place of its dates. Days are UTC's.
    """
    sent = {name: str(value) for name, value in query.items() if name in {*SampleSearch.base_fields, "days"}}
    if not sent:
        return {}
    if sent.get("days") in PRESETS:
        today = clock.now().replace(hour=0, minute=0)
        start_at, end_at = today - timedelta(days=int(sent["days"]) - 1), today + DAY
        sent |= {"start_at": f"{start_at:{WRITTEN}}", "end_at": f"{end_at:{WRITTEN}}"}
    return sent | _missing(sent)


def _missing(sent: Mapping[str, str]) -> dict[str, str]:
    """A day up to the end, or from the start on, or up to now. What is no time is left for the form to refuse."""
    found = {} if sent.get("metric") else {"metric": str(USUAL)}
    start, end = (_read(sent.get(name, "")) for name in ("start_at", "end_at"))
    if not sent.get("end_at"):
        end = start + DAY if start else _now()
        found["end_at"] = f"{end:{WRITTEN}}"
    if not sent.get("start_at") and end:
        found["start_at"] = f"{end - DAY:{WRITTEN}}"
    return found


def _read(text: str) -> datetime | None:
    try:
        return parse_datetime(text)
    except ValueError:
        return None


def _now() -> datetime:
    """With the minute that is running."""
    return clock.now() + timedelta(minutes=1)


def _last_day() -> dict[str, Any]:
    return {"metric": USUAL, "start_at": f"{_now() - DAY:{WRITTEN}}", "end_at": f"{_now():{WRITTEN}}"}


def _rows(samples: Sequence[Sample], zone: ZoneInfo) -> Iterator[Row]:
    """With the addresses of their devices and deliveries, of which many have the same."""
    sources = {one: reverse("admin:biometrics_source_change", args=[one]) for one in {s.source_id for s in samples}}
    deliveries = {
        one: reverse("admin:webhooks_delivery_change", args=[one]) for one in {s.delivery_id for s in samples}
    }
    for sample in samples:
        start, end, there = sample.start_at, sample.end_at, _zone_of(sample, zone)
        moment = start == end
        yield Row(
            sample,
            amount(sample.metric, sample.value),
            _on_the_wall(start.astimezone(there)),
            _utc(start),
            "" if moment else _on_the_wall(end.astimezone(there)),
            "" if moment else _utc(end),
            _utc(sample.revised_at),
            sources[sample.source_id],
            deliveries[sample.delivery_id],
        )


def _zone_of(sample: Sample, zone: ZoneInfo) -> tzinfo:
    """By the offset the device wrote, else the patient's zone."""
    offset = sample.utc_offset_minutes
    return zone if offset is None else timezone(timedelta(minutes=offset))


def _on_the_wall(at: datetime) -> str:
    text = at.isoformat(" ", "seconds")
    return f"{text[:-6]} {text[-6:]}"


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(" ", "seconds")[:-6]
