"""The clinician's pages. Whoever may not see a patient is told exactly what they would be told of nobody: 404."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast
from zoneinfo import ZoneInfo

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.db.models import Prefetch, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotModified, JsonResponse, QueryDict
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from auren.audit.trail import note
from auren.biometrics import baseline, timeline, windows
from auren.biometrics.models import Conflict
from auren.console import days, gaps, lanes
from auren.console.colours import devices_of
from devices.models import Link, Patient

DAYS = 14
MOST_DAYS = 190
LEAST_POINTS, DEFAULT_POINTS = 10, 1_500
MOST_PATIENTS = 500
NIGHT_LANES = ("sleep", "heart_rate", "hrv", "spo2", "respiration")
SORTS = ("name", "last", "flags", "conflicts")
FRESH = timedelta(days=2)  # of a value that is called unusual: older ones say nothing about now
QUIET_DAYS = 2  # without data for longer, somebody should look
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)

private = cache_control(private=True, no_store=True)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of "my patients"."""

    patient: Patient
    links: list[Link]
    last_at: datetime | None
    conflicts: int
    flags: list[str]


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
    rows = _sorted(_rows(_matching(mine, wanted)), sort)
    note(request, *(row.patient for row in rows))
    context = {
        "rows": rows,
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
    unusual = _unusual(shown)
    return [
        Row(
            patient,
            list(patient.links.all()),
            last_at := last.get(patient.pk),
            disputed[patient.pk],
            [*_silence(last_at), *unusual.get(patient.pk, [])],
        )
        for patient in shown
    ]


def _silence(last_at: datetime | None) -> list[str]:
    if last_at is None:
        return []  # the list says so in place of a time
    quiet = (timezone.now() - last_at).days
    return [f"no data for {quiet} days"] if quiet >= QUIET_DAYS else []


def _unusual(shown: Sequence[Patient]) -> dict[int, list[str]]:
    """Of each patient, what yesterday's or today's value says beyond the own usual range."""
    zones = {patient.pk: zone_of(patient) for patient in shown}
    now = timezone.now()
    found: dict[int, list[str]] = {}
    for (patient_id, _), daily in sorted(baseline.daily(zones, now).items()):
        if daily.last_is_outside and now.astimezone(zones[patient_id]).date() - daily.days[-1] < FRESH:
            found.setdefault(patient_id, []).append(lanes.unusual(daily))
    return found


def _sorted(rows: list[Row], sort: str) -> list[Row]:
    """By name as they come; else what needs a look first: the longest silence, the most open conflicts."""
    if sort == "last":
        return sorted(rows, key=lambda row: row.last_at or EARLIEST)
    if sort == "flags":
        return sorted(rows, key=lambda row: -len(row.flags))
    if sort == "conflicts":
        return sorted(rows, key=lambda row: -row.conflicts)
    return rows


@require_safe
@private
@login_required
def patient(request: HttpRequest, pk: int) -> HttpResponse:
    person = get_object_or_404(patients_of(cast("User", request.user)), pk=pk)
    window, refused = _window_of_page(person, request.GET)
    context = {
        "patient": person,
        "links": person.links.order_by("vendor", "id"),
        "lanes": lanes.LANES,
        "days": DAYS,
        "most_days": MOST_DAYS,
        "refused": refused,
        "view": _view(window),
        "today": timezone.now().astimezone(window.zone).date(),
    }
    return render(request, "console/patient.html", context)


def _view(window: timeline.Window) -> dict[str, Any]:
    """What the page's scripts begin with."""
    return {
        "from": window.start_at.timestamp(),
        "to": window.end_at.timestamp(),
        "zone": window.zone.key,
        "days": DAYS,
        "every_source": window.every_source,
        "devices": devices_of(window.patient_id),
    }


def _window_of_page(person: Patient, asked: QueryDict) -> tuple[timeline.Window, str]:
    """The view that the address holds, and what was wrong with it when it is the usual one instead."""
    try:
        return window_of(person, asked), ""
    except ValueError as error:
        return window_of(person, QueryDict()), str(error)


@require_safe
@private
@login_required
def calendar(request: HttpRequest, pk: int) -> HttpResponse:
    """Three months that end today, or with the day `to`."""
    person = get_object_or_404(patients_of(cast("User", request.user)), pk=pk)
    today = timezone.now().astimezone(zone_of(person)).date()
    last = min(_day(request.GET.get("to", "")) or today, today)
    step = timedelta(days=days.CALENDAR_DAYS)
    context = {
        "patient": person,
        "weeks": days.calendar(person.pk, last, zone_of(person)),
        "metrics": {metric.name: metric for metric in days.CALENDAR},
        "last": last,
        "earlier": last - step if last - step > EARLIEST.date() else None,
        "later": min(last + step, today) if last < today else None,
    }
    return render(request, "console/calendar.html", context)


@require_safe
@private
@login_required
def night(request: HttpRequest, pk: int, day: str) -> HttpResponse:
    """The night that ends on `day`, or that there was none."""
    person = get_object_or_404(patients_of(cast("User", request.user)), pk=pk)
    wanted = _day(day)
    if wanted is None:
        raise Http404
    zone = zone_of(person)
    found = days.night(person.pk, wanted, zone)
    context = {
        "patient": person,
        "day": wanted,
        "night": found,
        "zone": zone.key,
        "before": wanted - timedelta(days=1),
        "after": wanted + timedelta(days=1) if wanted < timezone.now().astimezone(zone).date() else None,
        "lanes": [lanes.BY_KEY[key] for key in NIGHT_LANES],
        "most_days": MOST_DAYS,
    }
    if found:
        context["view"] = _view(timeline.Window(person.pk, *found.shown, zone))
    return render(request, "console/night.html", context)


def _day(text: str) -> date | None:
    """A day between the years the timeline knows; None for anything else."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if EARLIEST.date() < day < LATEST.date() else None


@require_safe
@private
def timeline_json(request: HttpRequest, pk: int) -> HttpResponse:
    if not request.user.is_authenticated:
        return problem(401, "Sign in first", "Your session has ended. Sign in and load the page again.")
    person = get_object_or_404(patients_of(request.user), pk=pk)
    try:
        window, shown = window_of(person, request.GET), _lanes(request.GET)
    except ValueError as error:
        return problem(400, "The request cannot be understood", str(error))
    known = request.headers.get("If-None-Match", "")
    metrics = [metric for lane in shown for metric in lane.metrics]
    beside = gaps.stand(person.pk)
    found = windows.rendered(window.aligned(), metrics, lanes.as_bytes, known=known, beside=beside)
    headers = {"ETag": found.etag}
    if found.body is None:
        return HttpResponseNotModified(headers=headers)
    return HttpResponse(found.body, content_type="application/json", headers=headers)


def _lanes(asked: QueryDict) -> tuple[lanes.Lane, ...]:
    keys = [key for key in asked.get("lanes", "").split(",") if key]
    unknown = [key for key in keys if key not in lanes.BY_KEY]
    if unknown:
        raise ValueError(f"`lanes` may only name {', '.join(lanes.BY_KEY)}.")
    return tuple(lanes.BY_KEY[key] for key in dict.fromkeys(keys)) or lanes.LANES


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
    start_at = _instant(asked, "from", end_at - _length(asked))
    if start_at >= end_at:
        raise ValueError("`from` must be before `to`.")
    if end_at - start_at > timedelta(days=MOST_DAYS):
        raise ValueError(f"`from` to `to` must be {MOST_DAYS} days or less.")
    if asked.get("sources", "") not in {"", "all"}:
        raise ValueError("`sources` may only be `all`.")
    return timeline.Window(
        person.pk, start_at, end_at, zone_of(person), _points(asked), every_source=asked.get("sources") == "all"
    )


def _length(asked: QueryDict) -> timedelta:
    text = asked.get("days", str(DAYS))
    try:
        length = float(text)
    except ValueError:
        length = 0.0
    if not 0 < length <= MOST_DAYS:
        raise ValueError(f"`days` must be a number up to {MOST_DAYS}.")
    return timedelta(days=length)


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
