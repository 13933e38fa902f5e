from datetime import date, timedelta

import pytest

from auren.biometrics.metrics import AWAKE, BY_NAME, DEEP, LIGHT, REM
from auren.sandbox import observed
from auren.sandbox.physiology import EPOCH_SECONDS, Person, Sleep, person, zone_of

FIRST = date(2026, 1, 1)
DAYS = [FIRST + timedelta(days=index) for index in range(120)]
PEOPLE = [person(f"user_{number}") for number in range(1, 13)]
NIGHTS = [(who, day) for who in PEOPLE for day in DAYS]


def test_the_same_seed_and_id_make_the_same_days() -> None:
    one, other = Person("user_3", seed=5), Person("user_3", seed=5)
    assert one.night(FIRST) == other.night(FIRST)
    assert one.day(FIRST) == other.day(FIRST)


def test_another_seed_makes_another_person() -> None:
    assert Person("user_3", seed=5).night(FIRST) != Person("user_3", seed=6).night(FIRST)


def test_twenty_people_live_in_berlin_in_los_angeles_and_in_kolkata_among_others() -> None:
    zones = {zone_of(f"user_{number}") for number in range(1, 21)}
    assert {"Europe/Berlin", "America/Los_Angeles", "Asia/Kolkata"} <= zones


def test_a_night_has_every_stage_and_ends_before_the_next_begins() -> None:
    for who, day in NIGHTS:
        night = who.night(day)
        assert {stage for stage, _ in night.phases} == {AWAKE, LIGHT, DEEP, REM}
        assert night.phases[0][0] == night.phases[-1][0] == AWAKE
        assert night.seconds(AWAKE, LIGHT, DEEP, REM) == night.epochs * EPOCH_SECONDS
        assert night.end < who.night(day + timedelta(days=1)).start


def test_deep_sleep_comes_early_and_rem_late() -> None:
    deep: list[float] = []
    rem: list[float] = []
    for who, day in NIGHTS:
        at = 0
        for stage, count in who.night(day).phases:
            middle = (at + count / 2) / who.night(day).epochs
            at += count
            if stage in {DEEP, REM}:
                (deep if stage == DEEP else rem).extend([middle] * count)
    assert sum(deep) / len(deep) < 0.42 < 0.58 < sum(rem) / len(rem)


def test_a_bad_night_comes_now_and_then_and_shows_in_heart_and_sleep() -> None:
    nights = [who.night(day) for who, day in NIGHTS]
    bad, good = [night for night in nights if night.bad], [night for night in nights if not night.bad]
    assert 0.05 < len(bad) / len(nights) < 0.13
    for quality in ("asleep_seconds", "hrv_ms", "efficiency"):
        assert mean(bad, quality) < mean(good, quality)
    assert mean(bad, "resting_heart_rate") > mean(good, "resting_heart_rate") + 3


def mean(nights: list[Sleep], quality: str) -> float:
    return sum(float(getattr(night, quality)) for night in nights) / len(nights)


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 7, 1), 24)])
def test_a_day_is_as_long_as_the_zone_says(day: date, hours: int) -> None:
    truth = Person("user_1").day(day)
    assert zone_of("user_1") == "Europe/Berlin"
    assert truth.end - truth.start == timedelta(hours=hours)
    assert len(truth.heart_rates) == hours * 12
    assert len(truth.steps) == len(truth.active_kcal) == hours * 4


def test_the_heart_beats_slowest_asleep_and_fastest_at_sport() -> None:
    hard = 0
    for who, day in NIGHTS[::10]:
        rates = who.day(day).heart_rates
        assert abs(min(rates) - who.night(day).resting_heart_rate) < 9
        for bout in who.workouts(day):
            hard += bout.intensity > 0.5
            assert max(rates) >= bout.average_heart_rate
    assert hard > 10


def test_nobody_walks_in_their_sleep() -> None:
    for who in PEOPLE:
        truth, night = who.day(FIRST), who.night(FIRST)
        asleep_quarters = (night.end - truth.start) // timedelta(minutes=15)
        from_bed = max(0, (night.start - truth.start) // timedelta(minutes=15) + 1)
        assert sum(truth.steps[from_bed:asleep_quarters]) == 0
        assert sum(truth.steps) > 1_000


def test_about_one_night_in_seven_has_a_device_that_disagrees() -> None:
    share = sum(observed.disagreement(who, day) is not None for who, day in NIGHTS) / len(NIGHTS)
    assert abs(share - 1 / 7) < 0.03


def both_nights(about: str | None) -> list[tuple[Sleep, Sleep]]:
    """Oura's and WHOOP's view of the nights on which one of them is wrong about that, or no device about anything."""
    found = []
    for who, day in NIGHTS:
        wrong = observed.disagreement(who, day)
        ring, band = observed.night(who, "oura", day), observed.night(who, "whoop", day)
        seen_by_both = wrong is None or wrong.device != "watch"
        if ring and band and seen_by_both and (wrong.about if wrong else None) == about:
            found.append((ring, band))
    assert found
    return found


def test_on_other_nights_ring_and_band_agree_within_the_catalogues_tolerances() -> None:
    for ring, band in both_nights(None):
        assert abs(ring.asleep_seconds - band.asleep_seconds) <= BY_NAME["sleep_duration"].tolerance
        assert abs(ring.hrv_ms - band.hrv_ms) <= BY_NAME["hrv_rmssd"].tolerance
        assert abs(ring.resting_heart_rate - band.resting_heart_rate) <= BY_NAME["resting_heart_rate"].tolerance - 1
        assert abs(ring.breaths - band.breaths) <= BY_NAME["respiratory_rate"].tolerance
        assert abs(ring.spo2_percent - band.spo2_percent) <= BY_NAME["spo2"].tolerance


def test_a_disagreement_is_clearly_beyond_the_tolerance() -> None:
    for ring, band in both_nights("sleep"):
        assert abs(ring.asleep_seconds - band.asleep_seconds) > 2 * BY_NAME["sleep_duration"].tolerance
    for ring, band in both_nights("hrv"):
        assert abs(ring.hrv_ms - band.hrv_ms) > 1.5 * BY_NAME["hrv_rmssd"].tolerance
    for ring, band in both_nights("heart_rate"):
        difference = abs(ring.resting_heart_rate - band.resting_heart_rate)
        assert difference > 1.5 * BY_NAME["resting_heart_rate"].tolerance


def test_ring_and_watch_agree_on_the_heart_except_where_one_fits_badly() -> None:
    beyond = {True: 0, False: 0}
    for who, day in NIGHTS[::5]:
        loose = any(
            (wrong := observed.disagreement(who, each)) and wrong.about == "heart_rate" and wrong.device != "whoop"
            for each in (day, day + timedelta(days=1))
        )
        pairs = zip(observed.heart_rates(who, "oura", day), observed.heart_rates(who, "watch", day), strict=True)
        beyond[loose] += sum(a is not None and b is not None and abs(a - b) > 8 for a, b in pairs)
    assert beyond[False] == 0
    assert beyond[True] > 100


def test_a_device_is_left_off_on_some_days() -> None:
    for device in ("oura", "whoop", "watch"):
        off = sum(not observed.wears(who, device, day) for who, day in NIGHTS) / len(NIGHTS)
        assert 0.01 < off < 0.1
