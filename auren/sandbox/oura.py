"""Oura's documents, in the shapes of its API v2 (OpenAPI, 2026), made from a person's days.

A builder yields the documents of one kind that belong to one local day, as they stand at `now`: none that the ring
could not have synced by then, and today's activity only so far as it went. Ids are UUID5 of vendor, kind, person, day
and index, so they depend on neither `now` nor the process.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from auren.biometrics.metrics import AWAKE, DEEP, LIGHT, REM
from auren.sandbox import observed
from auren.sandbox.physiology import (
    EPOCH_SECONDS,
    QUARTER,
    SLOT,
    Day,
    Person,
    Sleep,
    Workout,
    clamp,
    indices,
    number,
    person,
)

Document = dict[str, Any]
Builder = Callable[[Person, date, datetime], Iterator[Document]]

DEVICE: observed.Device = "oura"
SYNC_DELAY = timedelta(minutes=5)
DAY_BEGINS = timedelta(hours=4)  # Oura counts a day of activity from 04:00
STAGE_LETTERS = {DEEP: "1", LIGHT: "2", REM: "3", AWAKE: "4"}
CALM, RESTLESS = "1111111211111111" * 80, "2132423124132243" * 80
SPORT_NAMES = {"strength_training": "strengthTraining"}

# Which scope a kind needs, after Tidepool's production table. Kinds that hold nothing here are asked for all the same.
SCOPES = {
    "daily_activity": "daily",
    "daily_readiness": "daily",
    "daily_sleep": "daily",
    "daily_stress": "daily",
    "sleep": "daily",
    "sleep_time": "daily",
    "rest_mode_period": "daily",
    "heartrate": "heartrate",
    "daily_spo2": "spo2",
    "daily_cardiovascular_age": "heart_health",
    "vO2_max": "heart_health",
    "daily_resilience": "stress",
    "workout": "workout",
    "session": "session",
    "tag": "tag",
    "enhanced_tag": "tag",
    "ring_configuration": "ring_configuration",
    "ring_battery_level": "ring_configuration",
    "personal_info": "personal",
}
ALL_SCOPES = ("email", *sorted(set(SCOPES.values())))
# What a webhook may be about, by the name it has there: `vo2_max`, where the path says `vO2_max`.
SUBSCRIBABLE = (
    "tag", "enhanced_tag", "workout", "session", "sleep", "daily_sleep", "daily_readiness", "daily_activity",
    "daily_spo2", "sleep_time", "rest_mode_period", "ring_configuration", "daily_stress", "daily_cardiovascular_age",
    "daily_resilience", "vo2_max", "meal",
)  # fmt: skip


def path_kind(data_type: str) -> str:
    """The name a webhook's data type has in a path."""
    return "vO2_max" if data_type == "vo2_max" else data_type


def data_type(kind: str) -> str:
    """The name a path's kind has in a webhook."""
    return "vo2_max" if kind == "vO2_max" else kind


@lru_cache(maxsize=65_536)
def record_id(kind: str, user_id: str, day: date, index: int = 0) -> str:
    return str(uuid5(NAMESPACE_URL, f"oura/{kind}/{user_id}/{day}/{index}"))


def stamp(at: datetime, who: Person) -> str:
    """An instant as Oura writes it: with milliseconds and the offset of where the person was."""
    return at.astimezone(who.zone).isoformat(timespec="milliseconds")


def night_and_naps(who: Person, day: date, now: datetime) -> list[Sleep]:
    """The day's sleeps that the vendor has by `now`, the night first."""
    night = observed.night(who, DEVICE, day)
    sleeps = [*([night] if night else []), *observed.naps(who, DEVICE, day)]
    return [sleep for sleep in sleeps if observed.synced_at(who, DEVICE, sleep, SYNC_DELAY) <= now]


def synced_night(who: Person, day: date, now: datetime) -> Sleep | None:
    return next((sleep for sleep in night_and_naps(who, day, now) if not sleep.nap), None)


def sleeps(who: Person, day: date, now: datetime) -> Iterator[Document]:
    for sleep in night_and_naps(who, day, now):
        yield _sleep(who.user_id, who.seed, day, int(sleep.nap))


