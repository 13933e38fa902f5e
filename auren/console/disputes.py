"""One conflict for those who decide it: who said what, by how much they differ, what decided and why.

The page of support's admin and the clinician's are made of the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from zoneinfo import ZoneInfo

from django.db.models import Q

from auren.biometrics import timeline
from auren.biometrics.metrics import BY_NUMBER, Metric
from auren.biometrics.models import Conflict, Preference, Source
from auren.biometrics.timeline import Told
from auren.console import lanes
from auren.console.colours import colours, devices_of
from auren.console.dispute_charts import Chart, chart_of
from devices.models import Link, Patient

REACH = 300  # how many times its own length, on either side, a conflict's neighbours are looked for
MOST_NEIGHBOURS = 1_000


@dataclass(frozen=True, slots=True)
class Side:
    """What one device says. `told` is what it says it with; None where that has been withdrawn since."""

    source: Source
    vendor: str
    value: float
    amount: str
    wins: bool
    colour: int
    told: Told | None


@dataclass(frozen=True)
class Dispute:
    """`conflict` as a page shows it, each thing read once."""

    conflict: Conflict
    patient: Patient
    zone: ZoneInfo

    @property
    def metric(self) -> Metric:
        return BY_NUMBER[self.conflict.metric]

    @cached_property
    def sides(self) -> list[Side]:
        """The winner first, then by what they say."""
        sources = Source.objects.in_bulk([int(key) for key in self.conflict.values])
        links = Link.objects.in_bulk([source.link_id for source in sources.values()])
        told = timeline.told(self.conflict)
        coloured = colours(devices_of(self.conflict.patient_id), sources)
        found = [
            Side(
                source,
                _vendor(links, source),
                self.conflict.values[str(number)],
                self.amount(self.conflict.values[str(number)]),
                number == self.conflict.winner_id,
                coloured[number],
                told.get(number),
            )
            for number, source in sources.items()
        ]
        return sorted(found, key=lambda side: (not side.wins, side.value, side.source.pk))

    def amount(self, value: float) -> str:
        return lanes.amount(self.metric, value)

    @property
    def difference(self) -> str:
        """`13 bpm, 24 % of their mean`"""
        absolute, relative = self.amount(lanes.apart(self.conflict)), share(self.conflict)
        return f"{absolute}, {relative} of their mean" if relative else absolute

    @property
    def tolerance(self) -> str:
        return self.amount(lanes.tolerance(self.conflict))

    @cached_property
    def names(self) -> dict[int, str]:
        return {side.source.pk: side.source.name for side in self.sides}

    @cached_property
    def verdict(self) -> str:
        return _verdict(self)

    @cached_property
    def decisions(self) -> list["Decision"]:
        """Everything people have decided about these devices here, the newest first."""
        found = list(concerning(self.conflict))
        named = Source.objects.in_bulk({source for one in found for source in one.sources})
        return [
            Decision(one, _names(one.sources, named), about(one, self.zone), one.pk == self.conflict.preference_id)
            for one in found
        ]

    @cached_property
    def chart(self) -> Chart:
        return chart_of(
            self.conflict, self.metric, self.zone, self.names, {side.source.pk: side.colour for side in self.sides}
        )

    @cached_property
    def alike(self) -> list[Conflict]:
        """This one with its neighbours that differ in nothing but time and values, as the timeline shows them."""
        return _alike(self.conflict)

    @property
    def stretch(self) -> tuple[datetime, datetime]:
        return self.alike[0].start_at, self.alike[-1].end_at


@dataclass(frozen=True, slots=True)
class Decision:
    made: Preference
    sources: str
    about: str
    counts: bool


def about(made: Preference, zone: ZoneInfo) -> str:
    """What a decision is about, as part of a sentence."""
    if made.scope == "patient" or made.since is None:
        return "every metric, since ever"
    label = lanes.within(BY_NUMBER[made.metric].label) if made.metric in BY_NUMBER else f"metric {made.metric}"
    if made.until is None:
        return f"all {label} from {local(made.since, zone)} on"
    return f"{label}, {span(made.since, made.until, zone)}"


def local(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M}"


def span(start_at: datetime, end_at: datetime, zone: ZoneInfo) -> str:
    start, end = start_at.astimezone(zone), end_at.astimezone(zone)
    until = f"{end:%H:%M}" if start.date() == end.date() else f"{end:%Y-%m-%d %H:%M}"
    return f"{start:%Y-%m-%d %H:%M} to {until}"


def share(conflict: Conflict) -> str:
    """`24 %`, of the mean of what they said; empty where that is nothing."""
    said = list(conflict.values.values())
    mean = sum(said) / len(said) if said else 0.0
    return f"{100 * lanes.apart(conflict) / mean:.0f} %" if mean > 0 else ""


def concerning(conflict: Conflict) -> Iterable[Preference]:
    """Decisions about a device of this conflict that reach its time and metric, also those that were undone."""
    reaches = Q(metric=None) | Q(metric=conflict.metric, daily=None) | Q(metric=conflict.metric, daily=conflict.daily)
    begins = Q(since=None) | Q(since__lt=conflict.end_at)
    ends = Q(until=None) | Q(until__gt=conflict.start_at)
    mine = Preference.objects.filter(patient_id=conflict.patient_id, sources__overlap=list(map(int, conflict.values)))
    return mine.filter(reaches, begins, ends).order_by("-pk")


def _alike(conflict: Conflict) -> list[Conflict]:
    reach = REACH * max(conflict.end_at - conflict.start_at, lanes.NEAR / REACH)
    near = Conflict.objects.filter(
        patient_id=conflict.patient_id,
        metric=conflict.metric,
        daily=conflict.daily,
        start_at__gt=conflict.start_at - reach,
        start_at__lt=conflict.end_at + reach,
    )
    groups = lanes.neighbours(near.order_by("start_at")[:MOST_NEIGHBOURS])
    return next((group for group in groups if any(one.pk == conflict.pk for one in group)), [conflict])


def _vendor(links: dict[int, Link], source: Source) -> str:
    link = links.get(source.link_id)
    return link.get_vendor_display() if link else "a link that is gone"


def _names(numbers: Iterable[int], named: dict[int, Source]) -> str:
    return ", then ".join(named[number].name if number in named else f"device {number}" for number in numbers)


def _verdict(dispute: Dispute) -> str:
    """Which rule decided, and why, in a sentence."""
    conflict, winner = dispute.conflict, dispute.names.get(dispute.conflict.winner_id, "a device that is gone")
    made = conflict.preference
    if made is not None and made.scope == "patient":
        return f"{made.made_by} gave this patient's devices an order in which {winner} comes first: “{made.note}”."
    if made is not None:
        on, what = local(made.made_at, dispute.zone), about(made, dispute.zone)
        return f"{made.made_by} decided on {on} that {winner} counts for {what}: “{made.note}”."
    if conflict.rule == "person":
        return f"{conflict.resolved_by or 'A person'} decided that {winner} counts: “{conflict.note}”."
    if conflict.rule == "patient_order":
        return f"This patient's own order of devices puts {winner} first."
    return _by_kind(dispute, winner) if conflict.rule == "metric_order" else _by_revision(dispute, winner)


def _by_kind(dispute: Dispute, winner: str) -> str:
    order, label = ", ".join(dispute.metric.order), lanes.within(dispute.metric.label)
    kinds = {side.source.kind for side in dispute.sides if side.wins}
    kind = next(iter(kinds), "device")
    return f"Nobody has decided, so the order for {label} does: {order}. {winner} is a {kind}."


def _by_revision(dispute: Dispute, winner: str) -> str:
    kinds = " and ".join(sorted({f"a {side.source.kind}" for side in dispute.sides}))
    return (
        f"Open: nothing tells these devices apart (each is {kinds}). {winner} draws the line because it was revised "
        "last, or has the lower number, until a person decides."
    )
