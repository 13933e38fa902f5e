"""Where devices disagreed in the range: how often by metric, how it was settled, and which ones to look at."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from auren.biometrics import reads
from auren.biometrics.metrics import BY_NUMBER, METRICS, Metric
from auren.biometrics.models import Conflict
from auren.console.report.figures import said

NOTABLE, NOTABLE_OF_METRIC = 12, 3
RULES = {
    "person": "a person decided",
    "patient_order": "by this patient's order of devices",
    "metric_order": "by the metric's order of devices",
    "recency": "open: the newer revision is drawn until a person decides",
}

_SETTLED = """
    SELECT metric, rule, state, winner_id, count(*) FROM biometrics_conflict
    WHERE patient_id = %(patient)s AND start_at >= %(start)s AND start_at < %(end)s
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 5 DESC, 2, 4
    """
_INVOLVED = """
    SELECT metric, array_agg(DISTINCT said.key::bigint ORDER BY said.key::bigint)
    FROM biometrics_conflict, jsonb_object_keys("values") AS said (key)
    WHERE patient_id = %(patient)s AND start_at >= %(start)s AND start_at < %(end)s
    GROUP BY 1
    """
# Open ones and a person's first, then by how far apart the devices were, in tolerances of the metric.
_NOTABLE = """
    WITH apart AS (
        SELECT c.id, c.metric, c.state = 'settled' AS settled, c.start_at,
               (SELECT max(value::float8) - min(value::float8) FROM jsonb_each_text(c."values"))
                   / greatest(known.tolerance, 1e-9) AS distance
        FROM biometrics_conflict c
        JOIN unnest(%(metrics)s::smallint[], %(tolerances)s::float8[]) AS known (metric, tolerance) USING (metric)
        WHERE c.patient_id = %(patient)s AND c.start_at >= %(start)s AND c.start_at < %(end)s
    ), placed AS (
        SELECT *, row_number() OVER (PARTITION BY metric ORDER BY settled, distance DESC, start_at) AS place FROM apart
    )
    SELECT id FROM placed WHERE place <= %(of_metric)s ORDER BY settled, distance DESC, start_at LIMIT %(most)s
    """


@dataclass(frozen=True, slots=True)
class Tally:
    """The conflicts of one metric, by how they were settled."""

    metric: Metric
    count: int
    devices: str
    settled: list[str]


@dataclass(frozen=True, slots=True)
class Notable:
    start_at: datetime
    end_at: datetime
    metric: Metric
    said: str
    drawn: str
    why: str


def tallies(asked: dict[str, Any], names: dict[int, str]) -> list[Tally]:
    """`asked` has `patient`, `start` and `end`; `names` are devices' by their number."""
    settled: dict[int, list[tuple[Any, ...]]] = {}
    for metric, *row in reads.fetch(_SETTLED, asked):
        settled.setdefault(metric, []).append(tuple(row))
    involved = dict(reads.fetch(_INVOLVED, asked))
    return [
        Tally(
            BY_NUMBER[metric],
            sum(count for *_, count in rows),
            ", ".join(_name(names, device) for device in involved.get(metric, [])),
            [f"{count:,} {_how(rule, state)}: {_name(names, winner)}" for rule, state, winner, count in rows],
        )
        for metric, rows in settled.items()
        if metric in BY_NUMBER
    ]


def notable(asked: dict[str, Any], names: dict[int, str]) -> list[Notable]:
    tolerances = [float(metric.tolerance) for metric in METRICS]
    known = {"metrics": [metric.number for metric in METRICS], "tolerances": tolerances}
    bounds = {"of_metric": NOTABLE_OF_METRIC, "most": NOTABLE}
    numbers = [number for (number,) in reads.fetch(_NOTABLE, asked | known | bounds)]
    found = Conflict.objects.in_bulk(numbers)
    chosen = sorted((found[number] for number in numbers), key=lambda one: (one.start_at, one.metric, one.daily))
    return [_notable(conflict, names) for conflict in chosen]


def _notable(conflict: Conflict, names: dict[int, str]) -> Notable:
    metric = BY_NUMBER[conflict.metric]
    values = (f"{_name(names, int(device))} {said(metric, value)}" for device, value in sorted(conflict.values.items()))
    note = f" ({conflict.resolved_by}: {conflict.note})" if conflict.rule == "person" else ""
    why = _how(conflict.rule, conflict.state) + note
    return Notable(conflict.start_at, conflict.end_at, metric, ", ".join(values), _name(names, conflict.winner_id), why)


def _how(rule: str, state: str) -> str:
    return "open, waits for a person" if state == "open" else RULES.get(rule, rule)


def _name(names: dict[int, str], number: int) -> str:
    return names.get(number, f"device {number}")
