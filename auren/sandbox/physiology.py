"""A person's body as a pure function of a seed, an id and a day.

Nothing here knows what time it is: a whole day is computed, past or future, and whoever makes documents of it cuts it
off at "now". Times are aware and in UTC; heart rate is beats a minute on a 5-minute grid, steps and energy are per
15 minutes, both counted from the local midnight. The shapes (circadian heart rate, 90-minute sleep cycles with deep
sleep early and REM late) follow textbook figures; no claim beyond "plausible" is made.
"""

import hashlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from auren.biometrics.metrics import AWAKE, DEEP, LIGHT, REM

EPOCH_SECONDS = 30  # sleep is staged in these
SLOT = timedelta(minutes=5)  # heart rate
QUARTER = timedelta(minutes=15)  # steps and energy
SLOTS_A_QUARTER = QUARTER // SLOT

ZONES = (
    "Europe/Berlin",
    "America/Los_Angeles",
    "Asia/Kolkata",
    "Europe/London",
    "America/New_York",
    "Australia/Sydney",
)
SPORTS = {  # steps a minute, share of the heart-rate reserve, kcal a minute at 70 kg, metres a minute
    "running": (155, 0.72, 11.5, 160),
    "walking": (105, 0.35, 4.2, 85),
    "cycling": (0, 0.62, 8.6, 330),
    "strength_training": (18, 0.45, 5.4, 0),
    "yoga": (4, 0.2, 2.9, 0),
}

Phase = tuple[int, int]  # a sleep stage of the catalogue, and how many epochs it lasts


