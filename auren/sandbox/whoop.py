"""WHOOP's documents, in the shapes of its API v2 (OpenAPI, 2025), made from a person's days.

A sleep, its recovery and the cycle it opens appear together, some minutes after waking. On a share of nights the newest
sleep and recovery wait for their score; a few nights are never scored. A cycle runs from one falling asleep to the
next, and has no `end` while it runs. Sleeps and workouts have UUID5 ids, cycles an int64 that names person and day.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal
from uuid import NAMESPACE_URL, uuid5

from auren.biometrics.metrics import AWAKE, DEEP, LIGHT, REM
from auren.sandbox import observed
from auren.sandbox.physiology import EPOCH_SECONDS, Person, Sleep, Workout, clamp, number

Document = dict[str, Any]
ScoreState = Literal["SCORED", "PENDING_SCORE", "UNSCORABLE"]

DEVICE: observed.Device = "whoop"
SYNC_DELAY = timedelta(minutes=4)
RECOVERY_AFTER = timedelta(seconds=8)
KILOJOULES_A_KILOCALORIE = 4.184
NUMBER_SLOTS = 10  # an integer id's kinds: the cycle, the night, the nap, then workouts
CYCLE_SLOT, NIGHT_SLOT, WORKOUT_SLOT = 0, 1, 3
DAYS_SPAN = 1_000_000

SCOPES = {
    "cycle": "read:cycles",
    "sleep": "read:sleep",
    "recovery": "read:recovery",
    "workout": "read:workout",
    "body_measurement": "read:body_measurement",
    "profile": "read:profile",
}
ALL_SCOPES = ("offline", *sorted(SCOPES.values()))
ANNOUNCED = ("sleep", "recovery", "workout")


@dataclass(slots=True)
class Scoring:
    """How often, and for how long, the newest night waits for its score, and how many are never scored."""

    pending_share: float = 0.25
    pending_minutes: float = 40
    unscorable_share: float = 0.02

    def waits(self, who: Person, day: date) -> bool:
        return number(who.seed, who.user_id, "pending", day) / 2**64 < self.pending_share


@lru_cache(maxsize=65_536)
def record_id(kind: str, user_id: str, day: date, index: int = 0) -> str:
    return str(uuid5(NAMESPACE_URL, f"whoop/{kind}/{user_id}/{day}/{index}"))


def integer_id(user_id: str, day: date, slot: int) -> int:
    """An int64 (under 2**53, as JSON wants it) for the cycle, or the v1 id, of a person's day."""
    return ((number("whoop", user_id) % 2**24) * NUMBER_SLOTS + slot) * DAYS_SPAN + day.toordinal()


def day_of_integer(user_id: str, identifier: int) -> tuple[date, int] | None:
    """The day and slot an integer id stands for, None where it is not one of this person's."""
    ordinal = identifier % DAYS_SPAN
    slot = identifier // DAYS_SPAN % NUMBER_SLOTS
    if not 0 < ordinal <= date.max.toordinal():
        return None
    day = date.fromordinal(ordinal)
    return (day, slot) if integer_id(user_id, day, slot) == identifier else None


def stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def offset(at: datetime, who: Person) -> str:
    """The zone's offset at that time, `Z` for none."""
    text = at.astimezone(who.zone).isoformat()[-6:]
    return "Z" if text == "+00:00" else text


def created_at(who: Person, sleep: Sleep) -> datetime:
    return observed.synced_at(who, DEVICE, sleep, SYNC_DELAY)


def score_state(who: Person, day: date, created: datetime, now: datetime, scoring: Scoring) -> ScoreState:
    if scoring.waits(who, day) and now < created + timedelta(minutes=scoring.pending_minutes):
        return "PENDING_SCORE"
    unscorable = number(who.seed, who.user_id, "unscorable", day) / 2**64 < scoring.unscorable_share
    return "UNSCORABLE" if unscorable else "SCORED"


def scored_at(who: Person, day: date, created: datetime, state: ScoreState, scoring: Scoring) -> datetime:
    """When the document last changed: when it was made, or when its score came."""
    if state == "PENDING_SCORE" or not scoring.waits(who, day):
        return created
    return created + timedelta(minutes=scoring.pending_minutes)


def night_and_naps(who: Person, day: date, now: datetime) -> list[Sleep]:
    """The day's sleeps that the vendor has by `now`, the night first."""
    night = observed.night(who, DEVICE, day)
    found = [*([night] if night else []), *observed.naps(who, DEVICE, day)]
    return [sleep for sleep in found if created_at(who, sleep) <= now]


def sleeps(who: Person, day: date, now: datetime, scoring: Scoring) -> Iterator[Document]:
    for sleep in night_and_naps(who, day, now):
        yield _sleep(who, day, sleep, now, scoring)


