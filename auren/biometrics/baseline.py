"""A patient's own usual range, of the last thirty days, and whether today is outside.

It is drawn as reference intervals are, two standard deviations around the mean (19 days in 20 of a normal
distribution), and never narrower than what devices differ by among themselves: a tenth of the days called unusual
would be called nothing by whoever reads it.

One statement for any number of patients and metrics, so that a list of patients can say who is unlike themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import fmean, stdev
from typing import Any
from zoneinfo import ZoneInfo

from auren.biometrics import reads
from auren.biometrics.metrics import BY_NAME, Metric

DAYS = 30
LEAST_DAYS = 21  # seven in ten: of fewer days nothing is said
DEVIATIONS = 2
# What is measured alike every day, and means something against itself. Scores are the vendors' own comparison already.
METRICS = tuple(
    BY_NAME[name] for name in ("resting_heart_rate", "hrv_rmssd", "spo2", "respiratory_rate", "skin_temperature")
)


@dataclass(frozen=True, slots=True)
class Baseline:
    """From `low` to `high`, in the metric's unit, and how many `days` had a value."""

    low: float
    high: float
    days: int


@dataclass(frozen=True, slots=True)
class Daily:
    """One metric of one patient by local day, oldest first: of several devices the preferred one's mean of the day."""

    metric: Metric
    days: tuple[date, ...]
    values: tuple[float, ...]

    @property
    def baseline(self) -> Baseline | None:
        return baseline_of(self.metric, self.values[-DAYS:])

    @property
    def before_last(self) -> Baseline | None:
        """The usual range without the newest day, which is to be compared with it."""
        return baseline_of(self.metric, self.values[:-1][-DAYS:])

    @property
    def last_is_outside(self) -> bool:
        usual = self.before_last
        return usual is not None and not usual.low <= self.values[-1] <= usual.high


def baseline_of(metric: Metric, values: Sequence[float]) -> Baseline | None:
    """None for fewer than `LEAST_DAYS` values."""
    if len(values) < LEAST_DAYS:
        return None
    mean, reach = fmean(values), max(DEVIATIONS * stdev(values), metric.tolerance)
    return Baseline(max(mean - reach, metric.low), min(mean + reach, metric.high), len(values))


def daily(
    zones: Mapping[int, ZoneInfo], until: datetime, metrics: Sequence[Metric] = METRICS
) -> dict[tuple[int, int], Daily]:
    """By patient and metric number, the last `DAYS` and one more days before `until`. `zones` names the patients."""
    parameters: dict[str, Any] = {
        "patients": list(zones),
        "zones": [zone.key for zone in zones.values()],
        "metrics": [metric.number for metric in metrics],
        "orders": [",".join(metric.order) for metric in metrics],
        "since": until - timedelta(days=DAYS + 1),
        "until": until,
    }
    rows = reads.consistent(list(zones), lambda: reads.fetch(_DAILY, parameters))
    numbered = {metric.number: metric for metric in metrics}
    return {(patient, metric): Daily(numbered[metric], tuple(d), tuple(v)) for patient, metric, d, v in rows}


# A value over the night counts for the day it ends on. LATERAL keeps it at one walk of the key a patient and metric.
_DAILY = """
    SELECT patient.id, metric.number, array_agg(day ORDER BY day), array_agg(value ORDER BY day)
    FROM unnest(%(patients)s::bigint[], %(zones)s::text[]) AS patient (id, zone)
    CROSS JOIN unnest(%(metrics)s::smallint[], %(orders)s::text[]) AS metric (number, kinds)
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (day) day, value
        FROM (
            SELECT (greatest(s.start_at, s.end_at - interval '1 microsecond') AT TIME ZONE patient.zone)::date AS day,
                   s.source_id, avg(s.value) AS value
            FROM biometrics_sample s
            WHERE s.patient_id = patient.id AND s.metric = metric.number
              AND s.start_at >= %(since)s AND s.start_at < %(until)s
            GROUP BY 1, 2
        ) said
        JOIN biometrics_source source ON source.id = said.source_id
        ORDER BY day, coalesce(array_position(string_to_array(metric.kinds, ','), source.kind::text), 99), source.id
    ) daily
    GROUP BY 1, 2
"""
