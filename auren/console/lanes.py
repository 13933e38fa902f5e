"""What the timeline page draws, and a timeline as the JSON its scripts read.

`GET /patients/<pk>/timeline.json` answers an object with `from` and `to` (Unix seconds), `last_at` (where nothing is
drawn: when the newest sample before or after ends), `zone`, `sources` ({id: {"name", "kind"}}), `lanes` and
`conflicts`. A lane has `key`, `title`, `unit` and `series`; a
series `metric`, `label`, `shape` (`line`, `dots`, `bars`, `stages`), `lines` and, with `sources=all`, `every_source`.
A line has `label` ("Heart rate · Oura ring"), `sources` and the columns `start`, `end`, `value`, `low`, `high`; a
null `value` is a gap; `low` and `high` are null as a whole where each value is one sample. A conflict may stand for a
`count` of neighbouring ones; its `values` say the lowest and the highest each device said in them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from auren.biometrics.metrics import BY_NAME, BY_NUMBER, Metric
from auren.biometrics.models import Conflict, Source
from auren.biometrics.timeline import Line, Series, Timeline

DECIMALS = 2
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
    _lane("heart_rate", "Heart rate", "bpm", "heart_rate"),
    _lane("hrv", "Heart rate variability", "ms", "hrv_rmssd", "hrv_sdnn"),
    _lane("sleep", "Sleep stages", "", "sleep_stage"),
    _lane("steps", "Steps", "a day", "steps"),
    _lane(
        "scores",
        "Scores",
        "0-100",
        "oura_readiness_score",
        "oura_sleep_score",
        "oura_activity_score",
        "whoop_recovery_score",
    ),
)
METRICS = tuple(metric for lane in LANES for metric in lane.metrics)
# The night's one conflict, on `sleep_duration`, is shown on the sleep lane.
LANE_OF = {metric.name: lane.key for lane in LANES for metric in lane.metrics} | {"sleep_duration": "sleep"}
RULES = {
    "person": "a person decided",
    "patient_order": "this patient's order of devices",
    "recency": "the newer revision, waiting for a person to decide",
}
UNITS = {"/min": "bpm", "{steps}": "steps", "{score}": "", "s": "s"}


def as_json(timeline: Timeline, last_at: datetime | None) -> dict[str, Any]:
    series = {one.metric.number: one for one in timeline.series}
    sources = timeline.sources
    return {
        "from": timeline.window.start_at.timestamp(),
        "to": timeline.window.end_at.timestamp(),
        "zone": timeline.window.zone.key,
        "last_at": last_at.timestamp() if last_at else None,
        "sources": {number: {"name": source.name, "kind": source.kind} for number, source in sources.items()},
        "lanes": [_lane_json(lane, series, sources) for lane in LANES],
        "conflicts": [_conflicts_json(alike, sources) for alike in _neighbours(timeline.conflicts)],
        "more_conflicts": timeline.more_conflicts,
    }


def _lane_json(lane: Lane, series: dict[int, Series], sources: dict[int, Source]) -> dict[str, Any]:
    drawn = [_series_json(series[metric.number], sources) for metric in lane.metrics]
    return {"key": lane.key, "title": lane.title, "unit": lane.unit, "series": drawn}


def _series_json(series: Series, sources: dict[int, Source]) -> dict[str, Any]:
    every = series.every_source
    return {
        "metric": series.metric.name,
        "label": series.metric.label,
        "shape": series.shape,
        "lines": [_line_json(series.metric, line, sources) for line in series.lines],
        "every_source": None if every is None else [_line_json(series.metric, line, sources) for line in every],
    }


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


def _neighbours(conflicts: Iterable[Conflict]) -> list[list[Conflict]]:
    """Conflicts, ordered by start, in groups that are near each other and differ in nothing but time and values."""
    groups: list[list[Conflict]] = []
    latest: dict[tuple[object, ...], list[Conflict]] = {}
    for conflict in conflicts:
        decided = (conflict.winner_id, conflict.rule, conflict.state, conflict.preference_id)
        kind = (conflict.metric, frozenset(conflict.values), *decided)
        group = latest.get(kind)
        if group and conflict.start_at - group[-1].end_at <= NEAR:
            group.append(conflict)
        else:
            latest[kind] = [conflict]
            groups.append(latest[kind])
    return groups


def _conflicts_json(alike: list[Conflict], sources: dict[int, Source]) -> dict[str, Any]:
    conflict = alike[0]
    metric = BY_NUMBER[conflict.metric]
    return {
        "metric": metric.name,
        "lane": LANE_OF[metric.name],
        "label": metric.label,
        "unit": UNITS.get(metric.unit, metric.unit),
        "start": conflict.start_at.timestamp(),
        "end": alike[-1].end_at.timestamp(),
        "count": len(alike),
        "values": [_values_json(key, alike, sources) for key in conflict.values],
        "winner": _name(conflict.winner_id, sources),
        "why": _why(conflict, metric, sources),
        "state": conflict.state,
    }


def _values_json(key: str, alike: list[Conflict], sources: dict[int, Source]) -> dict[str, Any]:
    said = [conflict.values[key] for conflict in alike]
    return {"source": _name(int(key), sources), "low": min(said), "high": max(said)}


def _within(label: str) -> str:
    """A label as it stands within a sentence: "heart rate", but "HRV (RMSSD)"."""
    first = label.partition(" ")[0]
    return label if first[1:].lower() != first[1:] else label[:1].lower() + label[1:]


def _why(conflict: Conflict, metric: Metric, sources: dict[int, Source]) -> str:
    if conflict.rule == "metric_order" and conflict.winner_id in sources:
        return f"for {_within(metric.label)} the order is {', '.join(metric.order)}"
    if conflict.rule == "person" and conflict.resolved_by:
        return f"{conflict.resolved_by} decided: {conflict.note}"
    return RULES.get(conflict.rule, conflict.rule)