def _sleep(who: Person, day: date, sleep: Sleep, now: datetime, scoring: Scoring) -> Document:
    created = created_at(who, sleep)
    state: ScoreState = "SCORED" if sleep.nap else score_state(who, day, created, now, scoring)
    updated = created if sleep.nap else scored_at(who, day, created, state, scoring)
    document = {
        "id": record_id("sleep", who.user_id, day, int(sleep.nap)),
        "cycle_id": integer_id(who.user_id, day, CYCLE_SLOT),
        "v1_id": integer_id(who.user_id, day, NIGHT_SLOT + int(sleep.nap)),
        "user_id": who.user_id,
        "created_at": stamp(created),
        "updated_at": stamp(updated),
        "start": stamp(sleep.start),
        "end": stamp(sleep.end),
        "timezone_offset": offset(sleep.start, who),
        "nap": sleep.nap,
        "score_state": state,
    }
    return document | ({"score": _sleep_score(who, sleep)} if state == "SCORED" else {})


def _sleep_score(who: Person, sleep: Sleep) -> Document:
    needed = round(who.sleep_minutes * 60_000)
    return {
        "stage_summary": {
            "total_in_bed_time_milli": sleep.epochs * EPOCH_SECONDS * 1000,
            "total_awake_time_milli": sleep.seconds(AWAKE) * 1000,
            "total_no_data_time_milli": 0,
            "total_light_sleep_time_milli": sleep.seconds(LIGHT) * 1000,
            "total_slow_wave_sleep_time_milli": sleep.seconds(DEEP) * 1000,
            "total_rem_sleep_time_milli": sleep.seconds(REM) * 1000,
            "sleep_cycle_count": sleep.cycles,
            "disturbance_count": 2 * sleep.awakenings,
        },
        "sleep_needed": {
            "baseline_milli": needed,
            "need_from_sleep_debt_milli": 1_500_000 if sleep.bad else 300_000,
            "need_from_recent_strain_milli": round(who.workout_share * 600_000),
            "need_from_recent_nap_milli": 0,
        },
        "respiratory_rate": round(sleep.breaths, 6),
        "sleep_performance_percentage": performance(who, sleep),
        "sleep_consistency_percentage": 61.0 if sleep.bad else 83.0,
        "sleep_efficiency_percentage": round(sleep.efficiency, 5),
    }


def performance(who: Person, sleep: Sleep) -> float:
    """Percent of the sleep needed that was had."""
    return float(round(clamp(100 * sleep.asleep_seconds / (who.sleep_minutes * 60), 1, 100)))


def recoveries(who: Person, day: date, now: datetime, scoring: Scoring) -> Iterator[Document]:
    night = next((sleep for sleep in night_and_naps(who, day, now - RECOVERY_AFTER) if not sleep.nap), None)
    if night is None:
        return
    created = created_at(who, night) + RECOVERY_AFTER
    state = score_state(who, day, created, now, scoring)
    document = {
        "cycle_id": integer_id(who.user_id, day, CYCLE_SLOT),
        "sleep_id": record_id("sleep", who.user_id, day),
        "user_id": who.user_id,
        "created_at": stamp(created),
        "updated_at": stamp(scored_at(who, day, created, state, scoring)),
        "score_state": state,
    }
    yield document | ({"score": _recovery_score(who, night)} if state == "SCORED" else {})


def _recovery_score(who: Person, night: Sleep) -> Document:
    from_hrv = 62 + 110 * (night.hrv_ms / who.hrv_ms - 1)
    from_heart = -3 * (night.resting_heart_rate - who.resting_heart_rate)
    from_sleep = (performance(who, night) - 92) / 2
    return {
        "user_calibrating": False,
        "recovery_score": float(round(clamp(from_hrv + from_heart + from_sleep, 1, 99))),
        "resting_heart_rate": float(round(night.resting_heart_rate)),
        "hrv_rmssd_milli": round(night.hrv_ms, 6),
        "spo2_percentage": round(night.spo2_percent, 5),
        "skin_temp_celsius": round(who.skin_celsius + night.temperature_deviation, 5),
    }


