"""How support narrows the list of deliveries, and how many there are in each state."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.core.cache import cache
from django.db import connection
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import TextFilter

from auren.admin import MOST_COUNTED
from devices.models import Link
from webhooks.models import Delivery

STUCK_AFTER = timedelta(minutes=15)
Ages = Mapping[str, tuple[str, timedelta]]
AGES = {
    "hour": ("in the last hour", timedelta(hours=1)),
    "day": ("in the last 24 hours", timedelta(days=1)),
    "week": ("in the last 7 days", timedelta(days=7)),
}
OLDER = {
    "over-15m": ("more than 15 minutes ago", timedelta(minutes=15)),
    "over-day": ("more than a day ago", timedelta(days=1)),
}
NO_ERROR = "none"
REMEMBER = 5  # seconds


def stuck() -> Q:
    """Dead, or waiting for over 15 minutes without a wait that was planned.

    What is stored has an outbox until it is published; saying so lets each part go along its own index.
    """
    limit = timezone.now() - STUCK_AFTER
    waiting = Q(state__in=["received", "retrying"], received_at__lt=limit)
    unpublished = Q(state="stored", outbox__isnull=False, stored_at__lt=limit)
    return Q(state="dead") | Q(waiting, planned_wait=False) | Q(unpublished, planned_wait=False)


class Choice(admin.SimpleListFilter):
    """One of a few. Unfold keeps what was chosen, while another filter's form is sent, by these two names."""

    @property
    def lookup_kwarg(self) -> str:
        return str(self.parameter_name)

    @property
    def lookup_val(self) -> list[str]:
        return [self.value() or ""]


class StuckFilter(Choice):
    title = "stuck"
    parameter_name = "stuck"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [("yes", "Stuck")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> QuerySet[Delivery]:  # noqa: ARG002
        return queryset.filter(stuck()) if self.value() == "yes" else queryset


class AgeFilter(Choice):
    """By how long ago `field` is: up to one of `ages`, or beyond one of those `older`; each has words for it."""

    title = "received"
    parameter_name = "age"
    field = "received_at"
    ages: Ages = AGES
    older: Ages = OLDER

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(name, words) for name, (words, _) in {**self.ages, **self.older}.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:  # noqa: ARG002
        name = self.value() or ""
        if name in self.ages:
            return queryset.filter(**{f"{self.field}__gte": timezone.now() - self.ages[name][1]})
        if name in self.older:
            return queryset.filter(**{f"{self.field}__lt": timezone.now() - self.older[name][1]})
        return queryset


class EventFilter(TextFilter):  # type: ignore[misc]  # unfold has no types
    title = "event type"
    parameter_name = "event"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> QuerySet[Delivery]:  # noqa: ARG002
        return queryset.filter(event_type=self.value().strip()) if self.value() else queryset


class ErrorFilter(TextFilter):  # type: ignore[misc]  # likewise
    """The class of the error, as the attempts name it; `none` for those without one."""

    title = "error class"
    parameter_name = "error"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> QuerySet[Delivery]:  # noqa: ARG002
        wanted = (self.value() or "").strip()
        return queryset.filter(error_class="" if wanted == NO_ERROR else wanted) if wanted else queryset


class PatientFilter(TextFilter):  # type: ignore[misc]  # likewise
    """By external id, exactly: the deliveries of their links, and those of their phone that wait for one."""

    title = "patient's external id"
    parameter_name = "patient"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> QuerySet[Delivery]:  # noqa: ARG002
        wanted = (self.value() or "").strip()
        return queryset.filter(of_patient(wanted)) if wanted else queryset


def of_patient(external_id: str) -> Q:
    links = list(Link.objects.filter(patient__external_id=external_id).values_list("pk", flat=True))
    return Q(link__in=links) | Q(state="unlinked", link=None, vendor="healthkit", vendor_user_id=external_id)


@dataclass(frozen=True)
class Number:
    """How many: exactly, or `more` than counted, or `about` as many by PostgreSQL's own statistics."""

    count: int
    more: bool = False
    about: bool = False

    @classmethod
    def of(cls, rows: QuerySet[Any]) -> "Number":
        """Counted as far as lists count, so that a number and its list say the same."""
        count = rows.order_by()[: MOST_COUNTED + 1].count()
        return cls(min(count, MOST_COUNTED), more=count > MOST_COUNTED)

    def __str__(self) -> str:
        return f"{'about ' if self.about else ''}{self.count:,}{'+' if self.more else ''}"

    def __bool__(self) -> bool:
        return self.count > 0


def by_state() -> dict[str, Number]:
    """Each state along an index of its own; published ones, the bulk, by what PostgreSQL estimates of the table."""
    known: dict[str, Number] | None = cache.get("deliveries by state")
    if known is None:
        known = _by_state()
        cache.set("deliveries by state", known, REMEMBER)
    return known


def _by_state() -> dict[str, Number]:
    found = {state: Number.of(in_state(state)) for state, _ in Delivery.STATES if state != "published"}
    published = Number.of(in_state("published"))
    if published.more:
        others = sum(number.count for number in found.values())
        published = Number(max(MOST_COUNTED, _rows() - others), about=True)
    return {state: found.get(state, published) for state, _ in Delivery.STATES}


def in_state(state: str) -> QuerySet[Delivery]:
    """Stored ones are those with an outbox: that is what their index is of."""
    rows = Delivery.objects.filter(state=state)
    return rows.filter(outbox__isnull=False) if state == "stored" else rows


def _rows() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'webhooks_delivery'::regclass")
        (estimate,) = cursor.fetchone()
    return int(estimate)
