"""The metric catalogue: every quantity the bridge stores, one frozen row each.

Numbers are what `biometrics_sample.metric` holds; they are never reused. Units are UCUM (https://ucum.org).
Codes are LOINC where one was found and checked against HealthKitOnFHIR or an HL7 guide, else our own
(`auren:<name>`): a wrong standard code is worse than a local one. RMSSD has no LOINC code; 80404-7 is SDNN. Left out on
purpose: 103213-5 (duration in bed) is a rate in LOINC, 55430-3 (walking distance) says a pedometer measured it, which
Oura's equivalent distance was not, and 41979-6 (calories in 24 hours) is per day, which a WHOOP cycle is not.
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["point", "interval", "daily", "stage"]
Sum = Literal["mean", "sum", "last", "state"]

NIGHT: Final = "night"  # comparison bucket: whatever overlaps, as two nights do
DAY: Final = "day"  # comparison bucket: the patient's local day

# Where nobody has said otherwise, the device that measures a thing more directly draws the line.
WORN_AT_NIGHT = ("ring", "band", "watch", "phone")
WORN_ALL_DAY = ("watch", "band", "ring", "phone")
INSTRUMENT = ("scale", "cuff", "meter", "watch", "ring", "band", "phone")


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the catalogue.

    `low` and `high` are the plausible range, both ends included, in `unit`. `bucket` is what two sources are
    compared over: seconds, `DAY` or `NIGHT`. `tolerance` is the difference that still counts as agreement, in
    `unit`. `order` lists source kinds, the preferred one first.
    """

    number: int
    name: str
    label: str
    unit: str
    code: str
    kind: Kind
    adds: Sum
    low: float
    high: float
    bucket: int | Literal["day", "night"]
    tolerance: float
    order: tuple[str, ...] = WORN_AT_NIGHT

    @property
    def loinc(self) -> str | None:
        return None if self.code.startswith("auren:") else self.code

    @property
    def cumulative(self) -> bool:
        return self.adds == "sum" and self.bucket == QUARTER

    @property
    def day_tolerance(self) -> float:
        """Of a cumulative metric's whole day: the differences of 96 quarters of an hour mostly cancel out."""
        return 8 * self.tolerance


HOUR = 3600
QUARTER = 900
FIVE_MINUTES = 300
DAY_SECONDS = 90_000.0  # a local day is up to 25 hours long

