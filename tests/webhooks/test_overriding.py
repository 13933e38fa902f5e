"""What people decide about devices: it holds, it is told, and it can be taken back."""

from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from auren.biometrics import timeline
from auren.biometrics.metrics import BY_NAME
from auren.biometrics.models import Conflict, Source
from devices.models import Patient
from tests.webhooks.living import NOON, heart_rate, patient, push, work
from webhooks.overriding import override

FIVE = timedelta(minutes=5)


@pytest.fixture
def who(database: str) -> str:
    """A patient whose name nobody has used before: topics outlive the test."""
    name = f"overriding-{uuid4().hex[:12]}"
    patient(name)
    return name


def say(who: str, *values: float, source: str, at: datetime = NOON, uuid: str = "r") -> None:
    """Heart rates five minutes apart."""
    beats = [
        heart_rate(value, at + place * FIVE, source=source, uuid=f"{uuid} {source} {place}")
        for place, value in enumerate(values)
    ]
    push(*beats, user=who)
    work()


def disagree(who: str) -> list[Conflict]:
    """Two watches that differ three times, with nothing to tell them apart but their number."""
    say(who, 60, 60, 60, source="A watch")
    say(who, 90, 90, 90, source="Another watch")
    return conflicts(who)


def conflicts(who: str) -> list[Conflict]:
    found = Conflict.objects.filter(patient_id=number(who)).select_related("winner").order_by("start_at")
    return list(found)


def number(who: str) -> int:
    return Patient.objects.get(external_id=who).pk


def source(who: str, name: str) -> int:
    return Source.objects.get(name=name, link_id__in=Patient.objects.get(external_id=who).links.values("pk")).pk


def drawn(who: str) -> list[float | None]:
    """The settled line's values, by time."""
    window = timeline.Window(number(who), NOON - FIVE, NOON + 12 * FIVE, timeline.ZoneInfo("Europe/Berlin"))
    lines = timeline.read(window, [BY_NAME["heart_rate"]]).series[0].lines
    points = sorted((at, value) for line in lines for at, value in zip(line.start, line.value, strict=True))
    return [value for _, value in points if value is not None]


def outcome(who: str) -> list[tuple[str, str, str]]:
    return [(conflict.winner.name, conflict.rule, conflict.state) for conflict in conflicts(who)]


def test_at_one_moment_the_chosen_device_counts_and_nowhere_else(who: str) -> None:
    _, second, _ = disagree(who)
    decided = override(second, source_id=source(who, "Another watch"), scope="moment", by="dr.lee", note="loose strap")
    assert (decided.pk, decided.state, decided.resolved_by, decided.note) == (
        second.pk,
        "overridden",
        "dr.lee",
        "loose strap",
    )
    untouched = ("Another watch", "recency", "open")
    assert outcome(who) == [untouched, ("Another watch", "person", "overridden"), untouched]
