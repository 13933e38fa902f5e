"""Exports: ask for a file, see how far it is, take it away. Each caller has their own, and sees no other."""

from collections.abc import Mapping
from typing import Any, ClassVar

from django.db.models import QuerySet
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.urls import reverse
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from auren.audit.trail import note
from auren.console.api.access import user_of
from auren.console.api.asking import Body, Instant, Listed, MetricNames, Number, Query, within
from auren.console.api.lists import ListView, page_of
from auren.console.api.problems import Problem
from auren.console.api.views import ApiView, CostlyView
from auren.console.exports.asking import CannotBeMade, TooMany, Unfit, Wanted, ask, exportable, exports_of, is_ready
from auren.console.exports.formats import FORMATS
from auren.console.exports.models import ALL_METRICS
from auren.console.exports.models import Export as ExportRow
from auren.console.exports.sending import answer

MOST_DAYS = 36_525  # the hundred years that a time may lie in
SOURCES = [("all", "all"), ("settled", "settled")]


class Renamed(serializers.Serializer[Any]):
    """What Python keeps to itself is written with `_` behind it: `from_` is the field `from`."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {name.rstrip("_"): field for name, field in super().get_fields().items()}


class Export(Renamed, serializers.ModelSerializer[ExportRow]):
    patient_id = Number()
    from_ = serializers.DateTimeField(source="start_at")
    to = serializers.DateTimeField(source="end_at")
    metrics = serializers.ListField(child=serializers.ChoiceField(choices=ALL_METRICS), help_text="None: all of them.")
    sources = serializers.SerializerMethodField()
    content = serializers.SerializerMethodField(help_text="Where the file is, while there is one.")

    class Meta:
        model = ExportRow
        fields = (
            *("id", "patient_id", "format", "from_", "to", "metrics", "sources", "state", "samples_done"),
            *("samples_total", "error", "requested_at", "finished_at", "expires_at", "content"),
        )

    def get_sources(self, export: ExportRow) -> str:
        return "all" if export.every_source else "settled"

    def get_content(self, export: ExportRow) -> str | None:
        return reverse("api-export-content", args=[export.pk]) if export.state == "done" else None


class NewExport(Renamed, Body):
    patient_id = Number(help_text="Whose samples.")
    format = serializers.ChoiceField(choices=[(one.name, one.label) for one in FORMATS.values()])
    from_ = Instant(help_text="Samples that start at this time or later, with its zone.")
    to = Instant(help_text="Samples that start before this time, with its zone.")
    metrics = MetricNames(required=False, max_length=len(ALL_METRICS), help_text="Of these alone; else of all.")
    sources = serializers.ChoiceField(
        choices=SOURCES, default="all", help_text="Every device's, or only what the timeline counts."
    )


class ExportsAsked(Listed):
    patient_id = Number(required=False, help_text="Of this patient.")
    state = serializers.ChoiceField(choices=ExportRow.STATES, required=False, help_text="In this state.")


EXAMPLE = {
    "id": 12,
    "patient_id": 7,
    "format": "csv",
    "from": "2026-11-01T00:00:00Z",
    "to": "2026-11-24T00:00:00Z",
    "metrics": ["heart_rate"],
    "sources": "all",
    "state": "done",
    "samples_done": 397440,
    "samples_total": 397440,
    "error": "",
    "requested_at": "2026-11-24T06:58:03.412907Z",
    "finished_at": "2026-11-24T06:58:14.003114Z",
    "expires_at": "2026-11-25T06:58:14.003114Z",
    "content": "/api/v1/exports/12/content",
}
WAITING = {
    **EXAMPLE,
    "state": "waiting",
    "samples_done": 0,
    "samples_total": None,
    **dict.fromkeys(("finished_at", "expires_at", "content")),
}


class AskForExport(ApiView):
    """A short one is `done` at once. A long one is `waiting`, then `running`: ask for it again until it is `done`.

    A `pdf` is a report: of the patient's whole days that the range touches, 366 at most, without those to come. It
    chooses its metrics itself, takes what the timeline counts, and always waits to be made.
    That it was asked for is written down, and stays so. 409 while five of yours are not finished, and for a report
    where the system lacks libraries, which the answer names.
    """

    operation = "ask_for_export"
    summary = "Ask for a patient's samples as a file"
    example = WAITING
    body = NewExport
    shown = Export
    status = 201
    tells = ("bad-range", "not-possible", "not-found")


class Exports(ListView):
    """Newest first: those you asked for, of patients you may still see."""

    operation = "list_exports"
    summary = "Your exports"
    example = page_of(EXAMPLE)
    query = ExportsAsked
    shown = Export
    order = ("-id",)
    by_method: ClassVar[dict[str, type[ApiView]]] = {"POST": AskForExport}

    def found(self, request: Request, asked: Mapping[str, Any]) -> QuerySet[ExportRow]:
        wanted = {name: asked[name] for name in ("patient_id", "state") if name in asked}
        return exports_of(user_of(request)).filter(**wanted)

    def post(self, request: Request) -> Response:
        Query.of(request)
        asked = NewExport.of(request)
        within(asked, MOST_DAYS)
        person = get_object_or_404(exportable(user_of(request)), pk=asked["patient_id"])
        try:
            export = ask(user_of(request), person, _wanted(asked), who=request)
        except (TooMany, CannotBeMade) as error:
            raise Problem("not-possible", str(error)) from error
        except Unfit as error:
            raise Problem("bad-range", str(error)) from error
        address = reverse("api-export", args=[export.pk])
        return Response(Export(export).data, status=201, headers={"Location": address})


def _wanted(asked: Mapping[str, Any]) -> Wanted:
    names = tuple(metric.name for metric in asked.get("metrics", ()))
    return Wanted(asked["from"], asked["to"], asked["format"], names, every_source=asked["sources"] == "all")


def _mine(request: Request, pk: int) -> ExportRow:
    return get_object_or_404(exports_of(user_of(request)), pk=pk)


class OneExport(ApiView):
    """`samples_done` of `samples_total` is how far it is."""

    operation = "get_export"
    summary = "One of your exports, and how far it is"
    example = EXAMPLE
    shown = Export

    def get(self, request: Request, pk: int) -> Response:
        Query.of(request)
        export = _mine(request, pk)
        note(request, export)
        return Response(Export(export).data)


class ExportContent(CostlyView):
    """CSV, a FHIR R4 Bundle or a report as PDF, as docs/exports.md has them, compressed for whoever takes gzip.

    409 while it is not made yet, and when it is not there any more.
    """

    operation = "get_export_content"
    summary = "An export's file"
    example = None
    shown = Export
    files = ("text/csv", "application/fhir+json", "application/pdf")
    tells = ("not-possible",)

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:  # noqa: ARG002
        """The file is what it is, whatever `Accept` says; problems are JSON."""
        renderer = self.get_renderers()[0]
        return renderer, renderer.media_type

    def get(self, request: Request, pk: int) -> HttpResponseBase:
        Query.of(request)
        export = _mine(request, pk)
        note(request, export, detail=export.format)
        if export.unfinished:
            raise Problem("not-possible", "It is being made: ask for the export until its `state` is `done`.")
        if not is_ready(export):
            raise Problem("not-possible", "There is no file any more, or there never was one: ask for a new export.")
        return answer(request._request, export)


class CancelExport(ApiView):
    """Nothing of it is kept. 409 when it was finished already."""

    operation = "cancel_export"
    summary = "Cancel an export that is not finished"
    example = {**WAITING, "state": "cancelled", "finished_at": "2026-11-24T06:58:09.920001Z"}
    shown = Export
    tells = ("not-possible",)

    def post(self, request: Request, pk: int) -> Response:
        Query.of(request)
        Body.of(request)
        export = _mine(request, pk)
        if not export.cancel(who=request):
            raise Problem("not-possible", "It was finished already.")
        return Response(Export(_mine(request, pk)).data)
