from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from auren.biometrics import baseline
from auren.biometrics.baseline import LEAST_DAYS, Daily
from auren.biometrics.metrics import BY_NAME
from tests.biometrics.stored import PATIENT, source, store

NIGHT = datetime(2026, 3, 1, 23, tzinfo=UTC)
DAY = timedelta(days=1)
BERLIN = ZoneInfo("Europe/Berlin")
RESTING = BY_NAME["resting_heart_rate"]

pytestmark = pytest.mark.usefixtures("database")


def nights(kind: str, values: Sequence[float], *, since: datetime = NIGHT) -> None:
    for place, value in enumerate(values):
        at = since + place * DAY
        store(source(kind), "resting_heart_rate", value, at, at + timedelta(hours=7))


def daily(until: datetime, zone: ZoneInfo = BERLIN) -> Daily | None:
    return baseline.daily({PATIENT: zone}, until).get((PATIENT, RESTING.number))


def test_the_usual_range_is_two_standard_deviations_around_the_mean_of_thirty_days() -> None:
    nights("ring", [50.0, 56.0] * 15)
    found = daily(NIGHT + 30 * DAY)
    assert found is not None
    usual = found.baseline
    assert usual is not None
    assert (round(usual.low, 2), round(usual.high, 2), usual.days) == (46.9, 59.1, 30)


def test_it_is_never_narrower_than_what_devices_differ_by() -> None:
    nights("ring", [50.0] * 30)
    found = daily(NIGHT + 30 * DAY)
    assert found is not None
    assert found.baseline == baseline.Baseline(50 - RESTING.tolerance, 50 + RESTING.tolerance, 30)


def test_of_fewer_than_seven_days_in_ten_nothing_is_said() -> None:
    nights("ring", [50.0] * (LEAST_DAYS - 1))
    found = daily(NIGHT + 30 * DAY)
    assert found is not None
    assert (found.baseline, found.last_is_outside) == (None, False)


@pytest.mark.parametrize(("newest", "outside"), [(54.0, False), (54.5, True), (45.5, True)])
def test_the_newest_day_is_compared_with_those_before_it(newest: float, outside: bool) -> None:
    nights("ring", [50.0] * 30 + [newest])
    found = daily(NIGHT + 31 * DAY)
    assert found is not None
    assert found.last_is_outside is outside


def test_a_day_has_one_value_and_it_is_the_preferred_devices() -> None:
    nights("watch", [90.0] * 25)
    nights("ring", [50.0] * 25)
    found = daily(NIGHT + 30 * DAY)
    assert found is not None
    assert found.values == (50.0,) * 25


def test_a_night_counts_for_the_patients_day_it_ends_on_also_when_the_clock_changes() -> None:
    nights("ring", [50.0, 51.0], since=datetime(2026, 3, 28, 23, tzinfo=UTC))
    found = daily(datetime(2026, 4, 2, tzinfo=UTC))
    assert found is not None
    assert [day.isoformat() for day in found.days] == ["2026-03-29", "2026-03-30"]


def test_a_value_from_midnight_to_midnight_counts_for_its_day() -> None:
    midnight = datetime(2026, 3, 28, 23, tzinfo=UTC)
    store(source("ring"), "spo2", 97, midnight, midnight + timedelta(hours=23))
    found = baseline.daily({PATIENT: BERLIN}, midnight + 3 * DAY)[PATIENT, BY_NAME["spo2"].number]
    assert [day.isoformat() for day in found.days] == ["2026-03-29"]


def test_of_nobody_nothing_is_asked() -> None:
    assert baseline.daily({}, NIGHT) == {}