METRICS: tuple[Metric, ...] = (
    Metric(1, "heart_rate", "Heart rate", "/min", "8867-4", "point", "mean", 20, 300, FIVE_MINUTES, 8, WORN_ALL_DAY),
    Metric(2, "resting_heart_rate", "Resting heart rate", "/min", "40443-4", "interval", "mean", 20, 150, NIGHT, 4),
    Metric(3, "hrv_rmssd", "HRV (RMSSD)", "ms", "auren:hrv_rmssd", "interval", "mean", 1, 500, NIGHT, 12),
    Metric(4, "hrv_sdnn", "HRV (SDNN)", "ms", "80404-7", "interval", "mean", 1, 500, HOUR, 15, WORN_ALL_DAY),
    Metric(5, "spo2", "Oxygen saturation", "%", "59408-5", "point", "mean", 50, 100, HOUR, 2),
    Metric(6, "respiratory_rate", "Respiratory rate", "/min", "9279-1", "interval", "mean", 3, 80, HOUR, 2),
    Metric(7, "body_temperature", "Body temperature", "Cel", "8310-5", "point", "mean", 25, 45, HOUR, 0.3, INSTRUMENT),
    Metric(
        8,
        "skin_temperature",
        "Skin temperature",
        "Cel",
        "auren:skin_temperature",
        "interval",
        "mean",
        15,
        45,
        NIGHT,
        0.8,
    ),
    Metric(
        9,
        "skin_temperature_deviation",
        "Skin temperature deviation",
        "Cel",
        "auren:skin_temperature_deviation",
        "daily",
        "mean",
        -10,
        10,
        DAY,
        0.5,
    ),
    Metric(10, "sleep_stage", "Sleep stage", "{stage}", "auren:sleep_stage", "stage", "state", 1, 6, NIGHT, 0),
    Metric(11, "sleep_duration", "Sleep", "s", "93832-4", "interval", "sum", 0, DAY_SECONDS, NIGHT, 1800),
    Metric(
        12, "sleep_in_bed", "Time in bed", "s", "auren:sleep_in_bed", "interval", "sum", 0, DAY_SECONDS, NIGHT, 1800
    ),
    Metric(13, "sleep_awake", "Awake in bed", "s", "auren:sleep_awake", "interval", "sum", 0, DAY_SECONDS, NIGHT, 1800),
    Metric(14, "sleep_light", "Light sleep", "s", "93830-8", "interval", "sum", 0, DAY_SECONDS, NIGHT, 1800),
    Metric(15, "sleep_deep", "Deep sleep", "s", "93831-6", "interval", "sum", 0, DAY_SECONDS, NIGHT, 1800),
    Metric(16, "sleep_rem", "REM sleep", "s", "93829-0", "interval", "sum", 0, DAY_SECONDS, NIGHT, 1800),
    Metric(
        17,
        "sleep_latency",
        "Time to fall asleep",
        "s",
        "auren:sleep_latency",
        "interval",
        "mean",
        0,
        43_200,
        NIGHT,
        900,
    ),
    Metric(
        18, "sleep_efficiency", "Sleep efficiency", "%", "auren:sleep_efficiency", "interval", "mean", 0, 100, NIGHT, 5
    ),
    Metric(19, "steps", "Steps", "{steps}", "55423-8", "interval", "sum", 0, 200_000, QUARTER, 100, WORN_ALL_DAY),
    Metric(
        20, "distance", "Distance", "m", "auren:distance", "interval", "sum", 0, 500_000, QUARTER, 100, WORN_ALL_DAY
    ),
    Metric(
        21,
        "flights_climbed",
        "Flights climbed",
        "{flights}",
        "100304-5",
        "interval",
        "sum",
        0,
        2_000,
        QUARTER,
        2,
        WORN_ALL_DAY,
    ),
    Metric(
        22, "active_energy", "Active energy", "kcal", "41981-2", "interval", "sum", 0, 20_000, QUARTER, 20, WORN_ALL_DAY
    ),
    Metric(
        23,
        "basal_energy",
        "Basal energy",
        "kcal",
        "auren:basal_energy",
        "interval",
        "sum",
        0,
        10_000,
        QUARTER,
        20,
        WORN_ALL_DAY,
    ),
    Metric(
        24,
        "total_energy",
        "Total energy",
        "kcal",
        "auren:total_energy",
        "interval",
        "sum",
        0,
        30_000,
        DAY,
        300,
        WORN_ALL_DAY,
    ),
    Metric(
        25,
        "exercise_time",
        "Exercise time",
        "s",
        "auren:exercise_time",
        "interval",
        "sum",
        0,
        DAY_SECONDS,
        QUARTER,
        300,
        WORN_ALL_DAY,
    ),
    Metric(
        26,
        "workout_duration",
        "Workout",
        "s",
        "55411-3",
        "interval",
        "sum",
        0,
        172_800,
        HOUR,
        600,
        WORN_ALL_DAY,
    ),
    Metric(
        27,
        "workout_strain",
        "Workout strain",
        "{score}",
        "auren:workout_strain",
        "interval",
        "last",
        0,
        21,
        HOUR,
        2,
        WORN_ALL_DAY,
    ),
    Metric(
        28, "day_strain", "Day strain", "{score}", "auren:day_strain", "interval", "last", 0, 21, DAY, 2, WORN_ALL_DAY
    ),
    Metric(29, "vo2_max", "VO2 max", "mL/kg/min", "94122-9", "point", "last", 5, 100, DAY, 4, WORN_ALL_DAY),
    Metric(30, "body_mass", "Weight", "kg", "29463-7", "point", "last", 1, 500, DAY, 1, INSTRUMENT),
    Metric(31, "body_fat", "Body fat", "%", "41982-0", "point", "last", 1, 80, DAY, 3, INSTRUMENT),
    Metric(32, "height", "Height", "m", "8302-2", "point", "last", 0.2, 2.8, DAY, 0.02, INSTRUMENT),
    Metric(
        33,
        "blood_glucose",
        "Blood glucose",
        "mg/dL",
        "41653-7",
        "point",
        "mean",
        10,
        1_500,
        FIVE_MINUTES,
        15,
        INSTRUMENT,
    ),
    Metric(
        34,
        "blood_pressure_systolic",
        "Systolic pressure",
        "mm[Hg]",
        "8480-6",
        "point",
        "mean",
        40,
        300,
        HOUR,
        10,
        INSTRUMENT,
    ),
    Metric(
        35,
        "blood_pressure_diastolic",
        "Diastolic pressure",
        "mm[Hg]",
        "8462-4",
        "point",
        "mean",
        20,
        200,
        HOUR,
        8,
        INSTRUMENT,
    ),
    Metric(
        36,
        "oura_readiness_score",
        "Oura readiness",
        "{score}",
        "auren:oura_readiness_score",
        "daily",
        "last",
        0,
        100,
        DAY,
        0,
    ),
    Metric(
        37, "oura_sleep_score", "Oura sleep score", "{score}", "auren:oura_sleep_score", "daily", "last", 0, 100, DAY, 0
    ),
    Metric(
        38,
        "oura_activity_score",
        "Oura activity score",
        "{score}",
        "auren:oura_activity_score",
        "daily",
        "last",
        0,
        100,
        DAY,
        0,
    ),
    Metric(
        39,
        "oura_stress_high",
        "Oura high stress",
        "s",
        "auren:oura_stress_high",
        "daily",
        "sum",
        0,
        DAY_SECONDS,
        DAY,
        0,
    ),
    Metric(
        40,
        "oura_recovery_high",
        "Oura high recovery",
        "s",
        "auren:oura_recovery_high",
        "daily",
        "sum",
        0,
        DAY_SECONDS,
        DAY,
        0,
    ),
    Metric(
        41, "oura_vascular_age", "Oura vascular age", "a", "auren:oura_vascular_age", "daily", "last", 1, 130, DAY, 0
    ),
    Metric(
        42,
        "whoop_recovery_score",
        "WHOOP recovery",
        "{score}",
        "auren:whoop_recovery_score",
        "interval",
        "last",
        0,
        100,
        DAY,
        0,
    ),
    Metric(
        43,
        "whoop_sleep_performance",
        "WHOOP sleep performance",
        "%",
        "auren:whoop_sleep_performance",
        "interval",
        "last",
        0,
        100,
        NIGHT,
        0,
    ),
)

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}
BY_NUMBER: dict[int, Metric] = {metric.number: metric for metric in METRICS}

# Values of `sleep_stage`.
AWAKE, LIGHT, DEEP, REM, IN_BED, ASLEEP = range(1, 7)
STAGE_LABELS: dict[int, str] = {
    AWAKE: "awake",
    LIGHT: "light",
    DEEP: "deep",
    REM: "REM",
    IN_BED: "in bed",
    ASLEEP: "asleep",
}
