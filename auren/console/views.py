"""The clinician's pages. Whoever may not see a patient is told exactly what they would be told of nobody: 404."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast
from zoneinfo import ZoneInfo

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified, JsonResponse, QueryDict
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from auren.biometrics import timeline, windows
from auren.biometrics.models import Conflict
from auren.console import lanes
from devices.models import Link, Patient

DAYS = 14
MOST_DAYS = 92
LEAST_POINTS, DEFAULT_POINTS = 10, 1_500
MOST_PATIENTS = 500
SORTS = ("name", "last", "conflicts")
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)

private = cache_control(private=True, no_store=True)


class SignIn(LoginView):
    template_name = "console/sign_in.html"
    redirect_authenticated_user = True


@dataclass(frozen=True, slots=True)
class Row:
    """One line of "my patients"."""

    patient: Patient
    links: list[Link]
    last_at: datetime | None
    conflicts: int


def patients_of(user: User) -> QuerySet[Patient]:
    """The patients assigned to `user` at this moment; nobody's for whoever is not in the clinician group."""
    now = timezone.now()
    if not user.groups.filter(name="clinician").exists():
        return Patient.objects.none()
    current = Q(assignments__until=None) | Q(assignments__until__gt=now)
    return Patient.objects.filter(current, assignments__clinician=user, assignments__since__lte=now).distinct()


@require_safe
@private
@login_required
def patients(request: HttpRequest) -> HttpResponse:
    user = cast("User", request.user)
    mine = patients_of(user)
    wanted = request.GET.get("q", "").strip()
    sort = request.GET.get("sort", "name")
    sort = sort if sort in SORTS else "name"
    context = {
        "rows": _sorted(_rows(_matching(mine, wanted)), sort),
        "q": wanted,
        "sort": sort,
        "sorts": SORTS,
        "any": mine.exists(),
        "last_seen_days": timeline.LAST_SEEN_DAYS,
        "most": MOST_PATIENTS,
    }
    return render(request, "console/patients.html", context)


def _matching(mine: QuerySet[Patient], wanted: str) -> QuerySet[Patient]:
    if "\0" in wanted:  # PostgreSQL takes none, so no name has one
        return mine.none()
    if wanted:
        mine = mine.filter(Q(display_name__icontains=wanted) | Q(external_id__icontains=wanted))
    links = Prefetch("links", Link.objects.order_by("vendor", "id"))
    return mine.order_by("display_name", "id").prefetch_related(links)[:MOST_PATIENTS]


def _rows(mine: QuerySet[Patient]) -> list[Row]:
    shown = list(mine)
    numbers = [patient.pk for patient in shown]
    last = timeline.last_sample_at(numbers, lanes.METRICS)
    disputed = Counter(
        Conflict.objects.filter(patient_id__in=numbers, state="open").values_list("patient_id", flat=True)
    )
    return [Row(patient, list(patient.links.all()), last.get(patient.pk), disputed[patient.pk]) for patient in shown]


def _sorted(rows: list[Row], sort: str) -> list[Row]:
    """By name as they come; else what needs a look first: the longest silence, the most open conflicts."""
    if sort == "last":
        return sorted(rows, key=lambda row: row.last_at or EARLIEST)
    if sort == "conflicts":
        return sorted(rows, key=lambda row: -row.conflicts)
    return rows


@require_safe
@private
@login_required
def patient(request: HttpRequest, pk: int) -> HttpResponse:
    person = get_object_or_404(patients_of(cast("User", request.user)), pk=pk)
    now = timezone.now()
    context = {
        "patient": person,
        "links": person.links.order_by("vendor", "id"),
        "lanes": lanes.LANES,
        "days": DAYS,
        "view": {"from": (now - timedelta(days=DAYS)).timestamp(), "to": now.timestamp(), "zone": zone_of(person).key},
    }
    return render(request, "console/patient.html", context)


@require_safe
@private
def timeline_json(request: HttpRequest, pk: int) -> HttpResponse:
    if not request.user.is_authenticated:
        return problem(401, "Sign in first", "Your session has ended. Sign in and load the page again.")
    person = get_object_or_404(patients_of(request.user), pk=pk)
    try:
        window = window_of(person, request.GET)
    except ValueError as error:
        return problem(400, "The request cannot be understood", str(error))
    known = request.headers.get("If-None-Match", "")
    found = windows.rendered(window.aligned(), lanes.METRICS, lanes.as_bytes, known=known)
    headers = {"ETag": found.etag}
    if found.body is None:
        return HttpResponseNotModified(headers=headers)
    return HttpResponse(found.body, content_type="application/json", headers=headers)


def problem(status: int, title: str, detail: str) -> JsonResponse:
    """An RFC 9457 answer."""
    body = {"type": "about:blank", "status": status, "title": title, "detail": detail}
    return JsonResponse(body, status=status, content_type="application/problem+json")


def zone_of(person: Patient) -> ZoneInfo:
    """The patient's zone. The admin refuses names that are none; UTC stands in for one that came otherwise."""
    try:
        return ZoneInfo(person.timezone)
    except (KeyError, ValueError, OSError):  # not found, not a name, a folder
        return ZoneInfo("UTC")


def window_of(person: Patient, asked: QueryDict) -> timeline.Window:
    """What `asked` names, with defaults for what it leaves out. ValueError says what is wrong and what would do."""
    end_at = _instant(asked, "to", timezone.now())
    start_at = _instant(asked, "from", end_at - timedelta(days=DAYS))
    if start_at >= end_at:
        raise ValueError("`from` must be before `to`.")
    if end_at - start_at > timedelta(days=MOST_DAYS):
        raise ValueError(f"`from` to `to` must be {MOST_DAYS} days or less.")
    if asked.get("sources", "") not in {"", "all"}:
        raise ValueError("`sources` may only be `all`.")
    return timeline.Window(
        person.pk, start_at, end_at, zone_of(person), _points(asked), every_source=asked.get("sources") == "all"
    )


def _instant(asked: QueryDict, name: str, default: datetime) -> datetime:
    text = asked.get(name)
    if text is None:
        return default
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"`{name}` is not a time such as 2026-11-13T03:00:00Z.") from None
    if value.tzinfo is None:
        raise ValueError(f"`{name}` has no time zone: end it with Z, or with an offset such as %2B01:00.")
    if not EARLIEST <= value <= LATEST:
        raise ValueError(f"`{name}` must lie between the years 2000 and 2100.")
    return value.astimezone(UTC)


def _points(asked: QueryDict) -> int:
    text = asked.get("points", str(DEFAULT_POINTS))
    if not (text.isascii() and text.isdigit() and LEAST_POINTS <= int(text[:9]) <= timeline.MOST_POINTS):
        raise ValueError(f"`points` must be a whole number from {LEAST_POINTS} to {timeline.MOST_POINTS}.")
    return int(text)
