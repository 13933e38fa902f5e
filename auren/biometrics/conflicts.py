"""Conflicts: where two sources speak about one metric of one patient in one comparison bucket and differ too much.

Settling looks at the buckets a batch has touched and nowhere else, and it looks at what is stored and what people have
decided, not at what arrived: so the result is the same whatever the order or repetition of arrivals, and a decision
holds when its conflict goes and comes back. One statement finds and writes the conflicts of metrics compared over
fixed buckets, one those over local days, one those over overlapping nights, and one those of counts: each quarter of an
hour, and a vendor's total of a day with what the quarters of other sources add up to.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import psycopg

from auren.biometrics import rules
from auren.biometrics.metrics import BY_NAME, BY_NUMBER, DAY, METRICS, NIGHT, Metric
from auren.postgres import array

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

Touched = tuple[int, int, datetime, datetime]  # patient, metric, and from when to when something came, changed or went
NEAR = timedelta(minutes=15)  # what lies closer together is settled as one stretch


class Change(msgspec.Struct, frozen=True):
    """A conflict that is new, or not what it was, or gone (`winner_id` None). `values` maps source ids to values."""

    patient_id: int
    metric: int
    start_at: datetime
    end_at: datetime
    daily: bool
    values: dict[str, float]
    winner_id: int | None
    rule: str
    state: str


# A night is one conflict, on its duration: the stages and totals follow its winner. Scores have one vendor each.
NIGHT_FAMILY = frozenset(m.number for m in METRICS if m.name.startswith("sleep_")) - {BY_NAME["sleep_duration"].number}
ALONE = frozenset(m.number for m in METRICS if m.name.startswith(("oura_", "whoop_")))
COMPARED = [m for m in METRICS if m.number not in NIGHT_FAMILY | ALONE]

# PostgreSQL takes every one of these tables of thousands for a few rows, and a young table of samples has no statistics
# at all. So no two of them are joined, where it might compare each with each, and samples are looked up bucket by
# bucket (LATERAL), which leaves nothing but the index.
GIVEN = f"""
rule AS (
    SELECT metric, sums, make_interval(secs => seconds) AS width
    FROM unnest(%(metrics)s::smallint[], %(seconds)s::integer[], %(sums)s::boolean[]) AS r (metric, seconds, sums)
), zone AS (
    SELECT * FROM unnest(%(patients)s::bigint[], %(zones)b::text[]) AS z (patient_id, name)
), touched AS (
    SELECT * FROM unnest(
        %(touched_patients)s::bigint[], %(touched_metrics)s::smallint[],
        %(touched_starts)s::timestamptz[], %(touched_ends)s::timestamptz[]
    ) AS t (patient_id, metric, start_at, end_at)
), {rules.PREFERENCE}
"""
# No look-up reaches farther from what was touched. Said once as a parameter, so that of 65 partitions only those around
# it are opened, and not all of them for each look-up to choose from.
REACH = timedelta(days=5)
ABOUT = "{0} > %(earliest)s::timestamptz AND {0} < %(latest)s::timestamptz"
# Tolerances and orders are looked up by the metric's number.
KIND_PLACE = rules.kind_place("string_to_array((%(orders)s::text[])[{0}.metric], ',')", "src")
# From `value` (patient_id, metric, start_at, end_at, daily, source_id, value, revised_at), what each source says in
# each bucket, and `swept`, the stretches in which nothing else is a conflict. What decides is what tells the first
# source from the second: a decision, the metric's order of kinds, or, for want of better, the newer revision and the
# lower number.
PICK = f"""
spoken AS (
    SELECT *, max(value) OVER bucket - min(value) OVER bucket AS apart
    FROM value
    WINDOW bucket AS (PARTITION BY patient_id, metric, start_at, daily)
), placed AS (
    SELECT s.*, {rules.place("s")} AS place, {KIND_PLACE.format("s")} AS kind_place
    FROM spoken s
    JOIN biometrics_source src ON src.id = s.source_id
    WHERE s.apart > (CASE WHEN s.daily THEN %(day_tolerances)s ELSE %(tolerances)s END::double precision[])[s.metric]
), ranked AS (
    SELECT *, row_number() OVER ranking AS number, lead(source_id) OVER ranking AS second_id,
           kind_place < lead(kind_place) OVER ranking AS by_kind
    FROM placed
    WINDOW ranking AS (PARTITION BY patient_id, metric, start_at, daily ORDER BY {rules.first()})
), compared AS (
    SELECT patient_id, metric, start_at, end_at, daily,
           jsonb_object_agg(source_id, trim_scale(round(value::numeric, 6))) AS values,
           max(source_id) FILTER (WHERE number = 1) AS winner_id,
           max(second_id) FILTER (WHERE number = 1) AS second_id,
           bool_or(by_kind) FILTER (WHERE number = 1) AS by_kind
    FROM ranked
    GROUP BY patient_id, metric, start_at, end_at, daily
), found AS (
    SELECT c.*, decision.id AS preference_id, coalesce(made_by, '') AS resolved_by, coalesce(note, '') AS note,
           CASE WHEN scope = 'patient' THEN 'patient_order' WHEN scope IS NOT NULL THEN 'person'
                WHEN by_kind THEN 'metric_order' ELSE 'recency' END AS rule
    FROM compared c
    LEFT JOIN LATERAL (
        SELECT * FROM preference p
        WHERE {rules.concerns("c")}
          AND array_position(p.sources, c.winner_id) IS DISTINCT FROM array_position(p.sources, c.second_id)
        ORDER BY p.rank, p.id DESC LIMIT 1
    ) AS decision ON true
), cleared AS (
    DELETE FROM biometrics_conflict c
    USING swept b
    WHERE c.patient_id = b.patient_id AND c.metric = b.metric
      AND c.start_at < b.end_at AND c.end_at > b.start_at AND c.start_at > b.start_at - interval '3 days'
      AND NOT EXISTS (
        SELECT FROM found f
        WHERE f.patient_id = c.patient_id AND f.metric = c.metric AND f.start_at = c.start_at AND f.daily = c.daily
      )
    RETURNING c.patient_id, c.metric, c.start_at, c.end_at, c.daily, c.values
), written AS (
    INSERT INTO biometrics_conflict AS c
        (patient_id, metric, start_at, end_at, daily, values, winner_id, rule, state, preference_id, resolved_by, note)
    SELECT patient_id, metric, start_at, end_at, daily, values, winner_id, rule,
           CASE rule WHEN 'person' THEN 'overridden' WHEN 'recency' THEN 'open' ELSE 'settled' END,
           preference_id, resolved_by, note
    FROM found
    ORDER BY patient_id, metric, start_at, daily
    ON CONFLICT (patient_id, metric, start_at, daily) DO UPDATE
    SET end_at = excluded.end_at, values = excluded.values, winner_id = excluded.winner_id, rule = excluded.rule,
        state = excluded.state, preference_id = excluded.preference_id, resolved_by = excluded.resolved_by,
        note = excluded.note, updated_at = now()
    WHERE (c.end_at, c.values, c.winner_id, c.rule, c.preference_id) IS DISTINCT FROM
          (excluded.end_at, excluded.values, excluded.winner_id, excluded.rule, excluded.preference_id)
    RETURNING patient_id, metric, start_at, end_at, daily, values, winner_id, rule, state
)
SELECT * FROM written
UNION ALL
SELECT *, NULL, 'agreed', 'gone' FROM cleared
"""


def _stretches(name: str, bucket: str, gap: str, columns: str = "") -> str:
    """`bucket`, what was touched rounded to whole buckets, as stretches that are read in one go: a look-up a bucket
    costs more than what lies within `gap` between two of them, and that is settled along to the same result.
    """
    within = "OVER (PARTITION BY patient_id, metric ORDER BY start_at)"
    return f"""
