"""Units as HealthKit and its uploaders spell them, and the way from each into the catalogue's unit.

Spellings: Apple's HKUnit strings, the Open Wearables SDK's labels (`Internal/Types.swift`), Health Auto Export's
and UCUM. Factors: DESIGN section 9 for glucose, pounds and energy; the rest by definition.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from auren.biometrics.metrics import BY_NAME, METRICS, Metric
from devices.vendors.documents import Unusable
from devices.vendors.times import quoted

MAX_SPELLING = 64  # characters: no unit is longer, and longer ones are not worth remembering
DIGITS = 9  # decimals kept after a conversion, so that 0.57 becomes 57 and not 56.99999999999999


class Conversion(NamedTuple):
    """A value times `factor`, divided by `divisor`, plus `offset`, is in the catalogue's unit."""

    factor: float = 1.0
    divisor: float = 1.0
    offset: float = 0.0

    def of(self, value: float) -> float:
        return round(value * self.factor / self.divisor + self.offset, DIGITS)


SAME = Conversion()
THOUSANDFOLD = Conversion(1000)
THOUSANDTH = Conversion(divisor=1000)
MINUTES = Conversion(60)
HOURS = Conversion(3600)
FAHRENHEIT = Conversion(5, 9, -160 / 9)
GLUCOSE_MOLES = Conversion(18.0156)
POUNDS = Conversion(0.45359237)
KILOPASCALS = Conversion(7.50061683)

# By catalogue unit. A spelling that means two things by its case (`Cal`, `cal`) is only taken as written.
SPELLINGS: Mapping[str, Mapping[str, Conversion]] = {
    "/min": {
        **dict.fromkeys(("count/min", "bpm", "beats/min", "beat/min", "breaths/min", "brpm", "/min", "1/min"), SAME),
        **dict.fromkeys(("beats per minute", "breaths per minute"), SAME),
        "count/s": MINUTES,
    },
    "ms": {
        **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), SAME),
        **dict.fromkeys(("s", "sec"), THOUSANDFOLD),
    },
    "%": {**dict.fromkeys(("%", "percent", "pct"), SAME), "fraction": Conversion(100)},
    "Cel": {
        **dict.fromkeys(("degC", "°C", "℃", "C", "Cel", "celsius"), SAME),
        **dict.fromkeys(("degF", "°F", "℉", "F", "[degF]", "fahrenheit"), FAHRENHEIT),
        **dict.fromkeys(("K", "kelvin"), Conversion(offset=-273.15)),
    },
    "s": {
        **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), SAME),
        **dict.fromkeys(("min", "mins", "minute", "minutes"), MINUTES),
        **dict.fromkeys(("hr", "h", "hrs", "hour", "hours"), HOURS),
        **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), THOUSANDTH),
        **dict.fromkeys(("d", "day", "days"), Conversion(86_400)),
    },
    "{steps}": dict.fromkeys(("count", "steps", "step", "{steps}"), SAME),
    "{flights}": dict.fromkeys(("count", "flights", "flight", "floors", "{flights}"), SAME),
    "m": {
        **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), SAME),
        **dict.fromkeys(("km", "kilometer", "kilometers", "kilometre", "kilometres"), THOUSANDFOLD),
        **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), Conversion(divisor=100)),
        "mm": THOUSANDTH,
        **dict.fromkeys(("mi", "mile", "miles", "[mi_i]"), Conversion(1609.344)),
        **dict.fromkeys(("ft", "foot", "feet", "[ft_i]"), Conversion(0.3048)),
        **dict.fromkeys(("yd", "yard", "yards", "[yd_i]"), Conversion(0.9144)),
        **dict.fromkeys(("in", "inch", "inches", "[in_i]"), Conversion(0.0254)),
    },
    "kcal": {
        **dict.fromkeys(("kcal", "Cal", "kilocalorie", "kilocalories"), SAME),
        "cal": THOUSANDTH,
        **dict.fromkeys(("kJ", "kilojoule", "kilojoules"), Conversion(divisor=4.184)),
        **dict.fromkeys(("J", "joule", "joules"), Conversion(divisor=4184)),
    },
    "mL/kg/min": dict.fromkeys(("mL/kg*min", "mL/min*kg", "mL/kg/min", "mL/min/kg"), SAME),
    "kg": {
        **dict.fromkeys(("kg", "kilogram", "kilograms"), SAME),
        **dict.fromkeys(("g", "gram", "grams"), THOUSANDTH),
        **dict.fromkeys(("lb", "lbs", "pound", "pounds", "[lb_av]"), POUNDS),
        **dict.fromkeys(("st", "stone", "[stone_av]"), Conversion(14 * 0.45359237)),
        **dict.fromkeys(("oz", "ounce", "ounces", "[oz_av]"), Conversion(0.45359237, 16)),
    },
    "mg/dL": {"mg/dL": SAME, "mmol/L": GLUCOSE_MOLES},
    "mm[Hg]": {**dict.fromkeys(("mmHg", "mm[Hg]"), SAME), "kPa": KILOPASCALS},
    "{score}": dict.fromkeys(("{score}", "score", "count", "%"), SAME),
    "{stage}": dict.fromkeys(("{stage}", "stage"), SAME),
    "a": dict.fromkeys(("a", "yr", "year", "years"), SAME),
}
# A difference of temperatures has no zero to move.
DIFFERENCES: Mapping[str, Conversion] = {
    spelling: conversion._replace(offset=0.0) for spelling, conversion in SPELLINGS["Cel"].items()
}


def spellings_for(metric: Metric) -> Mapping[str, Conversion]:
    return DIFFERENCES if metric.name == "skin_temperature_deviation" else SPELLINGS[metric.unit]


def folded(text: str) -> str:
    """A unit without what carries no meaning: case, spaces, brackets, the sort of dot, a substance in `<…>`."""
    before, _, after = text.partition("<")  # HKUnit writes moles as mmol<180.1558800000541>/L
    text = before + after.rpartition(">")[2]
    for dot in "·⋅∙•":
        text = text.replace(dot, "*")
    return "".join(char for char in text.casefold() if char not in " \u00a0()")


@lru_cache(maxsize=len(METRICS))
def folded_spellings(metric: str) -> Mapping[str, Conversion]:
    """The spellings of a metric's units by their folded form, without those whose case matters."""
    meanings: dict[str, set[Conversion]] = {}
    for spelling, conversion in spellings_for(BY_NAME[metric]).items():
        meanings.setdefault(folded(spelling), set()).add(conversion)
    return {spelling: found.pop() for spelling, found in meanings.items() if len(found) == 1}


@lru_cache(maxsize=1024)
def find(metric: str, unit: str) -> Conversion | None:
    return spellings_for(BY_NAME[metric]).get(unit) or folded_spellings(metric).get(folded(unit))


def conversion_of(metric: Metric, unit: object) -> Conversion:
    """The way from `unit` into the unit of `metric`. Raises Unusable where there is none."""
    found = find(metric.name, unit) if isinstance(unit, str) and len(unit) <= MAX_SPELLING else None
    if found is None:
        raise Unusable(f"the unit {quoted(unit)} does not fit {metric.name}, which is kept in {metric.unit}")
    return found
