from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auren.biometrics.baseline import Baseline
from auren.biometrics.metrics import BY_NAME
from auren.console.report.charts import Days, scale_of, sleep_chart
from auren.console.report.figures import Figure, between, said, signed, suffices

FIRST = date(2026, 11, 1)
PULSE, SLEEP, STEPS = (BY_NAME[name] for name in ("resting_heart_rate", "sleep_duration", "steps"))
DEVIATION = BY_NAME["skin_temperature_deviation"]


def values(count: int, value: float = 50.0, first: date = FIRST) -> dict[date, float]:
    return {first + timedelta(days=number): value for number in range(count)}


def figure(days: int, before: int = 0, asked: int = 30) -> Figure:
    return Figure(PULSE, asked, values(days, 52), values(before, 50, FIRST - timedelta(days=asked)), None)


@pytest.mark.parametrize(("days", "asked", "enough"), [(21, 30, True), (20, 30, False), (1, 1, True), (0, 1, False)])
def test_an_average_needs_seven_days_in_ten(days: int, asked: int, enough: bool) -> None:
    assert suffices(days, asked) is enough


def test_too_few_days_are_said_in_place_of_the_average() -> None:
    few = figure(9)
    assert (few.average, few.mean) == ("not enough data: 9 of 30 days", None)
    assert figure(21).average == "52 bpm"
    assert figure(0).average == "no data"


def test_a_change_needs_enough_of_both_periods() -> None:
    assert figure(21, 21).changed == "+2 bpm"
    assert (figure(21, 20).change, figure(21, 20).changed) == (None, "too few: 20 of 30")
    assert (figure(20, 30).change, figure(20, 30).changed) == (None, "")


def test_values_read_as_people_write_them() -> None:
    assert said(SLEEP, 26_400) == "7:20 h"
    assert between(SLEEP, 26_400, 30_000) == "7:20 to 8:20 h"
    assert said(STEPS, 10_971.4) == "10,971"
    assert said(DEVIATION, -0.37) == "\u22120.37 °C"
    assert said(DEVIATION, -0.001) == "0.00 °C"
    assert signed(PULSE, -1.5) == "\u22121.5 bpm"
    assert signed(PULSE, 0.01) == "\u00b10 bpm"
    assert between(PULSE, 50, 50) == "50 bpm"


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_an_axis_holds_all_its_values_and_few_splits(some: list[float]) -> None:
    scale = scale_of(PULSE, some)
    slack = 1e-6 * (scale.high - scale.low)
    assert scale.low - slack <= min(some) <= max(some) <= scale.high + slack
    assert 2 <= len(scale.splits) <= 6


def test_days_without_a_value_are_runs() -> None:
    days = Days(FIRST, 6)
    there = {FIRST + timedelta(days=number): 1.0 for number in (1, 4)}
    spans = [(first.day, last.day) for first, last in days.missing(there)]
    assert spans == [(1, 1), (3, 4), (6, 6)]


def test_a_night_without_stages_is_one_shade_and_words_are_escaped() -> None:
    duration = Figure(SLEEP, 3, values(2, 25_000), {}, Baseline(1, 2, 21))
    stages = [Figure(BY_NAME[f"sleep_{name}"], 3, {}, {}, None) for name in ("deep", "rem", "light", "awake")]
    drawn = sleep_chart(stages, duration, Days(FIRST, 3), "<b>")
    assert drawn.count('fill="#9a9a9a"') == 2
    assert "<title>&lt;b&gt;</title>" in drawn
