"""What a device makes of a body: the same truth through its own noise, with gaps where it was not worn.

Two devices agree within the tolerances of `auren.biometrics.metrics` on most nights. On about one night in seven one
of them is clearly off in one thing: `sleep` (it misses over an hour of it), `hrv`, or `heart_rate` (a loose fit).
"""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple

from auren.biometrics.metrics import AWAKE
from auren.sandbox.physiology import (
    EPOCH_SECONDS,
    SLOT,
    Day,
    Person,
    Phase,
    Sleep,
    clamp,
    indices,
    merged,
    number,
    person,
)

Device = Literal["oura", "whoop", "watch"]

NOT_WORN: dict[Device, float] = {"oura": 0.03, "whoop": 0.03, "watch": 0.06}  # shares of days
DISAGREEING_NIGHTS = 1 / 7
# Who can be wrong in what, such that another device's data show it: WHOOP gives no heart rate by the minute, and
# only Oura and WHOOP give RMSSD and the length of a night.
FAULTS: tuple[tuple[Device, str], ...] = (
    ("oura", "sleep"),
    ("whoop", "sleep"),
    ("oura", "hrv"),
    ("whoop", "hrv"),
    ("oura", "heart_rate"),
    ("watch", "heart_rate"),
    ("whoop", "heart_rate"),
)
MISSED_EPOCHS = 150  # 75 minutes of sleep taken for lying awake


class Disagreement(NamedTuple):
    device: Device
    about: str


def wears(who: Person, device: Device, day: date) -> bool:
    """Whether the device was on through the night that ends on `day` and through `day` itself."""
    return number(who.seed, who.user_id, "worn", device, day) / 2**64 >= NOT_WORN[device]


def disagreement(who: Person, day: date) -> Disagreement | None:
    """Which device is off in what in the night that ends on `day`."""
    drawn = number(who.seed, who.user_id, "disagreement", day)
    if drawn / 2**64 >= DISAGREEING_NIGHTS:
        return None
    return Disagreement(*FAULTS[drawn % len(FAULTS)])


def night(who: Person, device: Device, day: date) -> Sleep | None:
    """The night that ends on `day` as the device saw it, None when it was not worn."""
    return _night(who.user_id, who.seed, device, day)


@lru_cache(maxsize=8_192)
def _night(user_id: str, seed: int, device: Device, day: date) -> Sleep | None:
    who = person(user_id, seed)
    if not wears(who, device, day):
        return None
    wrong = disagreement(who, day)
    return seen(who, device, day, who.night(day), wrong.about if wrong and wrong.device == device else "")


def naps(who: Person, device: Device, day: date) -> list[Sleep]:
    """Watches do not stage naps, and nobody is wrong about one."""
    nap = who.nap(day)
    if nap is None or device == "watch" or not wears(who, device, day):
        return []
    return [seen(who, device, day, nap, "")]


def seen(who: Person, device: Device, day: date, sleep: Sleep, wrong: str) -> Sleep:
    """`sleep` with the device's noise, and `wrong` about one thing if that says so."""
    roll = who.dice("seen", device, day, sleep.nap)
    phases = blurred(sleep.phases, [roll.randint(-1, 1) for _ in sleep.phases])
    moved = roll.randint(-6, 6) * EPOCH_SECONDS
    fit = roll.uniform(8, 12) if wrong == "heart_rate" else 0.0
    hrv_error = roll.uniform(26, 38) if wrong == "hrv" else roll.uniform(-3, 3)
    return replace(
        sleep,
        start=sleep.start + timedelta(seconds=moved),
        phases=with_missed_sleep(phases) if wrong == "sleep" else phases,
        resting_heart_rate=sleep.resting_heart_rate + fit + roll.uniform(-0.8, 0.8),
        hrv_ms=sleep.hrv_ms + hrv_error,
        breaths=sleep.breaths + roll.uniform(-0.3, 0.3),
        spo2_percent=clamp(sleep.spo2_percent + roll.uniform(-0.4, 0.4), 88, 100),
    )


def blurred(phases: tuple[Phase, ...], shifts: list[int]) -> tuple[Phase, ...]:
    """`phases` with their inner borders moved by `shifts` epochs; the whole keeps its length."""
    counts = [count for _, count in phases]
    for index, shift in enumerate(shifts[:-1]):
        if counts[index] + shift > 0 and counts[index + 1] - shift > 0:
            counts[index] += shift
            counts[index + 1] -= shift
    return tuple((stage, count) for (stage, _), count in zip(phases, counts, strict=True))


def with_missed_sleep(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """`phases` with the first 75 minutes of sleep taken for lying awake."""
    left = MISSED_EPOCHS
    kept: list[Phase] = []
    for stage, count in phases:
        taken = min(left, count) if stage != AWAKE else 0
        left -= taken
        kept += [(AWAKE, taken), (stage, count - taken)]
    return merged(kept)


def heart_rates(who: Person, device: Device, day: date) -> list[int | None]:
    """The day's 5-minute heart rates as the device saw them; None where it was off or lost contact."""
    truth = who.day(day)
    if not wears(who, device, day):
        return [None] * len(truth.heart_rates)
    roll = who.dice("heart", device, day)
    rates = [rate + round(3 * roll.random() - 1.5) if roll.random() > 0.03 else None for rate in truth.heart_rates]
    for ending in (day, day + timedelta(days=1)):
        _loosen(rates, who, device, truth, ending)
    return rates


def _loosen(rates: list[int | None], who: Person, device: Device, truth: Day, ending: date) -> None:
    """Raise the part of the night that ends on `ending`, if the device fitted badly in it."""
    if disagreement(who, ending) != (device, "heart_rate"):
        return
    asleep = who.night(ending)
    extra = who.dice("fit", device, ending).randint(14, 20)
    for index in indices(truth.start, len(rates), asleep.start, asleep.end, SLOT):
        rate = rates[index]
        rates[index] = None if rate is None else rate + extra


def synced_at(who: Person, device: Device, sleep: Sleep, at_least: timedelta) -> datetime:
    """When the vendor had the sleep: some minutes after waking, once the phone woke up too."""
    wait = number(who.seed, who.user_id, "sync", device, sleep.start) % 900
    return (sleep.end + at_least + timedelta(seconds=wait)).astimezone(UTC)
