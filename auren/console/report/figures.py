"""What a report says of one metric: how many of the days asked for it has, and no average where they are too few."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from statistics import fmean

from auren.biometrics.baseline import Baseline
from auren.biometrics.metrics import BY_NAME, Metric

ENOUGH_PERCENT = 70
MINUS, PLUS_MINUS = "\u2212", "\u00b1"


@dataclass(frozen=True, slots=True)
class Group:
    """Metrics that stand together. Of the `rare` ones only those with data are shown."""

    title: str
    metrics: tuple[Metric, ...]
    rare: tuple[Metric, ...] = ()


def _group(title: str, *names: str, rare: tuple[str, ...] = ()) -> Group:
    return Group(title, tuple(BY_NAME[name] for name in names), tuple(BY_NAME[name] for name in rare))


NOW_AND_THEN = _group(
    "Measured now and then",
    rare=("body_mass", "blood_pressure_systolic", "blood_pressure_diastolic", "blood_glucose"),
)
GROUPS = (
    _group("Heart", "resting_heart_rate", "hrv_rmssd", rare=("hrv_sdnn",)),
    _group("Breathing", "respiratory_rate", "spo2"),
    _group("Temperature", "skin_temperature_deviation", rare=("skin_temperature", "body_temperature")),
    _group(
        "Sleep",
        *("sleep_duration", "sleep_efficiency", "sleep_deep", "sleep_rem", "sleep_light", "sleep_awake"),
        rare=("sleep_in_bed", "sleep_latency"),
    ),
    _group("Activity", "steps", rare=("active_energy",)),
    _group(
        "Scores of the vendors, 0 to 100",
        rare=(
            "oura_readiness_score",
            "oura_sleep_score",
            "oura_activity_score",
            "whoop_recovery_score",
            "whoop_sleep_performance",
        ),
    ),
    NOW_AND_THEN,
)
METRICS = tuple(metric for group in GROUPS for metric in group.metrics + group.rare)
UNITS = {"/min": "/min", "Cel": "°C", "%": "%", "mm[Hg]": "mmHg", "{steps}": "", "{score}": ""}
DECIMALS = {"skin_temperature_deviation": 2}  # a tenth of a degree is much of it
ALWAYS_DECIMALS = frozenset({"respiratory_rate", "spo2", "body_temperature", "skin_temperature", *DECIMALS})
WHOLE_FROM = 100  # from here on decimals say nothing


@dataclass(frozen=True, slots=True)
class Figure:
    """`values` of the `asked` days by day, `before` of as many days before; `usual` is the patient's own range."""

    metric: Metric
    asked: int
    values: Mapping[date, float]
    before: Mapping[date, float]
    usual: Baseline | None

    @property
    def enough(self) -> bool:
        return suffices(len(self.values), self.asked)

    @property
    def mean(self) -> float | None:
        return fmean(self.values.values()) if self.enough else None

    @property
    def change(self) -> float | None:
        """From the period before to this one; None where either has too few days."""
        if self.mean is None or not suffices(len(self.before), self.asked):
            return None
        return self.mean - fmean(self.before.values())

    @property
    def sufficiency(self) -> str:
        return f"{len(self.values)} of {self.asked}"

    @property
    def of_days(self) -> str:
        return f"{self.sufficiency} day{'' if self.asked == 1 else 's'}"

    @property
    def average(self) -> str:
        if not self.values:
            return "no data"
        if self.mean is None:
            return f"not enough data: {self.of_days}"
        return said(self.metric, self.mean)

    @property
    def extremes(self) -> str:
        """The lowest and the highest day."""
        if not self.values:
            return ""
        low, high = min(self.values.values()), max(self.values.values())
        return between(self.metric, low, high)

    @property
    def band(self) -> str:
        return between(self.metric, self.usual.low, self.usual.high) if self.usual else ""

    @property
    def changed(self) -> str:
        if self.change is not None:
            return signed(self.metric, self.change)
        return f"too few: {len(self.before)} of {self.asked}" if self.mean is not None else ""

    @property
    def latest(self) -> str:
        """The newest value of what is not measured every day, where there is no average to say."""
        if self.enough or not self.values or self.metric not in NOW_AND_THEN.rare:
            return ""
        day = max(self.values)
        return f"latest {said(self.metric, self.values[day])}, {day.day} {day:%b}"


def suffices(days: int, asked: int) -> bool:
    return days > 0 and 100 * days >= ENOUGH_PERCENT * asked


def unit_of(metric: Metric) -> str:
    """As a report writes it; durations are hours and minutes."""
    if metric.unit == "/min":
        return "bpm" if "heart" in metric.name else "/min"
    return "h" if metric.unit == "s" else UNITS.get(metric.unit, metric.unit)


def bare(metric: Metric, value: float) -> str:
    """The number without its unit: `52.5`, `10,971`, `7:20`."""
    text = _unsigned(metric, abs(value))
    return f"{MINUS}{text}" if value < 0 and _is_something(text) else text


def said(metric: Metric, value: float) -> str:
    return f"{bare(metric, value)} {unit_of(metric)}".rstrip()


def between(metric: Metric, low: float, high: float) -> str:
    first, last = bare(metric, low), said(metric, high)
    return last if bare(metric, high) == first else f"{first} to {last}"


def signed(metric: Metric, change: float) -> str:
    text = _unsigned(metric, abs(change))
    sign = (MINUS if change < 0 else "+") if _is_something(text) else PLUS_MINUS
    return f"{sign}{text} {unit_of(metric)}".rstrip()


def _unsigned(metric: Metric, value: float) -> str:
    if metric.unit == "s":
        hours, minutes = divmod(round(value / 60), 60)
        return f"{hours}:{minutes:02}"
    text = f"{value:,.{0 if value >= WHOLE_FROM else DECIMALS.get(metric.name, 1)}f}"
    return text if metric.name in ALWAYS_DECIMALS else text.removesuffix(".0")


def _is_something(text: str) -> bool:
    return any(digit in text for digit in "123456789")
