"""What the timeline page draws, and a timeline as the JSON its scripts read.

`GET /patients/<pk>/timeline.json` answers an object with `from` and `to` (Unix seconds; what was asked for, widened to
whole minutes or quarters of an hour), `last_at` (where nothing is drawn: when the newest sample before or after ends,
which a running day's does at midnight), `zone`, `sources` ({id: {"name", "kind"}}), `lanes` and
`conflicts`. A lane has `key`, `title`, `unit` and `series`; a
series `metric`, `label`, `shape` (`line`, `dots`, `bars`, `stages`), `lines`, `usual` (the patient's own range of the
30 days before `to`: `low`, `high`, `days`; or null) and, with `sources=all`, `every_source`.
Its `gaps` say where no line has data, from `start` to `end`, with `why` (auren/console/gaps.py) and that as `text`;
they are null for what is measured now and then.
A line has `label` ("Heart rate · Oura ring"), `sources` and the columns `start`, `end`, `value`, `low`, `high`; a
null `value` is a gap; `low` and `high` are null as a whole where each value is one sample. A conflict may stand for a
`count` of neighbouring ones; its `values` say the lowest and the highest each device said in them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from auren.biometrics import baseline
from auren.biometrics.baseline import Baseline, Daily
from auren.biometrics.metrics import BY_NAME, BY_NUMBER, Metric
from auren.biometrics.models import Conflict, Source
from auren.biometrics.timeline import Line, Series, Timeline, last_sample_ever
from auren.console import gaps
from auren.console.gaps import Gap

DECIMALS = 2
WHOLE = 100  # from here on decimals say nothing
NEAR = timedelta(minutes=15)  # conflicts no further apart than this read as one


@dataclass(frozen=True, slots=True)
class Lane:
    """One strip of the page: metrics that share a vertical axis."""

    key: str
    title: str
    unit: str
    metrics: tuple[Metric, ...]


def _lane(key: str, title: str, unit: str, *names: str) -> Lane:
    return Lane(key, title, unit, tuple(BY_NAME[name] for name in names))


LANES = (
    _lane("heart_rate", "Heart rate", "bpm", "heart_rate", "resting_heart_rate"),
    _lane("hrv", "Heart rate variability", "ms", "hrv_rmssd", "hrv_sdnn"),
    _lane("spo2", "Oxygen saturation", "%", "spo2"),
    _lane("respiration", "Respiration", "a minute", "respiratory_rate"),
    _lane("deviation", "Skin temperature against the usual", "°C", "skin_temperature_deviation"),
    _lane("temperature", "Temperature", "°C", "body_temperature", "skin_temperature"),
    _lane("sleep", "Sleep stages", "", "sleep_stage"),
    _lane("steps", "Steps", "a day", "steps"),
    _lane("energy", "Active energy", "kcal a day", "active_energy"),
    _lane("strain", "Strain", "0-21", "day_strain", "workout_strain"),
    _lane(
        "scores",
        "Scores",
        "0-100",
        "oura_readiness_score",
        "oura_sleep_score",
        "oura_activity_score",
        "whoop_recovery_score",
        "whoop_sleep_performance",
    ),
)
BY_KEY = {lane.key: lane for lane in LANES}
METRICS = tuple(metric for lane in LANES for metric in lane.metrics)
# The night's one conflict, on `sleep_duration`, is shown on the sleep lane.
LANE_OF = {metric.name: lane.key for lane in LANES for metric in lane.metrics} | {"sleep_duration": "sleep"}
RULES = {
    "person": "a person decided",
    "patient_order": "this patient's order of devices",
    "recency": "the newer revision, waiting for a person to decide",
}
UNITS = {"{steps}": "steps", "{score}": "", "s": "s", "Cel": "°C"}


def as_bytes(timeline: Timeline) -> bytes:
    """The lanes whose metrics `timeline` has, as JSON, with what else the page draws of the patient."""
    window = timeline.window
    there = {series.metric for series in timeline.series}
    shown = [lane for lane in LANES if there.issuperset(lane.metrics)]
    last_at = None if timeline.has_data else last_sample_ever(window.patient_id, METRICS)
    days = baseline.daily({window.patient_id: window.zone}, window.end_at)
    usual = {metric: daily.baseline for (_, metric), daily in days.items()}
    return msgspec.json.encode(as_json(timeline, last_at, usual, shown, gaps.of(timeline)))


def as_json(
    timeline: Timeline,
    last_at: datetime | None,
    usual: Mapping[int, Baseline | None],
    shown: Sequence[Lane],
    silent: Mapping[int, Sequence[Gap]],
) -> dict[str, Any]:
    """`usual` gives the patient's own range by metric number, `silent` the gaps; `timeline` has the metrics of the
    lanes `shown`.
    """
    series = {one.metric.number: one for one in timeline.series}
    sources = timeline.sources
    return {
        "from": timeline.window.start_at.timestamp(),
        "to": timeline.window.end_at.timestamp(),
        "zone": timeline.window.zone.key,
        "last_at": last_at.timestamp() if last_at else None,
        "sources": {number: {"name": source.name, "kind": source.kind} for number, source in sources.items()},
        "lanes": [_lane_json(lane, series, sources, usual, silent) for lane in shown],
        "conflicts": [_conflicts_json(alike, sources) for alike in neighbours(timeline.conflicts)],
        "more_conflicts": timeline.more_conflicts,
    }


def unit_of(metric: Metric) -> str:
    """The unit as people write it."""
    if metric.unit == "/min":
        return "bpm" if "heart" in metric.name else "a minute"
    return UNITS.get(metric.unit, metric.unit)


def amount(metric: Metric, value: float) -> str:
    """A value as people write it: "7 h 20 min", "10,971 steps", "52.5 bpm"."""
    if metric.unit == "s":
        hours, minutes = divmod(round(value / 60), 60)
        return f"{hours} h {minutes} min" if hours else f"{minutes} min"
    return f"{value:,.{0 if value >= WHOLE else 1}f} {unit_of(metric)}".replace(".0 ", " ").rstrip()


def _lane_json(
    lane: Lane,
    series: dict[int, Series],
    sources: dict[int, Source],
    usual: Mapping[int, Baseline | None],
    silent: Mapping[int, Sequence[Gap]],
) -> dict[str, Any]:
    drawn = [
        _series_json(series[m.number], sources, usual.get(m.number)) | {"gaps": silent.get(m.number)}
        for m in lane.metrics
    ]
    return {"key": lane.key, "title": lane.title, "unit": lane.unit, "series": drawn}


def _series_json(series: Series, sources: dict[int, Source], usual: Baseline | None) -> dict[str, Any]:
    every = series.every_source
    return {
        "metric": series.metric.name,
        "label": series.metric.label,
        "shape": series.shape,
        "usual": usual and {"low": round(usual.low, DECIMALS), "high": round(usual.high, DECIMALS), "days": usual.days},
        "lines": [_line_json(series.metric, line, sources) for line in series.lines],
        "every_source": None if every is None else [_line_json(series.metric, line, sources) for line in every],
    }


def unusual(daily: Daily) -> str:
    """The newest value against the patient's own range, as a list of patients says it."""
    usual, metric = daily.before_last, daily.metric
    assert usual is not None, "without a usual range nothing is unusual"
    value = f"{daily.values[-1]:.3g} {unit_of(metric)}"
    return f"{metric.label} {value} (usual {usual.low:.3g} to {usual.high:.3g})"