bucket AS (
    {bucket}
), {name} AS (
    SELECT patient_id, metric, sums, width, zone, min(start_at) AS start_at, max(end_at) AS end_at{columns}
    FROM (
        SELECT *, count(*) FILTER (WHERE apart) {within} AS stretch
        FROM (SELECT *, start_at > lag(end_at) {within} + interval '{gap}' AS apart FROM bucket) AS following
    ) AS numbered
    GROUP BY patient_id, metric, sums, width, zone, stretch
)"""


def _said(since: str) -> str:
    """What the samples say that reach into each stretch `swept b` and began at `since` or later."""
    return f"""
said AS (
    SELECT b.patient_id, b.metric, b.sums, b.width, b.zone, b.start_at AS since, b.end_at AS until,
           s.source_id, s.start_at, s.end_at, s.value, s.revised_at
    FROM swept b
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON ({rules.TWICE}) * FROM biometrics_sample
        WHERE patient_id = b.patient_id AND metric = b.metric AND start_at >= {since} AND start_at < b.end_at
          AND {ABOUT.format("start_at")} AND (start_at >= b.start_at OR end_at >= b.start_at)
        ORDER BY {rules.NEWEST}
    ) AS s
)"""


# The patient's local days. A value that began up to two days before its day may be of it, or reach into it.
DAYS = f"""
    SELECT t.patient_id, t.metric, r.sums, r.width, z.name AS zone,
           date_trunc('day', t.start_at AT TIME ZONE z.name) AT TIME ZONE z.name AS start_at,
           (date_trunc('day', last_at AT TIME ZONE z.name) + interval '1 day') AT TIME ZONE z.name AS end_at,
           date_bin({rules.QUARTER}, t.start_at, 'epoch') AS first_quarter,
           date_bin({rules.QUARTER}, last_at, 'epoch') + {rules.QUARTER} AS after_quarters
    FROM touched t
    JOIN rule r USING (metric)
    JOIN zone z USING (patient_id)
    CROSS JOIN LATERAL greatest(t.start_at, t.end_at - interval '1 microsecond') AS last_at
