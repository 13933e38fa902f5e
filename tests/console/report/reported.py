"""Samples, and the report of them, as the tests ask for it."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from auren.biometrics.metrics import METRICS
from auren.biometrics.models import Source
from auren.console.exports.reading import Selection
from auren.console.report.assembly import Report
from auren.console.report.figures import Figure
from auren.console.report.pages import html
from devices.models import Patient
from tests.biometrics.stored import store

BERLIN = ZoneInfo("Europe/Berlin")
MADE_AT = datetime(2026, 12, 1, 12, tzinfo=UTC)
FIRST = date(2026, 11, 1)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def of(patient: Patient, first: date = FIRST, days: int = 10) -> Selection:
    start_at = datetime(first.year, first.month, first.day, tzinfo=BERLIN)
    end_at = datetime.combine(first + days * DAY, start_at.time(), BERLIN)
    bounds = (start_at.astimezone(UTC), end_at.astimezone(UTC))
    return Selection(patient.pk, patient.external_id, BERLIN, *bounds, METRICS, False, "Ada Nowak", "clara", 7)


def read(selection: Selection) -> Report:
    report = Report(selection, MADE_AT)
    for _ in report.read():
        pass
    return report


def figures(selection: Selection) -> dict[str, Figure]:
    return {metric.name: figure for metric, figure in read(selection).content().figures.items()}


def page(selection: Selection) -> str:
    return html(read(selection).content())


def at(day: date, hour: float = 0) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=BERLIN).astimezone(UTC) + hour * HOUR


def a_night(by: Source, patient: Patient, ends_on: date, **totals: float) -> None:
    """From 23:00 to 07:00."""
    for name, value in totals.items():
        store(by, name, value, at(ends_on, -1), at(ends_on, 7), patient_id=patient.pk, record=f"{ends_on}")
