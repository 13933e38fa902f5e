"""Oura documents into samples. Pure: the field names are those of https://cloud.ouraring.com/v2/docs.

Oura's HRV is RMSSD, its readiness contributors are scores and never measurements, and its temperature is a
deviation from the wearer's own normal, not a temperature.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Any

from auren.biometrics.metrics import AWAKE, DEEP, LIGHT, REM
from devices.vendors import times
from devices.vendors.documents import (
    Fields,
    Reading,
    Span,
    Unusable,
    check_grid,
    identifier_of,
    moment_of,
    number_of,
    point_of,
    read_each,
)
from devices.vendors.normalised import Document, Normalised
from devices.vendors.times import Moment, quoted

SOURCE = "Oura"

NIGHT_VALUES: Fields = (
    ("total_sleep_duration", "sleep_duration"),
    ("time_in_bed", "sleep_in_bed"),
    ("awake_time", "sleep_awake"),
    ("light_sleep_duration", "sleep_light"),
    ("deep_sleep_duration", "sleep_deep"),
    ("rem_sleep_duration", "sleep_rem"),
    ("latency", "sleep_latency"),
    ("efficiency", "sleep_efficiency"),
    ("average_hrv", "hrv_rmssd"),
    ("average_breath", "respiratory_rate"),
)
RESTING = ("lowest_heart_rate", "resting_heart_rate")
BEATS = ("heart_rate.items", "heart_rate")
DAILY_VALUES: dict[str, Fields] = {
    "daily_activity": (
        ("steps", "steps"),
        ("equivalent_walking_distance", "distance"),
        ("active_calories", "active_energy"),
        ("total_calories", "total_energy"),
        ("score", "oura_activity_score"),
    ),
    "daily_cardiovascular_age": (("vascular_age", "oura_vascular_age"),),
    "daily_readiness": (("score", "oura_readiness_score"), ("temperature_deviation", "skin_temperature_deviation")),
    "daily_sleep": (("score", "oura_sleep_score"),),
    "daily_stress": (("stress_high", "oura_stress_high"), ("recovery_high", "oura_recovery_high")),
    "vo2_max": (("vo2_max", "vo2_max"),),
}
STAGES = {"1": DEEP, "2": LIGHT, "3": REM, "4": AWAKE}
# The finer one first: both describe the same night.
HYPNOGRAMS = (("sleep_phase_30_sec", 30), ("sleep_phase_5_min", 300))
OXYGEN = ("spo2_percentage.average", "spo2")
BEAT = ("bpm", "heart_rate")
WORKOUT = ("start_datetime..end_datetime", "workout_duration")
# By kind of document, each field that is read and the metric it yields: for docs/metrics.md.
FIELDS: dict[str, Fields] = {
    "sleep": (*NIGHT_VALUES, RESTING, BEATS, *((field, "sleep_stage") for field, _ in HYPNOGRAMS)),
    **DAILY_VALUES,
    "daily_spo2": (OXYGEN,),
    "heartrate": (BEAT,),
    "workout": (WORKOUT,),
}
ALL_DAY_SECONDS = 86_400


def normalise(kind: str, document: Document, zone: str = "UTC") -> Normalised:
    """What one Oura document, or a page of them under `data`, yields; `zone` places its days. Never raises.

    `kind` is Oura's data type. One without a catalogue metric, or an unknown one, yields nothing.
    """
    result = Normalised(source_kinds={SOURCE: "ring"})
    read = READERS.get("vo2_max" if kind == "vO2_max" else kind)
    if read is None:
        result.ignored += 1
        return result
    read_each(document, "data", result, lambda row: read(row, result, zone))
    return result


def read_sleep(document: Document, result: Normalised, _zone: str) -> str:
    reading = Reading(result, identifier_of(document, "id"), SOURCE)
    if document.get("type") == "deleted":
        result.withdrawn.append(reading.record)
    elif document.get("type") == "rest":
        result.ignored += 1
    else:
        add_night(reading, document)
        add_heart_rates(reading, document)
    return reading.record


def add_night(reading: Reading, document: Document) -> None:
    night = reading.span(document, "bedtime_start", "bedtime_end")
    if night is None:
        return
    for field, metric in NIGHT_VALUES:
        reading.add(metric, field, document.get(field), night)
    # Oura has no resting heart rate; the lowest of the main sleep is the usual stand-in, that of a nap is not.
    if document.get("type") == "long_sleep":
        field, metric = RESTING
        reading.add(metric, field, document.get(field), night)
    add_stages(reading, document, Moment(night.start_at, night.offset_minutes))


def add_stages(reading: Reading, document: Document, start: Moment) -> None:
    for field, seconds in HYPNOGRAMS:
        phases = document.get(field)
        if phases is None or phases == "":
            continue
        try:
            spans = list(stages_of(phases, seconds, start))
        except ValueError as error:
            reading.refuse(field, str(error))
            continue
        for stage, span in spans:
            reading.add("sleep_stage", field, stage, span)
        return


def stages_of(phases: object, seconds: int, start: Moment) -> Iterator[tuple[int, Span]]:
    """The stages of a hypnogram string, equal neighbours merged; a character that is no stage leaves a gap."""
    if not isinstance(phases, str):
        raise Unusable(f"{quoted(phases)} is not a text")
    check_grid(len(phases), seconds)
    position = 0
    for phase, run in groupby(phases):
        length = len(list(run))
        if phase in STAGES:
            began = start.at + timedelta(seconds=position * seconds)
            yield STAGES[phase], Span(began, began + timedelta(seconds=length * seconds), start.offset_minutes)
        position += length


def add_heart_rates(reading: Reading, document: Document) -> None:
    field, metric = BEATS
    series = reading.part(document, "heart_rate")
    if series.get("items") is None:
        return
    try:
        rates = list(series_of(series))
    except ValueError as error:
        reading.refuse("heart_rate", str(error))
        return
    for rate, span in rates:
        reading.add(metric, field, rate, span)


def series_of(series: Document) -> Iterator[tuple[Any, Span]]:
    """The values of an Oura series `{interval, items, timestamp}`, each at its instant."""
    items = series["items"]
    if not isinstance(items, list):
        raise Unusable(f"items must be a list, not {quoted(items)}")
    interval = number_of(series.get("interval"))
    check_grid(len(items), interval)
    start = moment_of(series, "timestamp")
    for position, value in enumerate(items):
        at = start.at + timedelta(seconds=position * interval)
        yield value, Span(at, at, start.offset_minutes)


def read_daily(kind: str, document: Document, result: Normalised, zone: str) -> str:
    reading = Reading(result, identifier_of(document, "id"), SOURCE)
    day = day_of(document, zone)
    if kind == "daily_activity" and unworn(document, day):
        result.ignored += 1
        return reading.record
    for field, metric in DAILY_VALUES[kind]:
        reading.add(metric, field, document.get(field), day)
    return reading.record


def unworn(document: Document, day: Span) -> bool:
    """Whether the ring lay in a drawer from midnight to midnight, on a day shortened by a clock change too."""
    seconds = document.get("non_wear_time")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return False
    return seconds >= min(ALL_DAY_SECONDS, day.seconds)


def read_spo2(document: Document, result: Normalised, zone: str) -> str:
    reading = Reading(result, identifier_of(document, "id"), SOURCE)
    field, metric = OXYGEN
    average = reading.part(document, "spo2_percentage").get("average")
    reading.add(metric, field, average, day_of(document, zone))
    return reading.record


def day_of(document: Document, zone: str) -> Span:
    if document.get("day") is None:
        raise Unusable("there is no day")
    return Span(*times.local_day(document["day"], zone))


def read_heart_rate(document: Document, result: Normalised, _zone: str) -> str:
    field, metric = BEAT
    if document.get(field) is None:
        return ""
    at = point_of(document, "timestamp")
    reading = Reading(result, heart_rate_record(at.start_at), SOURCE)
    reading.add(metric, field, document[field], at)
    return reading.record


def heart_rate_record(at: datetime) -> str:
    """Oura gives heart rate rows no id, so their instant is one: `heartrate:2024-01-15T02:30:00Z`."""
    return f"heartrate:{times.to_text(at)}"


def read_workout(document: Document, result: Normalised, _zone: str) -> str:
    reading = Reading(result, identifier_of(document, "id"), SOURCE)
    workout = reading.span(document, "start_datetime", "end_datetime")
    if workout is not None:
        field, metric = WORKOUT
        reading.add(metric, field, workout.seconds, workout)
    return reading.record


Reader = Callable[[Document, Normalised, str], str]
READERS: dict[str, Reader] = {
    "daily_spo2": read_spo2,
    "heartrate": read_heart_rate,
    "sleep": read_sleep,
    "workout": read_workout,
    **{kind: partial(read_daily, kind) for kind in DAILY_VALUES},
}
