"""WHOOP v2 documents into samples. Pure: the field names are those of https://developer.whoop.com/api.

WHOOP sends milliseconds and kilojoules. A recovery has neither an id nor a time of its own: both are its sleep's.
"""

from collections.abc import Callable
from datetime import datetime
from functools import partial

from devices.vendors import times
from devices.vendors.documents import Fields, Reading, Span, identifier_of, point_of, read_each, span_of, within
from devices.vendors.normalised import Document, Normalised
from devices.vendors.times import quoted

SOURCE = "WHOOP"
MILLISECONDS = 1000.0  # in a second
KILOJOULES = 4.184  # in a kilocalorie

ASLEEP: Fields = (
    ("total_light_sleep_time_milli", "sleep_light"),
    ("total_slow_wave_sleep_time_milli", "sleep_deep"),
    ("total_rem_sleep_time_milli", "sleep_rem"),
)
IN_BED: Fields = (("total_in_bed_time_milli", "sleep_in_bed"), ("total_awake_time_milli", "sleep_awake"))
ALL_SLEEP = (" + ".join(field for field, _ in ASLEEP), "sleep_duration")
NIGHT_VALUES: Fields = (
    ("respiratory_rate", "respiratory_rate"),
    ("sleep_efficiency_percentage", "sleep_efficiency"),
)
PERFORMANCE = ("sleep_performance_percentage", "whoop_sleep_performance")
RECOVERY = ("recovery_score", "whoop_recovery_score")
RECOVERY_VALUES: Fields = (
    ("resting_heart_rate", "resting_heart_rate"),
    ("hrv_rmssd_milli", "hrv_rmssd"),
    ("spo2_percentage", "spo2"),
    ("skin_temp_celsius", "skin_temperature"),
)
DAY_STRAIN = ("strain", "day_strain")
DAY_ENERGY = ("kilojoule", "total_energy")
WORKOUT = ("start..end", "workout_duration")
WORKOUT_STRAIN = ("strain", "workout_strain")
BODY_VALUES: Fields = (("height_meter", "height"), ("weight_kilogram", "body_mass"))
# By kind of document, each field that is read and the metric it yields: for docs/metrics.md.
FIELDS: dict[str, Fields] = {
    "sleep": (
        *within("score.stage_summary", (*IN_BED, *ASLEEP, ALL_SLEEP)),
        *within("score", (*NIGHT_VALUES, PERFORMANCE)),
    ),
    "recovery": within("score", (RECOVERY, *RECOVERY_VALUES)),
    "cycle": within("score", (DAY_STRAIN, DAY_ENERGY)),
    "workout": (WORKOUT, *within("score", (WORKOUT_STRAIN,))),
    "body_measurement": BODY_VALUES,
}


def normalise(kind: str, document: Document, zone: str = "UTC") -> Normalised:
    """What one WHOOP document, or a page of them under `records`, yields. Never raises.

    `kind` is sleep, recovery, cycle, workout or body_measurement; another yields nothing. `zone` is not needed:
    WHOOP has no values of a calendar day. A recovery carries its sleep under `sleep`, body measurements the time
    they were asked for under `fetched_at`: the API leaves both out, so whoever asks puts them in.
    """
    del zone
    result = Normalised(source_kinds={SOURCE: "band"})
    read = READERS.get(kind)
    if read is None:
        result.ignored += 1
        return result
    read_each(document, "records", result, partial(read, result))
    return result


def is_v1_id(object_id: object) -> bool:
    """Whether this is the whole number that API v1 named sleeps and workouts with; v2 has UUIDs and forgot them."""
    if isinstance(object_id, str):
        return object_id.isascii() and object_id.isdigit()
    return isinstance(object_id, int) and not isinstance(object_id, bool)


def reading_of(document: Document, result: Normalised, record: str) -> Reading:
    reading = Reading(result, record, SOURCE)
    try:
        return Reading(result, record, SOURCE, revision_of(document))
    except ValueError as error:
        reading.refuse("updated_at", str(error))
        return reading


def revision_of(document: Document) -> datetime | None:
    updated_at = document.get("updated_at")
    return None if updated_at is None else times.parse(updated_at).at


def read_sleep(result: Normalised, document: Document) -> str:
    if is_v1_id(document.get("id")):
        result.ignored += 1
        return ""
    reading = reading_of(document, result, identifier_of(document, "id"))
    score = score_of(reading, document)
    if score is None:
        return reading.record
    night = placed_span(reading, document)
    add_stage_totals(reading, reading.part(score, "stage_summary"), night)
    add_fields(reading, NIGHT_VALUES, score, night)
    if document.get("nap") in (None, False):
        add_fields(reading, (PERFORMANCE,), score, night)
    return reading.record