def number(*parts: object) -> int:
    """64 bits that depend on `parts` alone: the same in every process and on every machine."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def dice(*parts: object) -> random.Random:
    return random.Random(number(*parts))  # noqa: S311 - plausible, not secret


def clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def zone_of(user_id: str) -> str:
    """The IANA zone a person lives in; it depends on the id alone."""
    return ZONES[number("zone", user_id) % len(ZONES)]


@dataclass(frozen=True, slots=True)
class Sleep:
    """One stay in bed: the night that ends on its day, or a nap.

    `phases` fill the time from `start` to `end` in 30-second epochs. Rates are per minute, `hrv_ms` is RMSSD,
    `temperature_deviation` is in kelvin from the person's own normal.
    """

    start: datetime
    phases: tuple[Phase, ...]
    resting_heart_rate: float
    hrv_ms: float
    breaths: float
    spo2_percent: float
    temperature_deviation: float
    bad: bool = False
    nap: bool = False

    @property
    def epochs(self) -> int:
        return sum(count for _, count in self.phases)

    @property
    def end(self) -> datetime:
        return self.start + timedelta(seconds=EPOCH_SECONDS * self.epochs)

    def seconds(self, *stages: int) -> int:
        return EPOCH_SECONDS * sum(count for stage, count in self.phases if stage in stages)

    @property
    def asleep_seconds(self) -> int:
        return self.seconds(LIGHT, DEEP, REM)

    @property
    def latency_seconds(self) -> int:
        stage, count = self.phases[0]
        return count * EPOCH_SECONDS if stage == AWAKE else 0

    @property
    def efficiency(self) -> float:
        """Percent of the time in bed spent asleep."""
        return 100 * self.asleep_seconds / (self.epochs * EPOCH_SECONDS)

    @property
    def awakenings(self) -> int:
        return sum(1 for stage, _ in self.phases[1:-1] if stage == AWAKE)

    @property
    def cycles(self) -> int:
        return max(1, sum(1 for stage, _ in self.phases if stage == REM))


@dataclass(frozen=True, slots=True)
class Workout:
    """A bout of sport. Energy is what it added to lying still."""

    start: datetime
    end: datetime
    sport: str
    intensity: float
    kcal: float
    metres: float
    average_heart_rate: int
    max_heart_rate: int

    @property
    def minutes(self) -> float:
        return (self.end - self.start) / timedelta(minutes=1)


Rate = Callable[[Workout], float]  # something a minute


@dataclass(frozen=True, slots=True)
class Day:
    """A local day, from midnight to midnight (23 to 25 hours): heart rate by 5 minutes, the rest by 15."""

    date: date
    start: datetime
    end: datetime
    heart_rates: tuple[int, ...]
    steps: tuple[int, ...]
    active_kcal: tuple[float, ...]
    basal_kcal_a_quarter: float
    sleeps: tuple[Sleep, ...]
    workouts: tuple[Workout, ...]

    def quarters_until(self, now: datetime) -> int:
        """How many quarters of an hour are over at `now`."""
        return int(clamp((now - self.start) // QUARTER, 0, len(self.steps)))

    def slots_until(self, now: datetime) -> int:
        return int(clamp((now - self.start) // SLOT, 0, len(self.heart_rates)))


class Person:
    """One person of a sandbox. Equal `user_id` and `seed` mean an equal body and equal days, for ever."""

    def __init__(self, user_id: str, seed: int = 0) -> None:
        self.user_id = user_id
        self.seed = seed
        self.zone = ZoneInfo(zone_of(user_id))
        self._draw_traits(dice(seed, user_id, "traits"))

    def _draw_traits(self, roll: random.Random) -> None:
        self.age = roll.randint(22, 68)
        self.height_m = round(roll.uniform(1.56, 1.94), 2)
        self.weight_kg = round(22.5 * self.height_m**2 + roll.uniform(-7, 16), 1)
        self.resting_heart_rate = roll.uniform(46, 63)
        self.max_heart_rate = round(208 - 0.7 * self.age)
        self.hrv_ms = clamp(roll.gauss(78 - 0.7 * self.age, 10), 34, 95)
        self.breaths = roll.uniform(12.8, 16.8)
        self.spo2_percent = roll.uniform(95.6, 97.8)
        self.skin_celsius = roll.uniform(33.4, 35.0)
        self.bed_minute = roll.uniform(-80, 35)  # from midnight
        self.sleep_minutes = roll.uniform(415, 485)
        self.daily_steps = roll.uniform(5200, 12500)
        self.basal_kcal = 10 * self.weight_kg + 625 * self.height_m - 5 * self.age - 60  # Mifflin-St Jeor, both sexes
        self.vo2_max = round(clamp(58 - 0.35 * self.age - (self.resting_heart_rate - 55) / 2, 26, 58))
        self.workout_share = roll.uniform(0.2, 0.65)
        self.sports = tuple(roll.sample(sorted(SPORTS), 2))

    def dice(self, *topic: object) -> random.Random:
        return dice(self.seed, self.user_id, *topic)

    def midnight(self, day: date) -> datetime:
        """The local midnight `day` begins with."""
        return datetime.combine(day, time(), self.zone).astimezone(UTC)

    def local_day(self, at: datetime) -> date:
        return at.astimezone(self.zone).date()

    def at_local(self, day: date, minute: float) -> datetime:
        """The wall-clock minute of `day`, negative for the evening before, on a whole minute."""
        wall = datetime.combine(day, time()) + timedelta(minutes=round(minute))
        return wall.replace(tzinfo=self.zone).astimezone(UTC)

    def night(self, day: date) -> Sleep:
        """The sleep that ends in the morning of `day`."""
        return _night(self.user_id, self.seed, day)

    def nap(self, day: date) -> Sleep | None:
        return _nap(self.user_id, self.seed, day)

    def workouts(self, day: date) -> tuple[Workout, ...]:
        return _workouts(self.user_id, self.seed, day)

    def day(self, day: date) -> Day:
        return _day(self.user_id, self.seed, day)


# Bounds: a night or a day of truth is some 5 kB, so these hold under 50 MB between them.
@lru_cache(maxsize=20_000)
def person(user_id: str, seed: int = 0) -> Person:
    return Person(user_id, seed)


@lru_cache(maxsize=8_192)
def _night(user_id: str, seed: int, day: date) -> Sleep:
    who = person(user_id, seed)
    roll = who.dice("night", day)
    bad = roll.random() < 1 / 12
    weekend = 35 if day.weekday() >= 5 else 0
    bed_minute = clamp(who.bed_minute + weekend + roll.gauss(0, 18) + (50 if bad else 0), -125, 110)
    in_bed_minutes = clamp(who.sleep_minutes + 35 + roll.gauss(0, 24) - (95 if bad else 0), 260, 580)
    drift = 1.2 * math.sin(day.toordinal() / 9)
    return Sleep(
        start=who.at_local(day, bed_minute),
        phases=night_phases(roll, round(in_bed_minutes * 60 / EPOCH_SECONDS), bad=bad),
        resting_heart_rate=who.resting_heart_rate + drift + roll.uniform(-1.5, 1.5) + (5.5 if bad else 0),
        hrv_ms=max(14.0, who.hrv_ms * (1 - drift / 30) + roll.gauss(0, 4)) * (0.7 if bad else 1),
        breaths=who.breaths + roll.uniform(-0.5, 0.5) + (0.9 if bad else 0),
        spo2_percent=clamp(who.spo2_percent + roll.uniform(-0.6, 0.6), 92, 99.5),
        temperature_deviation=clamp(roll.gauss(0, 0.16), -0.6, 0.6) + (0.45 if bad else 0),
        bad=bad,
    )


def night_phases(roll: random.Random, epochs: int, *, bad: bool) -> tuple[Phase, ...]:
    """A hypnogram that fills `epochs`: awake first and last, cycles of 80 to 110 minutes between."""
    falling, rising = roll.randint(60, 110) if bad else roll.randint(8, 40), roll.randint(4, 16)
    phases: list[Phase] = [(AWAKE, falling)]
    left = epochs - falling - rising
    cycle = 0
    while left > 0:
        for stage, wanted in _cycle(roll, cycle, bad=bad):
            phases.append((stage, min(wanted, left)))
            left -= phases[-1][1]
        cycle += 1
    return merged([*phases, (AWAKE, rising)])


def _cycle(roll: random.Random, cycle: int, *, bad: bool) -> list[Phase]:
    """Cycle number `cycle` of a night: less deep sleep and more REM as the night goes on."""
    length = roll.randint(165, 215)
    deep = round(length * clamp(0.38 - 0.11 * cycle + roll.uniform(-0.04, 0.04), 0.02, 0.5))
    rem = round(length * clamp(0.09 + 0.075 * cycle + roll.uniform(-0.03, 0.03), 0.05, 0.4))
    light = length - deep - rem
    before = round(light * roll.uniform(0.35, 0.65))
    awake = roll.randint(24, 56) if bad else roll.randint(2, 9)
    return [(LIGHT, before), (DEEP, deep), (LIGHT, light - before), (REM, rem), (AWAKE, awake)]


def merged(phases: list[Phase]) -> tuple[Phase, ...]:
    """`phases` without empty ones and with equal neighbours made one."""
    joined: list[Phase] = []
    for stage, count in phases:
        if count <= 0:
            continue
        if joined and joined[-1][0] == stage:
            joined[-1] = (stage, joined[-1][1] + count)
        else:
            joined.append((stage, count))
    return tuple(joined)


@lru_cache(maxsize=8_192)
def _nap(user_id: str, seed: int, day: date) -> Sleep | None:
    who = person(user_id, seed)
    night, roll = who.night(day), who.dice("nap", day)
    if roll.random() >= (0.3 if night.bad else 0.07):
        return None
    asleep = roll.randint(36, 110)
    phases = [(AWAKE, roll.randint(6, 16)), (LIGHT, asleep), (DEEP, roll.randint(0, 24)), (LIGHT, 10), (AWAKE, 4)]
    return Sleep(
        start=who.at_local(day, roll.uniform(13 * 60, 15 * 60)),
        phases=merged(phases),
        resting_heart_rate=night.resting_heart_rate + 4,
        hrv_ms=night.hrv_ms * 0.9,
        breaths=night.breaths,
        spo2_percent=night.spo2_percent,
        temperature_deviation=0.0,
        nap=True,
    )


@lru_cache(maxsize=8_192)
def _workouts(user_id: str, seed: int, day: date) -> tuple[Workout, ...]:
    """None, one, or now and then two: sport in the early evening, a walk before noon."""
    who = person(user_id, seed)
    roll = who.dice("workouts", day)
    bouts = []
    if roll.random() < 0.12:
        bouts.append(_workout(who, roll, day, "walking", roll.uniform(11 * 60, 12 * 60)))
    if roll.random() < who.workout_share:
        bouts.append(_workout(who, roll, day, roll.choice(who.sports), roll.uniform(17 * 60, 19 * 60)))
    return tuple(bouts)


def _workout(who: Person, roll: random.Random, day: date, sport: str, minute: float) -> Workout:
    _, effort, kcal, metres = SPORTS[sport]
    minutes = roll.randint(22, 55 if sport == "walking" else 80)
    intensity = clamp(effort + roll.uniform(-0.08, 0.1), 0.12, 0.92)
    start = who.at_local(day, minute)
    average = who.resting_heart_rate + intensity * (who.max_heart_rate - who.resting_heart_rate)
    return Workout(
        start=start,
        end=start + timedelta(minutes=minutes),
        sport=sport,
        intensity=intensity,
        kcal=round(minutes * kcal * who.weight_kg / 70 * intensity / effort, 1),
        metres=round(minutes * metres * roll.uniform(0.9, 1.1), 1),
        average_heart_rate=round(average),
        max_heart_rate=round(min(who.max_heart_rate, average + roll.uniform(8, 24))),
    )


@lru_cache(maxsize=8_192)
def _day(user_id: str, seed: int, day: date) -> Day:
    who = person(user_id, seed)
    start, end = who.midnight(day), who.midnight(day + timedelta(days=1))
    night, tonight = who.night(day), who.night(day + timedelta(days=1))
    nap, workouts = who.nap(day), who.workouts(day)
    sleeps = (night, nap, tonight) if nap else (night, tonight)
    steps = _steps(who, start, end, sleeps, workouts)
    return Day(
        date=day,
        start=start,
        end=end,
        heart_rates=_heart_rates(who, start, end, sleeps, workouts, steps),
        steps=steps,
        active_kcal=_active_kcal(who, start, steps, workouts),
        basal_kcal_a_quarter=who.basal_kcal / 96,
        sleeps=(night, nap) if nap else (night,),
        workouts=workouts,
    )


def _steps(
    who: Person, start: datetime, end: datetime, sleeps: tuple[Sleep, ...], workouts: tuple[Workout, ...]
) -> tuple[int, ...]:
    """Bursts through the waking day, more of them on the way to and from work, and what the sport adds."""
    roll = who.dice("steps", start.date())
    hours = [(start + index * QUARTER).astimezone(who.zone).hour for index in range((end - start) // QUARTER)]
    weights = [_restlessness(roll, hour) for hour in hours]
    for sleep in sleeps:
        for index in indices(start, len(weights), sleep.start - QUARTER, sleep.end, QUARTER):
            weights[index] = 0.0
    target = who.daily_steps * clamp(roll.gauss(1, 0.25), 0.35, 1.9)
    scale = target / (sum(weights) or 1)
    sport = _spread(start, len(weights), workouts, lambda bout: SPORTS[bout.sport][0])
    return tuple(round(weight * scale + extra) for weight, extra in zip(weights, sport, strict=True))


def _restlessness(roll: random.Random, hour: int) -> float:
    if roll.random() < 0.4:
        return 0.0
    return roll.random() * (2.2 if hour in (8, 12, 17, 18) else 1.0)


def _active_kcal(
    who: Person, start: datetime, steps: tuple[int, ...], workouts: tuple[Workout, ...]
) -> tuple[float, ...]:
    """Walking about costs some 0.04 kcal a step at 70 kg; a bout of sport already contains its own steps."""
    sport_steps = _spread(start, len(steps), workouts, lambda bout: SPORTS[bout.sport][0])
    sport_kcal = _spread(start, len(steps), workouts, lambda bout: bout.kcal / bout.minutes)
    per_step = 0.04 * who.weight_kg / 70
    return tuple(
        round(max(0.0, count - in_sport) * per_step + kcal, 2)
        for count, in_sport, kcal in zip(steps, sport_steps, sport_kcal, strict=True)
    )


def _spread(start: datetime, quarters: int, workouts: tuple[Workout, ...], rate: Rate) -> list[float]:
    """`rate` a minute of each workout, added up by quarter of an hour from `start`."""
    totals = [0.0] * quarters
    for bout in workouts:
        for index in range(int((bout.start - start) // QUARTER), int((bout.end - start) // QUARTER) + 1):
            begins = start + index * QUARTER
            overlap = min(bout.end, begins + QUARTER) - max(bout.start, begins)
            totals[index] += rate(bout) * (overlap / timedelta(minutes=1))
    return totals


def _heart_rates(
    who: Person,
    start: datetime,
    end: datetime,
    sleeps: tuple[Sleep, ...],
    workouts: tuple[Workout, ...],
    steps: tuple[int, ...],
) -> tuple[int, ...]:
    roll = who.dice("heart", start.date())
    rates = [
        _awake_rate(who, index, steps[index // SLOTS_A_QUARTER]) + 3 * (roll.random() + roll.random() - 1)
        for index in range((end - start) // SLOT)
    ]
    for sleep in sleeps:
        before, length = (start - sleep.start) / SLOT, sleep.epochs * EPOCH_SECONDS / SLOT.total_seconds()
        for index in indices(start, len(rates), sleep.start, sleep.end, SLOT):
            dip = math.sin(math.pi * (before + index) / length)
            rates[index] = sleep.resting_heart_rate + 8 * (1 - dip) + 3 * roll.random()
    for bout in workouts:
        spread = bout.max_heart_rate - bout.average_heart_rate
        for index in indices(start, len(rates), bout.start, bout.end, SLOT):
            rates[index] = bout.average_heart_rate + spread * (2 * roll.random() - 1)
    return tuple(map(round, rates))


def _awake_rate(who: Person, slot: int, steps: int) -> float:
    """Highest in the afternoon, and up with every burst of steps. `slot` counts 5 minutes from midnight."""
    circadian = 5 * math.sin((slot / 288 - 0.35) * 2 * math.pi)
    return who.resting_heart_rate + 15 + circadian + min(38, steps / 32)


def indices(start: datetime, count: int, begins: datetime, ends: datetime, step: timedelta) -> range:
    """Which of the `count` steps from `start` on begin between `begins` and `ends`."""
    first, last = -((start - begins) // step), -((start - ends) // step)
    return range(max(0, first), min(count, last))
