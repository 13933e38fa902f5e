"""One night of one device, put together from the samples that speak of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from auren.biometrics.metrics import BY_NAME, METRICS, Metric
from auren.console.exports.reading import Devices, Entry, Selection, pages, unfinished_deliveries

STAGE = BY_NAME["sleep_stage"]
DURATION = BY_NAME["sleep_duration"]
FAMILY = tuple(metric for metric in METRICS if metric.name.startswith("sleep_"))
# How much is read at once, and how far around it: a night belongs to the range it begins in.
STRETCH = timedelta(days=30)
BEFORE, AFTER = timedelta(days=1), timedelta(days=2)
PAUSE = timedelta(hours=1)  # stages further apart than this are two nights


@dataclass(slots=True)
class Night:
    source_id: int
    start_at: datetime
    end_at: datetime
    totals: list[tuple[Metric, Entry]] = field(default_factory=list)
    stages: list[Entry] = field(default_factory=list)

    def add(self, metric: Metric, entry: Entry) -> None:
        self.end_at = max(self.end_at, entry.row.end_at)
        if metric is STAGE:
            self.stages.append(entry)
        else:
            self.totals.append((metric, entry))

    @property
    def entries(self) -> list[Entry]:
        return [entry for _, entry in self.totals] + self.stages

    @property
    def leading(self) -> Entry:
        """The entry that the night's one conflict is about: its duration, else what there is."""
        return next((entry for metric, entry in self.totals if metric is DURATION), self.entries[0])


@dataclass(frozen=True, slots=True)
class Stretch:
    """Nights that begin in some days; `read` counts the samples looked at that start in those days."""

    nights: list[Night]
    devices: dict[int, tuple[str, str, str]]
    unfinished: set[int]
    read: int


def stretches(of: Selection, family: tuple[Metric, ...], devices: Devices) -> Iterator[Stretch]:
    every = replace(of, every_source=True)  # a night is chosen whole
    start_at = of.start_at
    while start_at < of.end_at:
        end_at = min(start_at + STRETCH, of.end_at)
        yield _stretch(every, family, start_at, end_at, devices, settled_only=not of.every_source)
        start_at = end_at


def _stretch(
    of: Selection,
    family: tuple[Metric, ...],
    start_at: datetime,
    end_at: datetime,
    devices: Devices,
    *,
    settled_only: bool,
) -> Stretch:
    found: list[tuple[Metric, Entry]] = []
    unfinished: set[int] = set()
    known: dict[int, tuple[str, str, str]] = {}
    for metric in family:
        for page in pages(of, metric, start_at - BEFORE, end_at + AFTER):
            found += [(metric, entry) for entry in page.entries]
            unfinished |= unfinished_deliveries(page)
            known = devices.of(page)
    read = sum(start_at <= entry.row.start_at < end_at for _, entry in found)
    nights = [night for night in assemble(found) if start_at <= night.start_at < end_at]
    if settled_only:
        nights = [night for night in nights if night.leading.settled != "no"]
    return Stretch(nights, known, unfinished, read)


def assemble(found: list[tuple[Metric, Entry]]) -> list[Night]:
    """Of each source: totals that overlap are one night, with the stages in it; stages without totals follow on."""
    by_source: dict[int, list[tuple[Metric, Entry]]] = {}
    for metric, entry in found:
        by_source.setdefault(entry.row.source_id, []).append((metric, entry))
    nights = [night for ours in by_source.values() for night in _of_source(ours)]
    return sorted(nights, key=lambda night: (night.start_at, night.source_id))


def _of_source(found: list[tuple[Metric, Entry]]) -> list[Night]:
    nights: list[Night] = []
    for metric, entry in sorted(found, key=_place):
        row = entry.row
        if metric is STAGE:
            night = next((one for one in reversed(nights[-2:]) if _holds(one, entry)), None)
        else:
            night = nights[-1] if nights and nights[-1].totals and row.start_at < nights[-1].end_at else None
        if night is None:
            night = Night(row.source_id, row.start_at, row.end_at)
            nights.append(night)
        night.add(metric, entry)
    return nights


def _place(found: tuple[Metric, Entry]) -> tuple[datetime, bool, int, str]:
    """By start; of what starts together, totals before stages."""
    metric, entry = found
    return entry.row.start_at, metric is STAGE, metric.number, entry.row.record


def _holds(night: Night, stage: Entry) -> bool:
    if night.totals:
        return night.start_at <= stage.row.start_at < night.end_at
    return stage.row.start_at < night.end_at + PAUSE