@lru_cache(maxsize=4_096)
def _sleep(user_id: str, seed: int, day: date, index: int) -> Document:
    """The document of the night (index 0) or the nap (index 1); it never changes, so nobody may write to it."""
    who = person(user_id, seed)
    night = observed.night(who, DEVICE, day)
    sleep = night if index == 0 and night else observed.naps(who, DEVICE, day)[0]
    return {
        "id": record_id("sleep", user_id, day, index),
        "day": day.isoformat(),
        "bedtime_start": stamp(sleep.start, who),
        "bedtime_end": stamp(sleep.end, who),
        "period": index,
        "type": "late_nap" if sleep.nap else "long_sleep",
        "low_battery_alert": False,
        "sleep_algorithm_version": "v2",
        "sleep_analysis_reason": "foreground_sleep_analysis",
        "sleep_score_delta": None,
        "readiness_score_delta": None,
        "ring_id": record_id("ring_configuration", user_id, date.min),
        "readiness": None if sleep.nap else _readiness(who, day, sleep),
        **_totals(sleep),
        **_hypnogram(who, day, sleep),
        **_series(who, day, sleep),
    }


def _totals(sleep: Sleep) -> Document:
    return {
        "time_in_bed": sleep.epochs * EPOCH_SECONDS,
        "total_sleep_duration": sleep.asleep_seconds,
        "deep_sleep_duration": sleep.seconds(DEEP),
        "light_sleep_duration": sleep.seconds(LIGHT),
        "rem_sleep_duration": sleep.seconds(REM),
        "awake_time": sleep.seconds(AWAKE),
        "latency": sleep.latency_seconds,
        "efficiency": round(sleep.efficiency),
        "restless_periods": 40 + 12 * sleep.awakenings,
        "average_breath": round(sleep.breaths * 8) / 8,
        "average_hrv": round(sleep.hrv_ms),
        "average_heart_rate": round(sleep.resting_heart_rate + 4.5, 2),
        "lowest_heart_rate": round(sleep.resting_heart_rate),
    }


def _hypnogram(who: Person, day: date, sleep: Sleep) -> Document:
    fine = "".join(STAGE_LETTERS[stage] * count for stage, count in sleep.phases)
    coarse = "".join(max("2134", key=fine[at : at + 10].count) for at in range(0, len(fine), 10))
    offset = number(who.seed, who.user_id, "movement", day) % 16
    movement = "".join((RESTLESS if stage == AWAKE else CALM)[offset : offset + count] for stage, count in sleep.phases)
    return {
        "sleep_phase_30_sec": fine,
        "sleep_phase_5_min": coarse,
        "app_sleep_phase_5_min": coarse,
        "movement_30_sec": movement,
    }


