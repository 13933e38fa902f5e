from typing import Any

from django import template

from auren.ages import ago
from auren.biometrics.metrics import Metric
from auren.console import lanes

register = template.Library()
register.filter("ago", ago)


@register.filter
def amount(value: float, metric: Metric) -> str:
    return lanes.amount(metric, value)


@register.filter
def entry(mapping: dict[str, Any], key: str) -> Any:
    """`mapping[key]`, None where it has none."""
    return mapping.get(key)
