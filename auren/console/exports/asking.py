"""Asking for an export: who may, what may be asked for, and whether it is short enough to be made on the spot."""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django import forms
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.http import QueryDict
from django.utils import timezone

from auren.audit.models import Verb
from auren.audit.trail import record
from auren.biometrics.metrics import METRICS
from auren.biometrics.timeline import Window
from auren.console.exports.formats import FORMATS
from auren.console.exports.models import Export, kept_for
from auren.console.exports.selecting import selection_of
from auren.console.views import DAYS, EARLIEST, LATEST, patients_of, zone_of
from devices.models import Patient

RIGHT = "console.export_samples"
MOST_UNFINISHED = 5  # of one person
MOMENT = timedelta(microseconds=1)


class TooMany(Exception):
    """The text says what to do."""


class CannotBeMade(Exception):
    """Not on this machine: the text says what it lacks."""


class Unfit(Exception):
    """Not of this range or these metrics: the text says what would do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Samples that start from `start_at` to `end_at`; no `metrics` stand for all."""

    start_at: datetime
    end_at: datetime
    format: str
    metrics: tuple[str, ...] = ()
    every_source: bool = True


def exportable(user: User) -> QuerySet[Patient]:
    """The patients whose samples `user` may export at this moment."""
    return Patient.objects.all() if user.has_perm(RIGHT) else patients_of(user)


def exports_of(user: User) -> QuerySet[Export]:
    """Those that `user` asked for, of patients they may still see: a file is for whoever asked, and for nobody else."""
    return Export.objects.filter(user=user, patient__in=exportable(user)).select_related("patient")


def ask(user: User, person: Patient, wanted: Wanted, *, who: Any) -> Export:
    """File it. A short one is done at once; a long one, and any report, waits for `manage.py make_exports`.

    Raises `TooMany`, `CannotBeMade` and `Unfit`.
    """
    if FORMATS[wanted.format].report:
        wanted = report_of(person, wanted)
    export = Export(
        user=user,
        requested_by=user.get_username(),
        patient=person,
        start_at=wanted.start_at,
        end_at=wanted.end_at,
        format=wanted.format,
        metrics=list(wanted.metrics),
        every_source=wanted.every_source,
    )
    if not FORMATS[export.format].report:
        samples = selection_of(export).count(most=settings.SHORT_EXPORT_SAMPLES + 1)
        if samples <= settings.SHORT_EXPORT_SAMPLES:
            finish_at_once(export, samples)
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user.pk)
        if not export.direct and Export.unfinished_of(user) >= MOST_UNFINISHED:
            raise TooMany(f"{MOST_UNFINISHED} exports of yours are not finished: wait for one, or cancel one.")
        export.save()
        record(who, Verb.EXPORT, export, detail=wanted.format)
    export.refresh_from_db(fields=["requested_at"])
    return export


def report_of(person: Patient, wanted: Wanted) -> Wanted:
    """The same of whole days, up to the one that runs: those to come have no data. Raises as `ask` does."""
    kind, zone = FORMATS[wanted.format], zone_of(person)
    if wanted.metrics:
        raise Unfit("A report chooses its metrics itself: name none, or ask for another format.")
    start_at, end_at = Window(person.pk, wanted.start_at, wanted.end_at, zone).whole_days()
    end_at = min(end_at, Window(person.pk, timezone.now(), timezone.now() + MOMENT, zone).whole_days()[1])
    days = (end_at.astimezone(zone).date() - start_at.astimezone(zone).date()).days
    if days < 1:
        raise Unfit("A report cannot begin in the future.")
    if kind.most_days and days > kind.most_days:
        raise Unfit(f"A report is of {kind.most_days} days or fewer; these are {days:,}.")
    if missing := kind.lacking():
        raise CannotBeMade(missing)
    return replace(wanted, start_at=start_at, end_at=end_at, every_source=False)


def finish_at_once(export: Export, samples: int) -> None:
    export.direct, export.state = True, "done"
    export.samples_total = export.samples_done = samples
    export.started_at = export.finished_at = timezone.now()
    export.expires_at = export.finished_at + kept_for()


def outgrown(export: Export) -> bool:
    """Whether a short one has become a long one since it was asked for."""
    most = 2 * settings.SHORT_EXPORT_SAMPLES
    return export.direct and selection_of(export).count(most=most + 1) > most


def is_ready(export: Export) -> bool:
    """Whether there is a file: its time may be over before anybody has taken it away."""
    kept = export.state == "done" and export.expires_at is not None and export.expires_at > timezone.now()
    return kept and not outgrown(export)


class ExportForm(forms.Form):
    """Days are the patient's, both included."""

    start = forms.DateField(label="From", widget=forms.DateInput({"type": "date"}, format="%Y-%m-%d"))
    end = forms.DateField(label="To", widget=forms.DateInput({"type": "date"}, format="%Y-%m-%d"))
    format = forms.ChoiceField(choices=[(one.name, one.label) for one in FORMATS.values()], widget=forms.RadioSelect)
    sources = forms.ChoiceField(
        label="Devices",
        choices=[
            ("all", "Every device, each sample with whether the timeline counts it"),
            ("settled", "Only what the timeline counts"),
        ],
        widget=forms.RadioSelect,
    )
    metrics = forms.MultipleChoiceField(
        required=False,
        choices=[(metric.name, metric.label) for metric in METRICS],
        widget=forms.CheckboxSelectMultiple,
    )

    def __init__(self, zone: ZoneInfo, data: QueryDict | None = None) -> None:
        today = datetime.now(zone).date()
        initial = {"start": today - timedelta(days=DAYS), "end": today, "format": "csv", "sources": "all"}
        super().__init__(data, initial=initial)
        self.zone = zone

    def clean(self) -> dict[str, Any]:
        found = self.cleaned_data
        for name in ("start", "end"):
            if name in found and not EARLIEST.date() <= found[name] < LATEST.date():
                self.add_error(name, ValidationError("Choose a day between the years 2000 and 2099."))
        if "start" in found and "end" in found and found["start"] > found["end"]:
            raise ValidationError("The first day must not be after the last one.")
        return found

    def wanted(self) -> Wanted:
        found = self.cleaned_data
        return Wanted(
            self._midnight(found["start"]),
            self._midnight(found["end"] + timedelta(days=1)),
            found["format"],
            tuple(found["metrics"]),
            every_source=found["sources"] == "all",
        )

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time.min, self.zone).astimezone(UTC)
