"""How a single sample stands: whether the timeline counts it, and whether devices disagree there."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from auren.biometrics import timeline
from auren.biometrics.metrics import Metric
from auren.biometrics.models import Conflict

Settled = Literal["yes", "partly", "no"]

MOMENT = timedelta(microseconds=1)
QUARTER, HALF_A_DAY = timedelta(minutes=15), timedelta(hours=12)
# A bucket that a window cuts would be settled by what is left of it.
NIGHT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Dispute:
    start_at: datetime
    end_at: datetime
    state: str
    sources: frozenset[int]


class Standing:
    """Of the samples of one metric that start in a window."""

    def __init__(self, window: timeline.Window, metric: Metric) -> None:
        self._seconds = metric.bucket if isinstance(metric.bucket, int) else 0
        margin = timedelta(seconds=self._seconds) if self._seconds else NIGHT
        wide = replace(window, start_at=window.start_at - margin, end_at=window.end_at + margin)
        winners = timeline.winners(wide, metric)
        self._cumulative = metric.cumulative
        self._winning = set() if self._seconds else set(winners)
        self._days = [
            (of, begins, ends) for of, begins, ends in winners if self._cumulative and ends - begins > QUARTER
        ]
        buckets = set(winners).difference(self._days) if self._seconds else ()
        self._slots = {(source, begins.timestamp() // self._seconds) for source, begins, _ in buckets}
        self._disputes = _by_start(timeline.disputes(wide, metric))
        self._peaceful = not any(disputes for _, disputes in self._disputes)

    def settled(self, source_id: int, start_at: datetime, end_at: datetime) -> Settled:
        """Whether the timeline counts it: `partly` where another source counts for some quarters of its hours."""
        if self._cumulative:
            return self._share(source_id, start_at, end_at)
        if self._seconds:
            return "yes" if (source_id, start_at.timestamp() // self._seconds) in self._slots else "no"
        return "yes" if (source_id, start_at, end_at) in self._winning else "no"

    def _share(self, source_id: int, start_at: datetime, end_at: datetime) -> Settled:
        if is_total(start_at, end_at):
            at = max(start_at, min(end_at - MOMENT, start_at + HALF_A_DAY))  # as auren/biometrics/rules.py dates it
            mine = any(source == source_id and begins <= at < ends for source, begins, ends in self._days)
            return "yes" if mine else "no"
        last = max(end_at - MOMENT, start_at).timestamp() // self._seconds
        slots = range(int(start_at.timestamp() // self._seconds), int(last) + 1)
        counted = [(source_id, slot) in self._slots for slot in slots]
        return "yes" if all(counted) else "partly" if any(counted) else "no"

    def conflict(self, source_id: int, start_at: datetime, end_at: datetime) -> str:
        """The state of the conflict this source is part of there; an open one first; empty where there is none."""
        if self._peaceful:
            return ""
        until = start_at + MOMENT if self._seconds else max(end_at, start_at + MOMENT)
        places = [(disputes, bisect_left(starts, until)) for starts, disputes in self._disputes]
        near = [dispute for disputes, place in places for dispute in disputes[max(0, place - 2) : place]]
        found = {one.state for one in near if one.end_at > start_at and source_id in one.sources}
        return "open" if "open" in found else max(found, default="")


def _by_start(conflicts: Iterable[Conflict]) -> list[tuple[list[datetime], list[Dispute]]]:
    """Those of buckets and those of days' totals apart: each of the two hardly overlap among themselves."""
    kinds: tuple[list[Dispute], list[Dispute]] = ([], [])
    for conflict in conflicts:
        sources = frozenset(map(int, conflict.values))
        kinds[conflict.daily].append(Dispute(conflict.start_at, conflict.end_at, conflict.state, sources))
    return [([dispute.start_at for dispute in disputes], disputes) for disputes in kinds]


def is_total(start_at: datetime, end_at: datetime) -> bool:
    """As `rules.is_total`: a count over a day is not made of quarters of an hour."""
    return timedelta(hours=23) <= end_at - start_at <= timedelta(hours=25)