"""
LOOK_BACK = "b.start_at - interval '2 days'"
WIDTHS = """
    SELECT t.patient_id, t.metric, r.sums, r.width, '' AS zone, date_bin(r.width, t.start_at, 'epoch') AS start_at,
           date_bin(r.width, t.end_at, 'epoch') + r.width AS end_at
    FROM touched t
    JOIN rule r USING (metric)
"""
FIXED = f"""
WITH {GIVEN}, {_stretches("swept", WIDTHS, "1 hour")}, {_said("b.start_at")}, value AS (
    SELECT patient_id, metric, began_at AS start_at, began_at + width AS end_at, false AS daily, source_id,
           CASE WHEN sums THEN sum(value) ELSE avg(value) END AS value, max(revised_at) AS revised_at
    FROM (SELECT *, date_bin(width, start_at, 'epoch') AS began_at FROM said) AS said
    GROUP BY patient_id, metric, began_at, width, source_id, sums
), {PICK}
"""
DAILY = f"""
WITH {GIVEN}, {_stretches("swept", DAYS, "2 days")}, {_said(LOOK_BACK)}, value AS (
    SELECT patient_id, metric, day AS start_at, date_trunc('day', day + interval '30 hours', zone) AS end_at,
           false AS daily, source_id, CASE WHEN sums THEN sum(value) ELSE avg(value) END AS value,
           max(revised_at) AS revised_at
    FROM said s, LATERAL (SELECT {rules.day_of("s", "s.zone")} AS day OFFSET 0) AS local
    WHERE day >= since AND day < until
    GROUP BY patient_id, metric, day, zone, source_id, sums
), {PICK}
"""
QUARTERS = ", min(first_quarter) AS first_quarter, max(after_quarters) AS after_quarters"
# A quarter's count comes from whichever source comes first in it, so that a phone fills the hours the
# watch was off; the day's sum goes by the name of the first of those sources. What is longer than an hour says nothing
# about one quarter, and a total nothing about any. Where the days have no total, only the quarters touched matter.
COUNTS = f"""
WITH {GIVEN}, {_stretches("dates", DAYS, "2 days", QUARTERS)}, swept AS (
    SELECT patient_id, metric, sums, width, zone,
           CASE WHEN totals THEN start_at ELSE first_quarter END AS start_at,
           CASE WHEN totals THEN end_at ELSE after_quarters END AS end_at,
           CASE WHEN totals THEN {LOOK_BACK} ELSE least(reaches_in, first_quarter) END AS since
    FROM dates b
    CROSS JOIN LATERAL (
        SELECT coalesce(bool_or({rules.is_total("s")}), false) AS totals,
               min(s.start_at) FILTER (WHERE s.end_at > b.first_quarter) AS reaches_in
        FROM biometrics_sample s
        WHERE s.patient_id = b.patient_id AND s.metric = b.metric
          AND s.start_at >= {LOOK_BACK} AND s.start_at < b.end_at AND {ABOUT.format("s.start_at")}
    ) AS seen
), {_said("b.since")}, counted AS (
    SELECT *, {rules.is_total("s")} AS total FROM said s
), total AS (
    SELECT patient_id, metric, day AS start_at, date_trunc('day', day + interval '30 hours', zone) AS end_at,
           true AS daily, source_id, max(value) AS value, max(revised_at) AS revised_at
    FROM counted c, LATERAL (SELECT {rules.day_of("c", "c.zone")} AS day OFFSET 0) AS local
    WHERE total AND day >= since AND day < until
    GROUP BY patient_id, metric, day, zone, source_id
), quarter AS (
    SELECT patient_id, metric, slot AS start_at, slot + {rules.QUARTER} AS end_at, false AS daily, source_id,
           sum({rules.share("c", "slot")}) AS value, max(revised_at) AS revised_at,
           bool_and(c.end_at <= c.start_at + interval '1 hour') AS fine, zone
    FROM counted c, LATERAL {rules.quarters("c", "since", "until")} AS slot
    WHERE NOT total AND slot < until
    GROUP BY patient_id, metric, slot, source_id, zone
), dated AS (
    SELECT *, date_trunc('day', start_at, zone) AS day FROM quarter
), drawn AS (
    SELECT DISTINCT ON (patient_id, metric, start_at) *
    FROM (
        SELECT d.*, {rules.place("d")} AS place, {KIND_PLACE.format("d")} AS kind_place
        FROM dated d
        JOIN biometrics_source src ON src.id = d.source_id
        WHERE (d.patient_id, d.metric, d.day) IN (SELECT patient_id, metric, start_at FROM total)
    ) AS candidate
    ORDER BY patient_id, metric, start_at, {rules.first()}
), part AS (
    SELECT patient_id, metric, day AS start_at, date_trunc('day', day + interval '30 hours', zone) AS end_at,
           true AS daily, source_id, kind_place, sum(value) AS value, max(revised_at) AS revised_at
    FROM drawn
    GROUP BY patient_id, metric, day, zone, source_id, kind_place
), summed AS (
    SELECT patient_id, metric, start_at, end_at, daily,
           (array_agg(source_id ORDER BY {rules.first()}))[1] AS source_id, sum(value) AS value,
           max(revised_at) AS revised_at
    FROM (SELECT part.*, {rules.place("part")} AS place FROM part) AS placed_part
    GROUP BY patient_id, metric, start_at, end_at, daily
), value AS (
    SELECT patient_id, metric, start_at, end_at, daily, source_id, value, revised_at FROM quarter WHERE fine
    UNION ALL
    SELECT * FROM total
    UNION ALL
    SELECT * FROM summed
    WHERE (patient_id, metric, start_at, source_id) NOT IN (
        SELECT patient_id, metric, start_at, source_id FROM total
    )
), {PICK}
"""
# Nights that overlap, directly or through a third, are one: so it does not matter which of them came first. Three
# days on either side are far more than such a chain spans, and bound the search. A point is taken for a second long.
# What was touched is swept of conflicts even where no sample is left.
OVERLAPPING = f"""
WITH {GIVEN}, reached AS (
    SELECT patient_id, metric, start_at, greatest(end_at, start_at + interval '1 second') AS end_at
    FROM touched JOIN rule USING (metric)
), stretch AS (
    SELECT patient_id, metric, min(start_at) - interval '3 days' AS start_at, max(end_at) + interval '3 days' AS end_at
    FROM (
        SELECT *, count(*) FILTER (WHERE apart) OVER (PARTITION BY patient_id, metric ORDER BY start_at) AS stretch
        FROM (
            SELECT *, start_at > interval '6 days' + max(end_at) OVER (
                PARTITION BY patient_id, metric ORDER BY start_at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS apart
            FROM reached
        ) AS following
    ) AS numbered
    GROUP BY patient_id, metric, stretch
), near AS (
    SELECT s.patient_id, s.metric, s.source_id, s.record, s.start_at, s.end_at, s.value, s.revised_at,
           greatest(s.end_at, s.start_at + interval '1 second') AS until
    FROM stretch t
    CROSS JOIN LATERAL (
        SELECT * FROM biometrics_sample s
        WHERE s.patient_id = t.patient_id AND s.metric = t.metric
          AND s.start_at > t.start_at AND s.start_at < t.end_at AND {ABOUT.format("s.start_at")}
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
    SELECT patient_id, metric, night, min(start_at) AS start_at, max(until) AS end_at
    FROM numbered n
    GROUP BY patient_id, metric, night
    HAVING EXISTS (
        SELECT FROM touched t
        WHERE t.patient_id = n.patient_id AND t.metric = n.metric
          AND t.start_at < max(n.until) AND greatest(t.end_at, t.start_at + interval '1 second') > min(n.start_at)
    )
), value AS (
    SELECT DISTINCT ON (b.patient_id, b.metric, b.start_at, n.source_id)
           b.patient_id, b.metric, b.start_at, b.end_at, false AS daily, n.source_id, n.value, n.revised_at
    FROM bucket b
    JOIN numbered n USING (patient_id, metric, night)
    ORDER BY b.patient_id, b.metric, b.start_at, n.source_id, n.end_at - n.start_at DESC, n.start_at,
             n.revised_at DESC, n.record
), swept AS (
    SELECT patient_id, metric, start_at, end_at FROM bucket
    UNION
    SELECT patient_id, metric, start_at, greatest(end_at, start_at + interval '1 second')
    FROM touched JOIN rule USING (metric)
), {PICK}
"""


def _given(metrics: Sequence[Metric]) -> dict[str, str]:
    by_number = [BY_NUMBER.get(number) for number in range(1, max(BY_NUMBER) + 1)]
    return {
        "metrics": array(metric.number for metric in metrics),
        "seconds": array(metric.bucket if isinstance(metric.bucket, int) else None for metric in metrics),
        "sums": array(metric.adds == "sum" for metric in metrics),
        "tolerances": array(metric and float(metric.tolerance) for metric in by_number),
        "day_tolerances": array(metric and float(metric.day_tolerance) for metric in by_number),
        "orders": array(metric and ",".join(metric.order) for metric in by_number),
    }


# Each statement, the metrics it settles, and what it is always given.
STATEMENTS = tuple(
    (statement, frozenset(metric.number for metric in metrics), _given(metrics))
    for statement, metrics in (
        (FIXED, [metric for metric in COMPARED if isinstance(metric.bucket, int) and not metric.cumulative]),
        (DAILY, [metric for metric in COMPARED if metric.bucket == DAY]),
        (OVERLAPPING, [metric for metric in COMPARED if metric.bucket == NIGHT]),
        (COUNTS, [metric for metric in COMPARED if metric.cumulative]),
    )
)


def stretches(touched: Iterable[Touched]) -> list[Touched]:
    """What was touched, without overlaps and with what lies near each other in one piece, in order.

    Samples mostly come in the order of their time, so they are joined as they come, and only the pieces are sorted.
    """
    ends: dict[tuple[int, int], tuple[datetime, datetime]] = {}
    pieces: list[Touched] = []
    for patient_id, metric, start_at, end_at in touched:
        key = patient_id, metric
        since, until = ends.get(key) or (start_at, end_at)
        if start_at < since or (start_at > until and start_at > until + NEAR):
            pieces.append((*key, since, until))
            ends[key] = start_at, end_at
        elif end_at > until or key not in ends:
            ends[key] = since, max(until, end_at)
    pieces += [(*key, since, until) for key, (since, until) in ends.items()]
    return joined(sorted(pieces))


def joined(ordered: Iterable[Touched]) -> list[Touched]:
    """Pieces of which none comes near the next."""
    found: list[Touched] = []
    for patient_id, metric, start_at, end_at in ordered:
        last = found[-1] if found else None
        if last and last[:2] == (patient_id, metric) and start_at <= last[3] + NEAR:
            found[-1] = (patient_id, metric, last[2], max(last[3], end_at))
        else:
            found.append((patient_id, metric, start_at, end_at))
    return found


def statements(touched: Iterable[Touched], zones: Mapping[int, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What settles that which was touched, with its parameters; each returns rows of `Change`'s fields.

    `zones` gives the IANA zone of every patient in it.
    """
    pieces = stretches(touched)
    people = {"patients": array(zones), "zones": list(zones.values())}
    for statement, metrics, given in STATEMENTS:
        of_these = [piece for piece in pieces if piece[1] in metrics]
        if of_these:
            patients, numbers, starts, ends = zip(*of_these, strict=True)
            named = {"patients": patients, "metrics": numbers, "starts": starts, "ends": ends}
            about = {"earliest": min(starts) - REACH, "latest": max(ends) + REACH}
            yield statement, given | people | about | {f"touched_{name}": array(each) for name, each in named.items()}


async def settle(connection: Connection, touched: Iterable[Touched], zones: Mapping[int, str]) -> list[Change]:
    """Settle what was touched, inside the transaction that touched it.

    Returns the conflicts that came, changed or went.
    """
    changes: list[Change] = []
    for statement, parameters in statements(touched, zones):
        cursor = await connection.execute(statement, parameters)
        changes += [Change(*row) for row in await cursor.fetchall()]
    return changes