def _series(who: Person, day: date, sleep: Sleep) -> Document:
    """Heart rate and RMSSD every 5 minutes of the sleep, with gaps, around the night's own figures."""
    roll = who.dice("series", day, sleep.nap)
    count = sleep.epochs * EPOCH_SECONDS // int(SLOT.total_seconds())
    lowest = round(sleep.resting_heart_rate)
    half = max(1, count // 2)
    rates = [
        lowest + round(9 * abs(index - half) / half + 2 * roll.random()) if roll.random() > 0.03 else None
        for index in range(count)
    ]
    rates[half] = lowest
    variabilities = [round(sleep.hrv_ms * (0.8 + 0.4 * roll.random())) if rate else None for rate in rates]
    shared = {"interval": SLOT.total_seconds(), "timestamp": stamp(sleep.start, who)}
    return {"heart_rate": {**shared, "items": rates}, "hrv": {**shared, "items": variabilities}}


def score(value: float) -> int:
    return round(clamp(value, 1, 100))


def sleep_contributors(who: Person, sleep: Sleep) -> dict[str, int]:
    asleep = sleep.asleep_seconds
    return {
        "deep_sleep": score(100 * sleep.seconds(DEEP) / 4_800),
        "efficiency": score(sleep.efficiency * 1.05),
        "latency": score(100 - max(0, sleep.latency_seconds - 900) / 30),
        "rem_sleep": score(100 * sleep.seconds(REM) / 5_700),
        "restfulness": score(96 - 6 * sleep.awakenings),
        "timing": 60 if sleep.bad else 95,
        "total_sleep": score(100 * asleep / (who.sleep_minutes * 60)),
    }


def sleep_score(who: Person, sleep: Sleep) -> int:
    contributors = sleep_contributors(who, sleep)
    return score(0.4 * contributors["total_sleep"] + 0.6 * sum(contributors.values()) / len(contributors))


def _readiness(who: Person, day: date, sleep: Sleep) -> Document:
    contributors = {
        "activity_balance": 70 + number(who.user_id, "activity_balance", day) % 25,
        "body_temperature": score(98 - 60 * abs(sleep.temperature_deviation)),
        "hrv_balance": score(82 + 90 * (sleep.hrv_ms / who.hrv_ms - 1)),
        "previous_day_activity": 65 + number(who.user_id, "previous_day", day) % 32,
        "previous_night": sleep_score(who, sleep),
        "recovery_index": 55 if sleep.bad else 86,
        "resting_heart_rate": score(88 - 6 * (sleep.resting_heart_rate - who.resting_heart_rate)),
        "sleep_balance": score(100 * sleep.asleep_seconds / (who.sleep_minutes * 60)),
        "sleep_regularity": 62 if sleep.bad else 85,
    }
    return {
        "score": score(sum(contributors.values()) / len(contributors)),
        "temperature_deviation": round(sleep.temperature_deviation, 2),
        "temperature_trend_deviation": round(sleep.temperature_deviation * 0.4, 2),
        "contributors": contributors,
    }


def _heading(kind: str, who: Person, day: date) -> Document:
    return {
        "id": record_id(kind, who.user_id, day),
        "day": day.isoformat(),
        "timestamp": stamp(who.midnight(day), who),
    }


def daily_sleeps(who: Person, day: date, now: datetime) -> Iterator[Document]:
    if night := synced_night(who, day, now):
        contributors = sleep_contributors(who, night)
        yield _heading("daily_sleep", who, day) | {"score": sleep_score(who, night), "contributors": contributors}


def daily_readinesses(who: Person, day: date, now: datetime) -> Iterator[Document]:
    if night := synced_night(who, day, now):
        yield _heading("daily_readiness", who, day) | _readiness(who, day, night)


def daily_spo2s(who: Person, day: date, now: datetime) -> Iterator[Document]:
    if night := synced_night(who, day, now):
        yield {
            "id": record_id("daily_spo2", who.user_id, day),
            "day": day.isoformat(),
            "spo2_percentage": {"average": round(night.spo2_percent, 3)},
            "breathing_disturbance_index": number(who.user_id, "breathing", day) % 12,
        }


def daily_cardiovascular_ages(who: Person, day: date, now: datetime) -> Iterator[Document]:
    if night := synced_night(who, day, now):
        older = (night.resting_heart_rate - 54) / 2
        yield {
            "id": record_id("daily_cardiovascular_age", who.user_id, day),
            "day": day.isoformat(),
            "vascular_age": round(clamp(who.age + older, 18, 100)),
            "pulse_wave_velocity": round(5.2 + who.age / 20 + older / 12, 2),
        }


def daily_resiliences(who: Person, day: date, now: datetime) -> Iterator[Document]:
    if night := synced_night(who, day, now):
        recovery = float(sleep_score(who, night))
        levels = ("limited", "adequate", "solid", "strong", "exceptional")
        yield {
            "id": record_id("daily_resilience", who.user_id, day),
            "day": day.isoformat(),
            "level": levels[min(4, int(recovery // 21))],
            "contributors": {"sleep_recovery": recovery, "daytime_recovery": 60.0, "stress": 55.0},
        }


def vo2_maxes(who: Person, day: date, now: datetime) -> Iterator[Document]:
    """One estimate a week, in the evening."""
    measured_at = who.at_local(day, 20 * 60)
    weekly = (day.toordinal() + number(who.user_id, "vo2")) % 7 == 0
    if weekly and measured_at <= now and observed.wears(who, DEVICE, day):
        yield _heading("vO2_max", who, day) | {"timestamp": stamp(measured_at, who), "vo2_max": who.vo2_max}


def daily_stresses(who: Person, day: date, now: datetime) -> Iterator[Document]:
    """Seconds of high stress and of recovery so far, from noon on; the word for the day once it is over."""
    if now < who.at_local(day, 12 * 60) or not observed.wears(who, DEVICE, day):
        return
    truth = who.day(day)
    so_far = truth.quarters_until(now) / len(truth.steps)
    stressed, recovered = 900 * (number(who.user_id, "stress", day) % 14), 900 * (number(who.user_id, "calm", day) % 14)
    summary = "stressful" if stressed > recovered + 3_600 else "restored" if recovered > stressed + 3_600 else "normal"
    yield {
        "id": record_id("daily_stress", who.user_id, day),
        "day": day.isoformat(),
        "stress_high": int(stressed * so_far) // 900 * 900,
        "recovery_high": int(recovered * so_far) // 900 * 900,
        "day_summary": summary if truth.end <= now else None,
    }


def workouts(who: Person, day: date, now: datetime) -> Iterator[Document]:
    if not observed.wears(who, DEVICE, day):
        return
    for index, bout in enumerate(who.workouts(day)):
        if bout.end + SYNC_DELAY <= now:
            yield _workout(who, day, index, bout)


def _workout(who: Person, day: date, index: int, bout: Workout) -> Document:
    return {
        "id": record_id("workout", who.user_id, day, index),
        "day": day.isoformat(),
        "activity": SPORT_NAMES.get(bout.sport, bout.sport),
        "start_datetime": stamp(bout.start, who),
        "end_datetime": stamp(bout.end, who),
        "intensity": "hard" if bout.intensity > 0.7 else "moderate" if bout.intensity > 0.4 else "easy",
        "source": "confirmed",
        "calories": bout.kcal,
        "distance": bout.metres or None,
        "label": None,
    }


def daily_activities(who: Person, day: date, now: datetime) -> Iterator[Document]:
    if now < who.midnight(day) + DAY_BEGINS:
        return
    if who.midnight(day + timedelta(days=1)) <= now:
        yield _finished_activity(who.user_id, who.seed, day)
    else:
        yield _activity(who, day, now)


@lru_cache(maxsize=1_024)
def _finished_activity(user_id: str, seed: int, day: date) -> Document:
    who = person(user_id, seed)
    return _activity(who, day, who.midnight(day + timedelta(days=1)))


def _activity(who: Person, day: date, now: datetime) -> Document:
    truth = who.day(day)
    worn = observed.wears(who, DEVICE, day)
    quarters = truth.quarters_until(now) if worn else 0
    steps = round(sum(truth.steps[:quarters]) * 0.97)
    active = round(sum(truth.active_kcal[:quarters]))
    levels = _levels(truth, quarters)
    contributors = _activity_contributors(who, day, steps)
    return _heading("daily_activity", who, day) | {
        "timestamp": stamp(truth.start + DAY_BEGINS, who),
        "score": score(sum(contributors.values()) / len(contributors)) if worn else None,
        "steps": steps,
        "active_calories": active,
        "total_calories": active + round(truth.basal_kcal_a_quarter * truth.quarters_until(now)),
        "equivalent_walking_distance": round(steps * 0.74),
        "target_calories": 450,
        "target_meters": 8_000,
        "meters_to_target": 8_000 - round(steps * 0.74),
        "inactivity_alerts": number(who.user_id, "alerts", day) % 4,
        "non_wear_time": 0 if worn else int((truth.end - truth.start).total_seconds()),
        "contributors": contributors,
        **_times(levels),
        **_met(who, truth, levels),
    }


def _activity_contributors(who: Person, day: date, steps: int) -> dict[str, int]:
    reached = 100 * steps / who.daily_steps
    return {
        "meet_daily_targets": score(reached),
        "move_every_hour": score(55 + reached / 2),
        "recovery_time": 80 + number(who.user_id, "recovery_time", day) % 21,
        "stay_active": score(40 + reached / 1.6),
        "training_frequency": score(30 + 100 * who.workout_share),
        "training_volume": score(35 + 90 * who.workout_share),
    }


def _levels(truth: Day, quarters: int) -> list[int]:
    """Oura's class of each 5 minutes so far: 1 rest, 2 sedentary, 3 low, 4 medium, 5 high activity."""
    levels = [_level(energy) for energy in truth.active_kcal[:quarters]]
    for sleep in truth.sleeps:
        for index in indices(truth.start, quarters, sleep.start, sleep.end, QUARTER):
            levels[index] = 1
    return [level for level in levels for _ in range(QUARTER // SLOT)]


def _level(kcal: float) -> int:
    """The class of a quarter of an hour awake, by what it burnt."""
    return 2 if kcal < 8 else 3 if kcal < 35 else 4 if kcal < 95 else 5


def _times(levels: list[int]) -> Document:
    seconds = {level: 300 * levels.count(level) for level in range(1, 6)}
    return {
        "resting_time": seconds[1],
        "sedentary_time": seconds[2],
        "low_activity_time": seconds[3],
        "medium_activity_time": seconds[4],
        "high_activity_time": seconds[5],
        "sedentary_met_minutes": seconds[2] // 600,
        "low_activity_met_minutes": seconds[3] // 40,
        "medium_activity_met_minutes": seconds[4] // 15,
        "high_activity_met_minutes": seconds[5] // 8,
    }


MET = (0.1, 0.9, 1.2, 2.1, 3.9, 7.4)  # by class of activity


def _met(who: Person, truth: Day, levels: list[int]) -> Document:
    """The classes as Oura draws them, from 04:00 on, and metabolic equivalents by the minute."""
    shown = levels[DAY_BEGINS // SLOT :]
    items = [MET[level] for level in shown for _ in range(5)]
    return {
        "class_5_min": "".join(map(str, shown)) or None,
        "average_met_minutes": round(sum(items) / len(items), 5) if items else 0.0,
        "met": {"interval": 60.0, "items": items, "timestamp": stamp(truth.start + DAY_BEGINS, who)},
    }


def heart_rates(who: Person, day: date, now: datetime) -> Iterator[Document]:
    """The rows of a local day. A row has no id; its time is its name."""
    truth = who.day(day)
    count = truth.slots_until(now)
    for row in _heart_rate_rows(who.user_id, who.seed, day)[:count]:
        if row is not None:
            yield row


@lru_cache(maxsize=512)
def _heart_rate_rows(user_id: str, seed: int, day: date) -> tuple[Document | None, ...]:
    who = person(user_id, seed)
    truth = who.day(day)
    spans = [("workout", bout.start, bout.end) for bout in truth.workouts]
    tonight = who.night(day + timedelta(days=1))
    spans += [("sleep", sleep.start, sleep.end) for sleep in (*truth.sleeps, tonight)]
    rows: list[Document | None] = []
    for index, rate in enumerate(observed.heart_rates(who, DEVICE, day)):
        at = truth.start + index * SLOT
        source = next((name for name, start, end in spans if start <= at < end), "awake")
        rows.append(None if rate is None else _heart_rate_row(at, rate, source))
    return tuple(rows)


def _heart_rate_row(at: datetime, bpm: int, source: str) -> Document:
    at = at.astimezone(UTC)
    unix_ms = int(at.timestamp() * 1000)
    return {"timestamp": at.isoformat(), "timestamp_unix": unix_ms, "bpm": bpm, "source": source}


def personal_info(who: Person) -> Document:
    return {
        "id": who.user_id,
        "age": who.age,
        "weight": who.weight_kg,
        "height": who.height_m,
        "biological_sex": None,
        "email": f"{who.user_id}@example.com",
    }


BUILDERS: dict[str, Builder] = {
    "sleep": sleeps,
    "daily_sleep": daily_sleeps,
    "daily_readiness": daily_readinesses,
    "daily_activity": daily_activities,
    "daily_spo2": daily_spo2s,
    "daily_stress": daily_stresses,
    "daily_cardiovascular_age": daily_cardiovascular_ages,
    "daily_resilience": daily_resiliences,
    "vO2_max": vo2_maxes,
    "workout": workouts,
    "heartrate": heart_rates,
}


def build(kind: str, who: Person, day: date, now: datetime) -> list[Document]:
    """The documents of `kind` that belong to the local `day`, as they stand at `now`."""
    builder = BUILDERS.get(kind)
    return list(builder(who, day, now)) if builder else []


def record_of(kind: str, document: Document) -> str:
    """The name a document goes by: its id, or a row's timestamp."""
    if kind == "personal_info":
        return ""
    return str(document["timestamp"] if kind == "heartrate" else document["id"])


def day_of(kind: str, document: Document, who: Person) -> date:
    if kind == "personal_info":
        return date.min
    if kind in {"heartrate", "ring_battery_level"}:
        return who.local_day(datetime.fromisoformat(document["timestamp"]))
    return date.fromisoformat(document["day"])


def order_of(kind: str, document: Document) -> tuple[str, str]:
    """What a list is sorted by, ascending: when it began, then its name."""
    began = document.get("bedtime_start") or document.get("start_datetime") or document.get("timestamp")
    return str(began or document.get("day", "")), record_of(kind, document)


def may_be(kind: str, who: Person, record: str, day: date) -> bool:
    """Whether `record` could be the id of a document of that day: asked of every day until one says yes."""
    return any(record == record_id(kind, who.user_id, day, index) for index in range(2))
