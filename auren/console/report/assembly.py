"""A report from its beginning to its bytes, in pieces that say how far it is: what an export's `pieces` are."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

from django.utils import timezone

from auren.biometrics import baseline
from auren.biometrics.metrics import Metric
from auren.biometrics.timeline import Window
from auren.console import gaps
from auren.console.exports.reading import Piece, Selection
from auren.console.report import days, devices, disputes
from auren.console.report.charts import Days
from auren.console.report.days import Daily, Span
from auren.console.report.devices import Sent
from auren.console.report.figures import METRICS, Figure
from auren.console.report.pages import About, Content, Silence, html
from auren.console.report.rendering import rendered
from webhooks.models import Delivery

MOST_DAYS = 366
STILL_AT_IT = Piece(b"", 0, 0)
MOST_SILENCES = 12


def pieces(of: Selection) -> Iterator[Piece]:
    """All of the PDF is the last piece. Raises `rendering.Unmakeable`."""
    report = Report(of, timezone.now())
    yield from report.read()
    for content in rendered(html(report.content())):
        yield Piece(content, 0, 1 if content else 0)


def span_of(of: Selection) -> Span:
    """The patient's days that the range touches."""
    last = (of.end_at - timedelta(microseconds=1)).astimezone(of.zone).date()
    return Span(of.patient_id, of.zone, of.start_at.astimezone(of.zone).date(), last)


class Report:
    def __init__(self, of: Selection, made_at: datetime) -> None:
        self.of = of
        self.made_at = made_at
        self.span = span_of(of)
        self.sent: dict[int, Sent] = {}
        self.now = {metric: Daily() for metric in METRICS}
        self.before = {metric: Daily() for metric in METRICS}
        start_at, end_at = self.span.bounds()
        self.asked: dict[str, Any] = {"patient": of.patient_id, "start": start_at, "end": end_at}

    def read(self) -> Iterator[Piece]:
        for samples in devices.read(self.asked, self.sent):
            yield Piece(b"", samples, 0)
        for span, into in ((self.span, self.now), (self.span.before(), self.before)):
            for metric, daily in into.items():
                for _ in days.read(span, metric, daily):
                    yield STILL_AT_IT
            for _ in days.read_stages(span, into):
                yield STILL_AT_IT

    def content(self) -> Content:
        names = devices.names_of(self.of.patient_id)
        return Content(
            about=self._about(),
            figures=self._figures(),
            silences=self._silences(),
            conflicts=disputes.tallies(self.asked, names),
            notable=disputes.notable(self.asked, names),
            devices=devices.listed(self.of.patient_id, self.sent),
            pending=self._pending(),
        )

    def _about(self) -> About:
        of, span = self.of, self.span
        return About(of.name, of.external_id, span.zone, span.first, span.last, self.made_at, of.asked_by, of.number)

    def _figures(self) -> dict[Metric, Figure]:
        until = self.asked["end"]
        usual = baseline.daily({self.of.patient_id: self.of.zone}, min(until, self.made_at))
        return {
            metric: Figure(
                metric,
                self.span.days,
                self.now[metric].values,
                self.before[metric].values,
                found.baseline if (found := usual.get((self.of.patient_id, metric.number))) else None,
            )
            for metric in METRICS
        }

    def _silences(self) -> list[Silence]:
        """Runs of days of which there is nothing at all, the longest ones, and why."""
        there = {day: True for daily in self.now.values() for day in daily.values}
        runs = Days(self.span.first, self.span.days).missing(there)
        longest = sorted(sorted(runs, key=lambda run: run[0] - run[1])[:MOST_SILENCES])
        device = self._main_device()
        if device is None:
            return [Silence(first, last, "No device has sent anything.") for first, last in longest]
        found = gaps.explained(self._window(), [self._silence(device, there, *run) for run in longest])
        return [Silence(*run, gap.text) for run, (_, gap) in zip(longest, found, strict=True)]

    def _silence(self, device: int, there: dict[date, bool], first: date, last: date) -> gaps.Silence:
        start_at, end_at = self.span.midnight(first), min(self.span.midnight(last + days.DAY), self.made_at)
        before = device if any(day < first for day in there) else None
        after = device if before is None or any(day > last for day in there) else None
        return gaps.Silence(0, start_at.timestamp(), end_at.timestamp(), before, after)

    def _main_device(self) -> int | None:
        """The one that sent most in the range; else any of the patient's."""
        if self.sent:
            return max(self.sent, key=lambda number: (self.sent[number].samples, -number))
        return min(devices.names_of(self.of.patient_id), default=None)

    def _window(self) -> Window:
        return Window(self.of.patient_id, *self.span.bounds(), self.of.zone)

    def _pending(self) -> int:
        return Delivery.objects.filter(patient_id=self.of.patient_id, state="retrying", planned_wait=True).count()