def _line_json(metric: Metric, line: Line, sources: dict[int, Source]) -> dict[str, Any]:
    single = line.low == line.value and line.high == line.value
    return {
        "label": f"{metric.label} · {_names(line.sources, sources)}",
        "sources": line.sources,
        "start": line.start,
        "end": line.end,
        "value": _rounded(line.value),
        "low": None if single else _rounded(line.low),
        "high": None if single else _rounded(line.high),
    }


def _rounded(column: Iterable[float | None]) -> list[float | None]:
    return [None if value is None else round(value, DECIMALS) for value in column]


def _names(numbers: Iterable[int], sources: dict[int, Source]) -> str:
    return " + ".join(_name(number, sources) for number in numbers)


def _name(number: int, sources: dict[int, Source]) -> str:
    return sources[number].name if number in sources else f"device {number}"


def neighbours(conflicts: Iterable[Conflict]) -> list[list[Conflict]]:
    """Conflicts, ordered by start, in groups that are near each other and differ in nothing but time and values."""
    groups: list[list[Conflict]] = []
    latest: dict[tuple[object, ...], list[Conflict]] = {}
    for conflict in conflicts:
        decided = (conflict.winner_id, conflict.rule, conflict.state, conflict.preference_id)
        kind = (conflict.metric, conflict.daily, frozenset(conflict.values), *decided)
        group = latest.get(kind)
        if group and conflict.start_at - group[-1].end_at <= NEAR:
            group.append(conflict)
        else:
            latest[kind] = [conflict]
            groups.append(latest[kind])
    return groups


def tolerance(conflict: Conflict) -> float:
    metric = BY_NUMBER[conflict.metric]
    return metric.day_tolerance if conflict.daily else metric.tolerance


def apart(conflict: Conflict) -> float:
    said = list(conflict.values.values())
    return float(max(said) - min(said)) if said else 0.0


def _conflicts_json(alike: list[Conflict], sources: dict[int, Source]) -> dict[str, Any]:
    conflict = alike[0]
    metric = BY_NUMBER[conflict.metric]
    return {
        "id": conflict.pk,
        "metric": metric.name,
        "lane": LANE_OF[metric.name],
        "label": metric.label,
        "unit": unit_of(metric),
        "start": conflict.start_at.timestamp(),
        "end": alike[-1].end_at.timestamp(),
        "count": len(alike),
        "values": [_values_json(key, alike, sources) for key in conflict.values],
        "apart": max(apart(one) for one in alike),
        "tolerance": tolerance(conflict),
        "daily": conflict.daily,
        "winner": _name(conflict.winner_id, sources),
        "why": _why(conflict, metric, sources),
        "state": conflict.state,
    }


def _values_json(key: str, alike: list[Conflict], sources: dict[int, Source]) -> dict[str, Any]:
    said = [conflict.values[key] for conflict in alike]
    return {"source": _name(int(key), sources), "low": min(said), "high": max(said)}


def within(label: str) -> str:
    """A label as it stands within a sentence: "heart rate", but "HRV (RMSSD)"."""
    first = label.partition(" ")[0]
    return label if first[1:].lower() != first[1:] else label[:1].lower() + label[1:]


def _why(conflict: Conflict, metric: Metric, sources: dict[int, Source]) -> str:
    if conflict.rule == "metric_order" and conflict.winner_id in sources:
        return f"for {within(metric.label)} the order is {', '.join(metric.order)}"
    if conflict.rule == "person" and conflict.resolved_by:
        return f"{conflict.resolved_by} decided: {conflict.note}"
    if conflict.rule == "patient_order" and conflict.resolved_by:
        return f"{RULES[conflict.rule]}, from {conflict.resolved_by}: {conflict.note}"
    return RULES.get(conflict.rule, conflict.rule)