def add_fields(reading: Reading, fields: Fields, part: Document, span: Span, *, per: float = 1) -> bool:
    """Says whether all of them were kept; each is tried whatever became of the others."""
    kept = [reading.add(metric, field, part.get(field), span, per=per) for field, metric in fields]
    return all(kept)


def add_stage_totals(reading: Reading, summary: Document, night: Span) -> None:
    add_fields(reading, IN_BED, summary, night, per=MILLISECONDS)
    if add_fields(reading, ASLEEP, summary, night, per=MILLISECONDS):
        fields, metric = ALL_SLEEP
        asleep = sum(summary[field] for field, _ in ASLEEP)
        reading.add(metric, fields, asleep, night, per=MILLISECONDS)


def read_recovery(result: Normalised, document: Document) -> str:
    if is_v1_id(document.get("sleep_id")):
        result.ignored += 1
        return ""
    reading = reading_of(document, result, recovery_record(identifier_of(document, "sleep_id")))
    score = score_of(reading, document)
    if score is None:
        return reading.record
    when = recovery_span(reading, document)
    if score.get("user_calibrating") is not True:
        add_fields(reading, (RECOVERY,), score, when)
    add_fields(reading, RECOVERY_VALUES, score, when)
    return reading.record


def recovery_record(sleep_id: str) -> str:
    return f"recovery:{sleep_id}"


def recovery_span(reading: Reading, document: Document) -> Span:
    """The night of the recovery's sleep; without that sleep or its times, the instant the recovery was made."""
    sleep = reading.part(document, "sleep")
    if sleep.get("start") is None or sleep.get("end") is None:
        return point_of(document, "created_at")
    return placed_span(reading, sleep)


def read_cycle(result: Normalised, document: Document) -> str:
    reading = reading_of(document, result, identifier_of(document, "id"))
    if document.get("end") is None:
        result.pending = True
        return reading.record
    score = score_of(reading, document)
    if score is None:
        return reading.record
    cycle = placed_span(reading, document)
    add_fields(reading, (DAY_STRAIN,), score, cycle)
    add_fields(reading, (DAY_ENERGY,), score, cycle, per=KILOJOULES)
    return reading.record


def read_workout(result: Normalised, document: Document) -> str:
    if is_v1_id(document.get("id")):
        result.ignored += 1
        return ""
    reading = reading_of(document, result, identifier_of(document, "id"))
    score = score_of(reading, document) or {}
    workout = placed_span(reading, document)
    field, metric = WORKOUT
    reading.add(metric, field, workout.seconds, workout)
    add_fields(reading, (WORKOUT_STRAIN,), score, workout)
    return reading.record


def read_body_measurement(result: Normalised, document: Document) -> str:
    result.standing = True
    record = f"body:{identifier_of(document, 'user_id')}"
    at = point_of(document, "fetched_at")
    reading = reading_of(document, result, record)
    add_fields(reading, BODY_VALUES, document, at)
    return reading.record


def score_of(reading: Reading, document: Document) -> Document | None:
    """The score of a SCORED document; None of any other, whose numbers, should there be some, are not final."""
    state = document.get("score_state")
    if state == "SCORED":
        return reading.part(document, "score")
    if state == "PENDING_SCORE":
        reading.result.pending = True
    elif state == "UNSCORABLE":
        reading.result.ignored += 1
    else:
        reading.refuse("score_state", f"{quoted(state)} is not SCORED, PENDING_SCORE or UNSCORABLE")
    return None


def placed_span(reading: Reading, document: Document) -> Span:
    """`start` to `end`, at the document's `timezone_offset` where there is one. Raises ValueError when unusable."""
    span = span_of(document, "start", "end")
    offset = document.get("timezone_offset")
    if offset is None:
        return span
    try:
        return span._replace(offset_minutes=times.parse_offset(offset))
    except ValueError as error:
        reading.refuse("timezone_offset", str(error))
        return span


Reader = Callable[[Normalised, Document], str]
READERS: dict[str, Reader] = {
    "body_measurement": read_body_measurement,
    "cycle": read_cycle,
    "recovery": read_recovery,
    "sleep": read_sleep,
    "workout": read_workout,
}
