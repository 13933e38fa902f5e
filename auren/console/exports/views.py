"""The pages: ask for an export, watch it being made, download or cancel it. Nobody sees another person's."""

from typing import Any, cast

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from auren.audit.trail import note
from auren.console.exports.asking import CannotBeMade, ExportForm, TooMany, Unfit, ask, exportable, exports_of, is_ready
from auren.console.exports.formats import FORMATS
from auren.console.exports.models import Export
from auren.console.exports.sending import answer, file_name
from auren.console.views import patients_of, private, zone_of
from devices.models import Patient

SHOWN = 10


@require_http_methods(["GET", "HEAD", "POST"])
@private
@login_required
def ask_for_one(request: HttpRequest, pk: int) -> HttpResponse:
    user = cast("User", request.user)
    person = get_object_or_404(exportable(user), pk=pk)
    form = ExportForm(zone_of(person), request.POST if request.method == "POST" else None)
    if form.is_bound and form.is_valid():
        try:
            export = ask(user, person, form.wanted(), who=request)
        except (TooMany, CannotBeMade, Unfit) as error:
            form.add_error(None, str(error))
        else:
            return redirect(reverse("export", args=[export.pk]) + ("?begin" if export.direct else ""))
    context = {
        **_place(user, person),
        "form": form,
        "formats": [(one, one.lacking()) for one in FORMATS.values()],
        "zone": zone_of(person).key,
        "earlier": exports_of(user).filter(patient=person).order_by("-id")[:SHOWN],
    }
    return render(request, "console/export_form.html", context, status=400 if form.is_bound else 200)


@require_safe
@private
@login_required
def progress(request: HttpRequest, pk: int) -> HttpResponse:
    export = _mine(request, pk)
    note(request, export)
    zone = zone_of(export.patient)
    ready = is_ready(export)
    context = {
        **_place(cast("User", request.user), export.patient),
        "export": export,
        "file": file_name(export),
        "format": FORMATS[export.format],
        # Templates turn a time that has a zone into the settings' zone.
        "begins": export.start_at.astimezone(zone).replace(tzinfo=None),
        "ends": export.end_at.astimezone(zone).replace(tzinfo=None),
        "zone": zone.key,
        "ready": ready,
        "begin": ready and "begin" in request.GET,
        "ahead": Export.objects.filter(state="waiting", pk__lt=export.pk).count() if export.state == "waiting" else 0,
    }
    return render(request, "console/export.html", context)


@require_safe
@private
@login_required
def content(request: HttpRequest, pk: int) -> HttpResponseBase:
    export = _mine(request, pk)
    note(request, export, detail=export.format)
    if not is_ready(export):
        return redirect("export", export.pk)
    return answer(request, export)


@require_POST
@private
@login_required
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    export = _mine(request, pk)
    export.cancel(who=request)
    return redirect("export", export.pk)


def _mine(request: HttpRequest, pk: int) -> Export:
    return get_object_or_404(exports_of(cast("User", request.user)), pk=pk)


def _place(user: User, person: Patient) -> dict[str, Any]:
    """The patient, and the page of theirs that leads here: a clinician's or support's."""
    theirs = patients_of(user).filter(pk=person.pk).exists()
    back = reverse("patient", args=[person.pk]) if theirs else reverse("admin:devices_patient_change", args=[person.pk])
    return {"patient": person, "back": back}
