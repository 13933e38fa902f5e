"""Conflicts: where two sources speak about one metric of one patient in one comparison bucket and differ too much.

Settling looks at the buckets a batch has touched and nowhere else, and it looks at what is stored, not at what
arrived: so the result is the same whatever the order or repetition of arrivals. One statement finds and writes
the conflicts of metrics compared over fixed buckets, one those compared over overlapping nights, and one those of a
vendor's total of a day with what the quarters of an hour of other sources add up to.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
import psycopg

from auren.biometrics.metrics import BY_NAME, DAY, METRICS, NIGHT, Metric

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class Change(msgspec.Struct, frozen=True):
    """A conflict that is new, or not what it was, or gone (`winner_id` None). `values` maps source ids to values."""

    patient_id: int
    metric: int
    start_at: datetime
    end_at: datetime
    values: dict[str, float]
    winner_id: int | None
    rule: str
    state: str


# A night is one conflict, on its duration: the stages and totals follow its winner. Scores have one vendor each.
NIGHT_FAMILY = frozenset(m.number for m in METRICS if m.name.startswith("sleep_")) - {BY_NAME["sleep_duration"].number}
ALONE = frozenset(m.number for m in METRICS if m.name.startswith(("oura_", "whoop_")))
COMPARED = [m for m in METRICS if m.number not in NIGHT_FAMILY | ALONE]

# Kinds of sources in the metric's order; an unknown kind comes last. What one metric's order does not tell apart is
# decided by the newer revision and then the lower source id, and stays open for a person.
#
# PostgreSQL takes every one of these tables of thousands for a few rows, and a young table of samples has no statistics
# at all. So no two of them are joined, where it might compare each with each, and samples are looked up bucket by
# bucket (LATERAL), which leaves nothing but the index.
RULES = """
rule AS (
    SELECT * FROM unnest(%(metrics)s::smallint[], %(seconds)s::integer[], %(sums)s::boolean[],
                         %(tolerances)s::double precision[], %(orders)s::text[])
        AS r (metric, seconds, sums, tolerance, kinds)
)
"""
PICK = """
spoken AS (
    SELECT v.patient_id, v.metric, v.start_at, v.end_at, v.source_id, v.value, v.revised_at, r.tolerance,
           coalesce(array_position(string_to_array(r.kinds, ','), src.kind::text), 99) AS place
    FROM value v
    JOIN rule r USING (metric)
    JOIN biometrics_source src ON src.id = v.source_id
), found AS (
    SELECT patient_id, metric, start_at, end_at,
           jsonb_object_agg(source_id, value) AS values,
           (array_agg(source_id ORDER BY place, revised_at DESC, source_id))[1] AS winner_id,
           (array_agg(place ORDER BY place))[1] = (array_agg(place ORDER BY place))[2] AS tied
    FROM spoken
    GROUP BY patient_id, metric, start_at, end_at, tolerance
    HAVING count(*) > 1 AND max(value) - min(value) > tolerance
), cleared AS (
    DELETE FROM biometrics_conflict c
    USING swept b
    WHERE c.patient_id = b.patient_id AND c.metric = b.metric AND c.daily = %(daily)s
      AND c.start_at < b.end_at AND c.end_at > b.start_at AND c.start_at > b.start_at - interval '3 days'
      AND c.state <> 'overridden'
      AND NOT EXISTS (
        SELECT FROM found f
        WHERE f.patient_id = c.patient_id AND f.metric = c.metric AND f.start_at = c.start_at
      )
    RETURNING c.patient_id, c.metric, c.start_at, c.end_at, c.values
), written AS (
    INSERT INTO biometrics_conflict AS c (patient_id, metric, start_at, end_at, daily, values, winner_id, rule, state)
    SELECT patient_id, metric, start_at, end_at, %(daily)s, values, winner_id,
           CASE WHEN tied THEN 'recency' ELSE 'metric_order' END, CASE WHEN tied THEN 'open' ELSE 'settled' END
    FROM found
    ORDER BY patient_id, metric, start_at
    ON CONFLICT (patient_id, metric, start_at, daily) DO UPDATE
    SET end_at = excluded.end_at, values = excluded.values, updated_at = now(),
        winner_id = CASE WHEN c.state = 'overridden' THEN c.winner_id ELSE excluded.winner_id END,
        rule = CASE WHEN c.state = 'overridden' THEN c.rule ELSE excluded.rule END,
        state = CASE WHEN c.state = 'overridden' THEN c.state ELSE excluded.state END
    WHERE (c.values, c.end_at, c.winner_id) IS DISTINCT FROM (excluded.values, excluded.end_at, excluded.winner_id)
    RETURNING patient_id, metric, start_at, end_at, values, winner_id, rule, state
)
SELECT patient_id, metric, start_at, end_at, values, winner_id, rule, state FROM written
UNION ALL
SELECT patient_id, metric, start_at, end_at, values, NULL, 'agreed', 'gone' FROM cleared
"""
# Seconds 0 is the patient's local day. Whole-day totals do not take part in quarters of an hour: what is longer
# than an hour says nothing about one of them.
FIXED = f"""
WITH {RULES}, zone AS (
    SELECT * FROM unnest(%(patients)s::bigint[], %(zones)s::text[]) AS z (patient_id, name)
), bucket AS (
    SELECT DISTINCT t.patient_id, t.metric, b.start_at, b.end_at
    FROM touched t
    JOIN rule r USING (metric)
    JOIN zone z USING (patient_id)
    CROSS JOIN LATERAL (
        SELECT CASE WHEN r.seconds > 0 THEN date_bin(make_interval(secs => r.seconds), t.start_at, 'epoch')
                    ELSE date_trunc('day', t.start_at, z.name) END AS start_at,
               CASE WHEN r.seconds > 0 THEN date_bin(make_interval(secs => r.seconds), t.start_at, 'epoch')
                                            + make_interval(secs => r.seconds)
                    ELSE date_trunc('day', date_trunc('day', t.start_at, z.name) + interval '30 hours', z.name)
                    END AS end_at
    ) AS b
), value AS (
    SELECT b.patient_id, b.metric, b.start_at, b.end_at, v.source_id, v.revised_at, v.value
    FROM bucket b
    JOIN rule r USING (metric)
    CROSS JOIN LATERAL (
        SELECT s.source_id, max(s.revised_at) AS revised_at,
               CASE WHEN r.sums THEN sum(s.value) ELSE avg(s.value) END AS value
        FROM biometrics_sample s
        WHERE s.patient_id = b.patient_id AND s.metric = b.metric
          AND s.start_at >= b.start_at AND s.start_at < b.end_at
          AND (NOT (r.sums AND r.seconds > 0) OR s.end_at <= s.start_at + interval '1 hour')
        GROUP BY s.source_id
    ) AS v
), swept AS (
    SELECT * FROM bucket
), {PICK}
"""
# What the quarters add up to is drawn from whichever source comes first in each of them, so that a phone fills the
# hours the watch was off; the sum goes by the name of the first of those sources.
DAILY = f"""
WITH {RULES}, zone AS (
    SELECT * FROM unnest(%(patients)s::bigint[], %(zones)s::text[]) AS z (patient_id, name)
), bucket AS (
    SELECT DISTINCT t.patient_id, t.metric, day.start_at,
           date_trunc('day', day.start_at + interval '30 hours', z.name) AS end_at
    FROM touched t
    JOIN rule r USING (metric)
    JOIN zone z USING (patient_id)
    CROSS JOIN LATERAL (SELECT date_trunc('day', t.start_at, z.name) AS start_at) AS day
), spoken_of AS (
    SELECT b.patient_id, b.metric, b.start_at, b.end_at, s.source_id, s.revised_at, s.value,
           s.start_at AS began_at, s.end_at AS ended_at, (s.start_at, s.end_at) = (b.start_at, b.end_at) AS whole,
           coalesce(array_position(string_to_array(r.kinds, ','), src.kind::text), 99) AS place
    FROM bucket b
    JOIN rule r USING (metric)
    CROSS JOIN LATERAL (
        SELECT * FROM biometrics_sample s
        WHERE s.patient_id = b.patient_id AND s.metric = b.metric
          AND s.start_at >= b.start_at AND s.start_at < b.end_at
          AND ((s.start_at, s.end_at) = (b.start_at, b.end_at) OR s.end_at <= s.start_at + interval '1 hour')
        OFFSET 0
    ) AS s
    JOIN biometrics_source src ON src.id = s.source_id
), total AS (
    SELECT patient_id, metric, start_at, end_at, source_id, max(revised_at) AS revised_at, max(value) AS value
    FROM spoken_of WHERE whole GROUP BY patient_id, metric, start_at, end_at, source_id
), quarter AS (
    SELECT patient_id, metric, start_at, end_at, source_id, place, slot, max(revised_at) AS revised_at,
           sum(value * CASE WHEN ended_at = began_at THEN 1 ELSE
               extract(epoch FROM least(ended_at, slot + interval '15 minutes') - greatest(began_at, slot))
               / extract(epoch FROM ended_at - began_at) END) AS value
    FROM spoken_of, LATERAL generate_series(
        date_bin('15 minutes', began_at, 'epoch'),
        greatest(began_at, ended_at - interval '1 microsecond'), '15 minutes') AS slot
    WHERE NOT whole AND slot < end_at AND (patient_id, metric, start_at) IN (
        SELECT patient_id, metric, start_at FROM total
    )
    GROUP BY patient_id, metric, start_at, end_at, source_id, place, slot
), counted AS (
    SELECT DISTINCT ON (patient_id, metric, start_at, slot) *
    FROM quarter
    ORDER BY patient_id, metric, start_at, slot, place, source_id
), value AS (
    SELECT * FROM total
    UNION ALL
    SELECT patient_id, metric, start_at, end_at, (array_agg(source_id ORDER BY place, source_id))[1],
           max(revised_at), sum(value)
    FROM counted c
    GROUP BY patient_id, metric, start_at, end_at
    HAVING (array_agg(source_id ORDER BY place, source_id))[1] NOT IN (
        SELECT w.source_id FROM total w
        WHERE w.patient_id = c.patient_id AND w.metric = c.metric AND w.start_at = c.start_at
    )
), swept AS (
    SELECT * FROM bucket
), {PICK}
"""
# Nights that overlap, directly or through a third, are one: so it does not matter which of them came first. Three
# days on either side are far more than such a chain spans, and bound the search. A point is taken for a second long.
# What was touched is swept of conflicts even where no sample is left.
OVERLAPPING = f"""
WITH {RULES}, near AS (
    SELECT DISTINCT s.patient_id, s.metric, s.source_id, s.record, s.start_at, s.end_at, s.value, s.revised_at,
           greatest(s.end_at, s.start_at + interval '1 second') AS until
    FROM touched t
    JOIN rule r USING (metric)
    CROSS JOIN LATERAL (
        SELECT * FROM biometrics_sample s
        WHERE s.patient_id = t.patient_id AND s.metric = t.metric
          AND s.start_at > t.start_at - interval '3 days' AND s.start_at < t.end_at + interval '3 days'
        OFFSET 0
    ) AS s
), following AS (
    SELECT *, start_at < max(until) OVER (
        PARTITION BY patient_id, metric ORDER BY start_at, until, source_id, record
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS continues
    FROM near
), numbered AS (
    SELECT *, count(*) FILTER (WHERE continues IS NOT TRUE) OVER (
        PARTITION BY patient_id, metric ORDER BY start_at, until, source_id, record
    ) AS night
    FROM following
), bucket AS (
    SELECT patient_id, metric, night, min(start_at) AS start_at, max(end_at) AS end_at
    FROM numbered n
    GROUP BY patient_id, metric, night
    HAVING EXISTS (
        SELECT FROM touched t
        WHERE t.patient_id = n.patient_id AND t.metric = n.metric
          AND t.start_at < max(n.until) AND greatest(t.end_at, t.start_at + interval '1 second') > min(n.start_at)
    )
), value AS (
    SELECT DISTINCT ON (b.patient_id, b.metric, b.start_at, n.source_id)
           b.patient_id, b.metric, b.start_at, b.end_at, n.source_id, n.value, n.revised_at
    FROM bucket b
    JOIN numbered n USING (patient_id, metric, night)
    ORDER BY b.patient_id, b.metric, b.start_at, n.source_id, n.end_at - n.start_at DESC, n.start_at, n.record
), swept AS (
    SELECT patient_id, metric, start_at, end_at FROM bucket
    UNION
    SELECT patient_id, metric, start_at, end_at FROM touched JOIN rule USING (metric)
), {PICK}
"""


def _rules(metrics: list[Metric], seconds: list[int], *, daily: bool = False) -> dict[str, object]:
    return {
        "daily": daily,
        "metrics": [metric.number for metric in metrics],
        "seconds": seconds,
        "sums": [metric.adds == "sum" for metric in metrics],
        "tolerances": [float(metric.day_tolerance if daily else metric.tolerance) for metric in metrics],
        "orders": [",".join(metric.order) for metric in metrics],
    }


_FIXED_METRICS = [metric for metric in COMPARED if metric.bucket != NIGHT]
_FIXED_RULES = _rules(_FIXED_METRICS, [0 if m.bucket == DAY else int(m.bucket) for m in _FIXED_METRICS])
_DAILY_METRICS = [metric for metric in COMPARED if metric.cumulative]
_DAILY_RULES = _rules(_DAILY_METRICS, [0] * len(_DAILY_METRICS), daily=True)
_NIGHT_METRICS = [metric for metric in COMPARED if metric.bucket == NIGHT]
_NIGHT_RULES = _rules(_NIGHT_METRICS, [0] * len(_NIGHT_METRICS))


async def settle(connection: Connection, zones: Mapping[int, str]) -> list[Change]:
    """Settle what the temporary table `touched` names, inside the transaction that touched it.

    `zones` gives the IANA zone of every patient in it. Returns the conflicts that came, changed or went.
    """
    days = {"patients": list(zones), "zones": list(zones.values())}
    changes: list[Change] = []
    for statement, parameters in (
        (FIXED, _FIXED_RULES | days),
        (OVERLAPPING, _NIGHT_RULES),
        (DAILY, _DAILY_RULES | days),
    ):
        cursor = await connection.execute(statement, parameters)
        changes += [Change(*row) for row in await cursor.fetchall()]
    return changes