def cycles(who: Person, day: date, now: datetime, scoring: Scoring) -> Iterator[Document]:
    del scoring  # a running cycle shows its strain so far
    night = observed.night(who, DEVICE, day)
    if night is None or created_at(who, night) > now:
        return
    tonight = observed.night(who, DEVICE, day + timedelta(days=1)) or who.night(day + timedelta(days=1))
    closed_at = created_at(who, tonight)
    over = closed_at <= now
    quarter = datetime.fromtimestamp(now.timestamp() // 900 * 900, UTC)
    document = {
        "id": integer_id(who.user_id, day, CYCLE_SLOT),
        "user_id": who.user_id,
        "created_at": stamp(created_at(who, night)),
        "updated_at": stamp(closed_at if over else max(quarter, created_at(who, night))),
        "start": stamp(night.start),
        **({"end": stamp(tonight.start)} if over else {}),
        "timezone_offset": offset(night.start, who),
        "score_state": "SCORED",
    }
    yield document | {"score": _cycle_score(who, day, night.start, min(tonight.start, quarter))}


def _cycle_score(who: Person, day: date, start: datetime, until: datetime) -> Document:
    truth = who.day(day)
    active = sum(truth.active_kcal[: truth.quarters_until(until)])
    basal = who.basal_kcal * ((until - start) / timedelta(days=1))
    rates = truth.heart_rates[: max(1, truth.slots_until(until))]
    return {
        "strain": round(strain(active / 900), 6),
        "kilojoule": round((active + basal) * KILOJOULES_A_KILOCALORIE, 3),
        "average_heart_rate": round(sum(rates) / len(rates)),
        "max_heart_rate": max(rates),
    }


def strain(load: float) -> float:
    """WHOOP's scale ends at 21 and gets harder to climb."""
    return 21 * (1 - math.exp(-load))


def workouts(who: Person, day: date, now: datetime, scoring: Scoring) -> Iterator[Document]:
    if not observed.wears(who, DEVICE, day):
        return
    for index, bout in enumerate(who.workouts(day)):
        created = bout.end + SYNC_DELAY
        if created <= now:
            unscorable = number(who.seed, who.user_id, "unscorable workout", day) / 2**64 < scoring.unscorable_share
            yield _workout(who, day, index, bout, scored=not unscorable)


def _workout(who: Person, day: date, index: int, bout: Workout, *, scored: bool) -> Document:
    """Scored at once, or never."""
    created = bout.end + SYNC_DELAY
    document = {
        "id": record_id("workout", who.user_id, day, index),
        "v1_id": integer_id(who.user_id, day, WORKOUT_SLOT + index),
        "user_id": who.user_id,
        "created_at": stamp(created),
        "updated_at": stamp(created),
        "start": stamp(bout.start),
        "end": stamp(bout.end),
        "timezone_offset": offset(bout.start, who),
        "sport_name": bout.sport,
        "score_state": "SCORED" if scored else "UNSCORABLE",
    }
    return document | {"score": _workout_score(bout)} if scored else document


def _workout_score(bout: Workout) -> Document:
    milli = round(bout.minutes * 60_000)
    zones = [0.03, 0.12, 0.25, 0.35, 0.2, 0.05] if bout.intensity > 0.5 else [0.15, 0.4, 0.3, 0.12, 0.03, 0.0]
    names = ("zero", "one", "two", "three", "four", "five")
    return {
        "strain": round(strain(bout.minutes * bout.intensity**2 / 35), 4),
        "average_heart_rate": bout.average_heart_rate,
        "max_heart_rate": bout.max_heart_rate,
        "kilojoule": round((bout.kcal + bout.minutes) * KILOJOULES_A_KILOCALORIE, 4),
        "percent_recorded": 100.0,
        "distance_meter": bout.metres,
        "altitude_gain_meter": 0.0,
        "altitude_change_meter": 0.0,
        "zone_durations": {
            f"zone_{name}_milli": round(milli * share) for name, share in zip(names, zones, strict=True)
        },
    }


def body_measurement(who: Person) -> Document:
    return {
        "height_meter": who.height_m,
        "weight_kilogram": who.weight_kg,
        "max_heart_rate": who.max_heart_rate,
    }


def profile(who: Person) -> Document:
    name = who.user_id.replace("_", " ").title().partition(" ")
    email = f"{who.user_id}@example.com"
    return {"user_id": who.user_id, "email": email, "first_name": name[0], "last_name": name[2]}


SINGLES: dict[str, Callable[[Person], Document]] = {"body_measurement": body_measurement, "profile": profile}
BUILDERS: dict[str, Callable[[Person, date, datetime, Scoring], Iterator[Document]]] = {
    "sleep": sleeps,
    "recovery": recoveries,
    "cycle": cycles,
    "workout": workouts,
}


def build(kind: str, who: Person, day: date, now: datetime, scoring: Scoring) -> list[Document]:
    """The documents of `kind` that belong to the local `day`, as they stand at `now`."""
    builder = BUILDERS.get(kind)
    return list(builder(who, day, now, scoring)) if builder else []


def record_of(kind: str, document: Document) -> str:
    """The name a document goes by: its id; a recovery has none and goes by its sleep's."""
    if kind in SINGLES:
        return ""
    return str(document["sleep_id"] if kind == "recovery" else document["id"])


def day_of(kind: str, document: Document, who: Person) -> date:
    """The local day a document ends on: a night belongs to its morning; a cycle to the day it is spent in."""
    if kind in SINGLES:
        return date.min
    if kind == "cycle":
        known = day_of_integer(who.user_id, document["id"])
        return known[0] if known else who.local_day(moment_of(document) + timedelta(hours=12))
    return who.local_day(datetime.fromisoformat(document.get("end") or document["created_at"]))


def moment_of(document: Document) -> datetime:
    """The time that a collection's `start` and `end` are compared with."""
    return datetime.fromisoformat(document.get("start") or document["created_at"])


def order_of(kind: str, document: Document) -> tuple[str, str]:
    """What a collection is sorted by (newest first): when it began, then its name."""
    return stamp(moment_of(document)), record_of(kind, document)


def may_be(kind: str, who: Person, record: str, day: date) -> bool:
    """Whether `record` could be the id of a document of that day: asked of every day until one says yes."""
    if kind == "cycle":
        return record == str(integer_id(who.user_id, day, CYCLE_SLOT))
    named = "sleep" if kind == "recovery" else kind
    return any(record == record_id(named, who.user_id, day, index) for index in range(2))
