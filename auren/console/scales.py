"""Steps of an axis that a person can read off."""

import math

from auren.biometrics.metrics import Metric

DURATIONS = (300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200)  # seconds


def step_of(metric: Metric, least: float) -> float:
    """The next of 1, 2, 5 times a power of ten from `least` on; of durations, parts of an hour or some hours."""
    if metric.unit == "s":
        return next((one for one in DURATIONS if one >= least), _decimal(least))
    return _decimal(least)


def _decimal(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= least * 0.999)
