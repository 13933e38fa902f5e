"""HealthKit's names and ours: sample types, Health Auto Export's metric names, sleep stages.

Apple's identifiers: https://developer.apple.com/documentation/healthkit/hkquantitytypeidentifier (2026-11-24).
A type without a metric in our catalogue (walking heart rate, cycling distance, BMI, ...) is not listed: it is counted
as ignored. Distance is walking and running only, since a ride and a walk added up would be neither.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from auren.biometrics.metrics import ASLEEP, AWAKE, BY_NAME, DEEP, IN_BED, LIGHT, METRICS, REM, Metric
from devices.vendors.documents import Fields
from devices.vendors.healthkit.units import SAME, Conversion, conversion_of, spellings_for

Form = Literal["quantity", "stage", "workout"]


class SampleType(NamedTuple):
    """How samples of one type are read. `unstated` is the conversion when no unit is written."""

    metric: Metric
    form: Form
    units: Mapping[str, Conversion]
    unstated: Conversion
    stages: Mapping[int, int]


QUANTITIES = {
    "HeartRate": "heart_rate",
    "RestingHeartRate": "resting_heart_rate",
    "HeartRateVariabilitySDNN": "hrv_sdnn",
    "HeartRateVariabilityRMSSD": "hrv_rmssd",  # since iOS 27
    "OxygenSaturation": "spo2",
    "RespiratoryRate": "respiratory_rate",
    "BodyTemperature": "body_temperature",
    "AppleSleepingWristTemperature": "skin_temperature",
    "StepCount": "steps",
    "DistanceWalkingRunning": "distance",
    "FlightsClimbed": "flights_climbed",
    "ActiveEnergyBurned": "active_energy",
    "BasalEnergyBurned": "basal_energy",
    "AppleExerciseTime": "exercise_time",
    "VO2Max": "vo2_max",
    "BodyMass": "body_mass",
    "BodyFatPercentage": "body_fat",
    "Height": "height",
    "BloodGlucose": "blood_glucose",
    "BloodPressureSystolic": "blood_pressure_systolic",
    "BloodPressureDiastolic": "blood_pressure_diastolic",
}
SLEEP = "SleepAnalysis"
AUTO_EXPORT = {
    "heart_rate": "heart_rate",
    "resting_heart_rate": "resting_heart_rate",
    "heart_rate_variability": "hrv_sdnn",
    "heart_rate_variability_sdnn": "hrv_sdnn",
    "heart_rate_variability_rmssd": "hrv_rmssd",
    "blood_oxygen_saturation": "spo2",
    "respiratory_rate": "respiratory_rate",
    "body_temperature": "body_temperature",
    "apple_sleeping_wrist_temperature": "skin_temperature",
    "step_count": "steps",
    "walking_running_distance": "distance",
    "flights_climbed": "flights_climbed",
    "active_energy": "active_energy",
    "basal_energy_burned": "basal_energy",
    "apple_exercise_time": "exercise_time",
    "vo2_max": "vo2_max",
    "weight_body_mass": "body_mass",
    "body_fat_percentage": "body_fat",
    "height": "height",
    "blood_glucose": "blood_glucose",
    "sleep_analysis": "sleep_stage",
}
WORKOUTS = (
    "HKWorkoutType",
    "HKWorkoutTypeIdentifier",
    "WorkoutType",
    "WorkoutTypeIdentifier",
    "HKWorkout",
    "Workout",
    "workout",
)
# Each type, without its prefix, and the metric it yields: for docs/metrics.md.
FIELDS: Fields = (*QUANTITIES.items(), (SLEEP, "sleep_stage"), ("Workout", "workout_duration"))
HEALTHKIT_UNITS = {"exercise_time": "min"}  # where it is not the catalogue's own

# HKCategoryValueSleepAnalysis by number, and by word without case, spaces, underscores and the enum's prefix.
STAGE_NUMBERS = {0: IN_BED, 1: ASLEEP, 2: AWAKE, 3: LIGHT, 4: DEEP, 5: REM}
STAGE_PREFIX = "hkcategoryvaluesleepanalysis"
STAGE_WORDS = {
    "inbed": IN_BED,
    "awake": AWAKE,
    "core": LIGHT,
    "light": LIGHT,
    "asleepcore": LIGHT,
    "deep": DEEP,
    "asleepdeep": DEEP,
    "rem": REM,
    "asleeprem": REM,
    "asleep": ASLEEP,
    "sleeping": ASLEEP,
    "unspecified": ASLEEP,
    "asleepunspecified": ASLEEP,
}
UNKNOWN_STAGE = "unknown"
# Whoever says `sleep_stage` speaks our language, and numbers as section 5 of the design does.
OWN_STAGES = {stage: stage for stage in (AWAKE, LIGHT, DEEP, REM, IN_BED, ASLEEP)}


def form_of(metric: str) -> Form:
    if metric == "sleep_stage":
        return "stage"
    return "workout" if metric == "workout_duration" else "quantity"


def healthkit_type(name: str) -> SampleType:
    """The type of HealthKit's own samples of a metric: its unit where none is written, its numbers for stages."""
    metric = BY_NAME[name]
    unit = HEALTHKIT_UNITS.get(name, metric.unit)
    unstated = conversion_of(metric, unit)
    return SampleType(metric, form_of(name), spellings_for(metric), unstated, STAGE_NUMBERS)


def own_type(metric: Metric) -> SampleType:
    return SampleType(metric, form_of(metric.name), spellings_for(metric), SAME, OWN_STAGES)


def types_by_name() -> dict[str, SampleType]:
    types = {metric.name: own_type(metric) for metric in METRICS}
    for short, name in QUANTITIES.items():
        types[short] = types[f"HKQuantityTypeIdentifier{short}"] = healthkit_type(name)
    types[SLEEP] = types[f"HKCategoryTypeIdentifier{SLEEP}"] = healthkit_type("sleep_stage")
    return types | dict.fromkeys(WORKOUTS, healthkit_type("workout_duration"))


TYPES = types_by_name()
AUTO_EXPORT_TYPES = TYPES | {theirs: healthkit_type(name) for theirs, name in AUTO_EXPORT.items()}
