"""How single samples stand says the same as the timeline that is drawn of them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from auren.biometrics import timeline
from auren.biometrics.metrics import BY_NAME
from auren.biometrics.models import Sample, Source
from auren.biometrics.standing import Standing
from auren.biometrics.timeline import Window
from tests.biometrics.stored import NOON, PATIENT, decide, dispute, source, store, store_night

BERLIN = ZoneInfo("Europe/Berlin")
MIDNIGHT = datetime(2026, 11, 12, 23, tzinfo=UTC)  # Berlin's
QUARTER = timedelta(minutes=15)


@pytest.fixture(autouse=True)
def tables(database: str) -> None:
    """Every test here reads them."""


def standing(metric: str, start_at: datetime = MIDNIGHT, days: float = 1) -> Standing:
    window = Window(PATIENT, start_at, start_at + timedelta(days=days), BERLIN, points=2**31 - 1)
    return Standing(window, BY_NAME[metric])


def settled(sample: Sample, of: Standing) -> str:
    return of.settled(sample.source_id, sample.start_at, sample.end_at)


def test_the_preferred_device_counts_and_the_other_does_not() -> None:
    watch, ring = (store(source(kind), "heart_rate", 60, NOON) for kind in ("watch", "ring"))
    of = standing("heart_rate")
    assert (settled(watch, of), settled(ring, of)) == ("yes", "no")


def test_a_persons_decision_counts_and_is_said_for_both() -> None:
    watch, ring = source("watch"), source("ring")
    samples = [store(by, "heart_rate", 60, NOON) for by in (watch, ring)]
    dispute("heart_rate", NOON, NOON + timedelta(minutes=5), {watch: 60, ring: 90}, ring)
    decide(ring, metric="heart_rate")
    of = standing("heart_rate")
    assert [settled(sample, of) for sample in samples] == ["no", "yes"]
    assert of.conflict(watch.pk, NOON, NOON) == of.conflict(ring.pk, NOON, NOON) == "overridden"


def test_a_conflict_ends_with_its_bucket_and_is_only_about_those_who_spoke() -> None:
    watch, ring, phone = source("watch"), source("ring"), source("phone")
    dispute("heart_rate", NOON, NOON + timedelta(minutes=5), {watch: 60, ring: 90}, ring, state="open")
    of = standing("heart_rate")
    later = NOON + timedelta(minutes=5)
    assert [of.conflict(by.pk, NOON, NOON) for by in (watch, phone)] == ["open", ""]
    assert of.conflict(watch.pk, later, later) == ""


def test_a_bucket_that_the_range_cuts_is_settled_by_all_of_it() -> None:
    watch = store(source("watch"), "hrv_sdnn", 40, NOON)
    ring = store(source("ring"), "hrv_sdnn", 50, NOON + timedelta(minutes=40))
    half = standing("hrv_sdnn", NOON + timedelta(minutes=30), days=0.01)
    assert (settled(watch, half), settled(ring, half)) == ("yes", "no")


def test_quarters_of_an_hour_count_one_by_one() -> None:
    watch, phone = source("watch"), source("phone")
    alone = store(phone, "steps", 10, NOON, NOON + QUARTER)
    hour = store(phone, "steps", 40, NOON + QUARTER, NOON + 5 * QUARTER)
    beside = store(watch, "steps", 30, NOON + QUARTER, NOON + 2 * QUARTER)
    of = standing("steps")
    assert [settled(sample, of) for sample in (alone, hour, beside)] == ["yes", "partly", "yes"]


def test_a_days_total_counts_or_its_quarters_do() -> None:
    ring, watch = source("ring"), source("watch")
    total = store(ring, "steps", 9000, MIDNIGHT, MIDNIGHT + timedelta(days=1))
    quarter = store(watch, "steps", 30, NOON, NOON + QUARTER)
    assert [settled(sample, standing("steps")) for sample in (total, quarter)] == ["no", "yes"]
    dispute("steps", MIDNIGHT, MIDNIGHT + timedelta(days=1), {ring: 9000, watch: 30}, ring)
    decide(ring, metric="steps")
    of = standing("steps")
    assert [settled(sample, of) for sample in (total, quarter)] == ["yes", "no"]
    assert of.conflict(watch.pk, NOON, NOON + QUARTER) == "overridden"


def test_where_a_days_total_counts_none_of_its_quarters_does() -> None:
    ring = source("ring")
    total = store(ring, "steps", 9000, MIDNIGHT + timedelta(hours=1), MIDNIGHT + timedelta(days=1))
    first = store(ring, "steps", 30, MIDNIGHT, MIDNIGHT + QUARTER)
    assert [settled(sample, standing("steps")) for sample in (total, first)] == ["yes", "no"]


@pytest.mark.parametrize("metric", ["steps", "active_energy"])
def test_what_counts_adds_up_to_the_day_that_is_drawn(metric: str) -> None:
    for kind, first, count in (("watch", 0, 4), ("phone", 2, 6), ("ring", 7, 3)):
        for place in range(first, first + count):
            store(source(kind), metric, 10 + place, NOON + place * QUARTER, NOON + (place + 1) * QUARTER)
    of = standing(metric)
    counted = sum(sample.value for sample in Sample.objects.all() if settled(sample, of) == "yes")
    window = Window(PATIENT, MIDNIGHT, MIDNIGHT + timedelta(days=1), BERLIN)
    [line] = timeline.read(window, [BY_NAME[metric]]).series[0].lines
    assert line.value == [counted]


def test_a_nights_one_conflict_is_said_of_its_stages_too() -> None:
    ring, watch = source("ring"), source("watch")
    evening = MIDNIGHT
    store_night(ring, evening, 2, 3, 4)
    store_night(watch, evening, 6, 6, 6)
    night = evening + timedelta(minutes=90)
    dispute("sleep_duration", evening, night, {ring: 5400, watch: 3000}, ring, rule="recency", state="open")
    of = standing("sleep_stage")
    stages: dict[Source, set[str]] = {}
    for sample in Sample.objects.select_related("source"):
        stages.setdefault(sample.source, set()).add(settled(sample, of))
        assert of.conflict(sample.source_id, sample.start_at, sample.end_at) == "open"
    assert stages == {ring: {"yes"}, watch: {"no"}}
