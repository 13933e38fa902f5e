"""A conflict on the clinician's pages: looked at by whoever sees the patient, decided by whoever has the right."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, cast
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from auren.audit.models import Verb
from auren.audit.trail import note
from auren.biometrics.models import Conflict
from auren.console import deciding
from auren.console.disputes import Dispute, span
from auren.console.views import patients_of, private, zone_of
from webhooks.overriding import CannotDecide

RIGHT = "biometrics.override_conflict"
AROUND = timedelta(hours=2)


@require_http_methods(["GET", "HEAD", "POST"])
@private
@login_required
def conflict(request: HttpRequest, pk: int, number: int) -> HttpResponse:
    """POST: `act` is `override` or `undo`; without `confirmed` the answer is what would change."""
    dispute = _dispute(request, pk, number)
    note(request, dispute.conflict)
    if request.method != "POST":
        return _page(request, dispute)
    if not request.user.has_perm(RIGHT):
        raise PermissionDenied
    try:
        return _undo(request, dispute) if request.POST.get("act") == "undo" else _override(request, dispute)
    except CannotDecide as reason:
        messages.error(request, str(reason))
        return _back(dispute)


def _dispute(request: HttpRequest, pk: int, number: int) -> Dispute:
    person = get_object_or_404(patients_of(cast("User", request.user)), pk=pk)
    found = Conflict.objects.select_related("preference").filter(patient_id=person.pk)
    return Dispute(get_object_or_404(found, pk=number), person, zone_of(person))


def _override(request: HttpRequest, dispute: Dispute) -> HttpResponse:
    form = deciding.Choice(dispute, request.POST)
    if not form.is_valid() or "again" in request.POST:
        return _page(request, dispute, form)
    by, asked = request.user.get_username(), form.cleaned_data
    act = lambda: deciding.override(dispute, asked, by=by)  # noqa: E731 - said in place
    consequence = deciding.reach(asked, dispute)
    if "confirmed" in request.POST:
        return _decided(request, dispute, asked, act, consequence, verb=Verb.OVERRIDE)
    changes = deciding.foresee(dispute, act)
    deciding.hide(form)
    return _foreseen(request, dispute, form, act="override", consequence=consequence, changes=changes)


def _undo(request: HttpRequest, dispute: Dispute) -> HttpResponse:
    consequence, by = deciding.taken_back(dispute), request.user.get_username()
    sent = request.POST if "confirmed" in request.POST else None
    form = deciding.Reason(sent, initial={"seen": deciding.seen(dispute.conflict)})
    if form.is_valid():
        act = lambda: deciding.undo(dispute, form.cleaned_data["note"], by=by)  # noqa: E731 - said in place
        return _decided(request, dispute, form.cleaned_data, act, consequence, verb=Verb.UNDO)
    changes = deciding.foresee(dispute, lambda: deciding.undo(dispute, "what would change", by=by))
    return _foreseen(request, dispute, form, act="undo", consequence=consequence, changes=changes)


def _decided(
    request: HttpRequest,
    dispute: Dispute,
    asked: dict[str, Any],
    act: Callable[[], object],
    consequence: str,
    *,
    verb: Verb,
) -> HttpResponse:
    done = f"{consequence} “{asked['note']}”"
    deciding.carry_out(request, dispute, asked["seen"], act, verb, done)
    messages.success(request, f"Done: {done}")
    return _back(dispute)


def _back(dispute: Dispute) -> HttpResponse:
    """To the conflict, or, where nothing is left of it, to the timeline."""
    if Conflict.objects.filter(pk=dispute.conflict.pk).exists():
        return redirect("conflict", dispute.patient.pk, dispute.conflict.pk)
    return redirect(timeline_of(dispute))


def timeline_of(dispute: Dispute) -> str:
    """The timeline around the conflict and its neighbours."""
    start, end = dispute.stretch
    query = urlencode({"from": _written(start - AROUND), "to": _written(end + AROUND)})
    return f"{reverse('patient', args=[dispute.patient.pk])}?{query}"


def _written(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _page(request: HttpRequest, dispute: Dispute, form: deciding.Choice | None = None) -> HttpResponse:
    may = request.user.has_perm(RIGHT)
    context = {
        "form": (form or deciding.Choice(dispute)) if may else None,
        "may_undo": may and dispute.conflict.preference_id is not None,
    }
    return render(request, "console/conflict.html", _about(dispute) | context)


def _foreseen(request: HttpRequest, dispute: Dispute, form: deciding.Reason, **words: Any) -> HttpResponse:
    return render(request, "console/conflict_decide.html", _about(dispute) | {"form": form, **words})


def _about(dispute: Dispute) -> dict[str, Any]:
    return {
        "patient": dispute.patient,
        "dispute": dispute,
        "sides": [(side, "") for side in dispute.sides],
        "when": span(dispute.conflict.start_at, dispute.conflict.end_at, dispute.zone),
        "timeline": timeline_of(dispute),
    }
