"""The read side: this patient, these metrics, from, to, at most so many points a line.

All SQL over `biometrics_sample` for people stands here, because what makes it fast is one habit: every statement
names the patient, one metric and a bounded stretch of `start_at`, in that order, so that it walks the key of the
few partitions it needs. Settling and reducing happen in the same statement: what leaves PostgreSQL is what is drawn.

Times in a `Line` are Unix seconds. Everything is synchronous; Django runs views in threads.
"""
# ruff: noqa: S608 - statements are put together from constants of this file; what people ask for goes in as parameters

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from django.db.models import QuerySet

from auren.biometrics import reads, rules
from auren.biometrics.metrics import BY_NAME, BY_NUMBER, DAY, IN_BED, NIGHT, Metric
from auren.biometrics.models import Conflict, Source

Shape = Literal["line", "dots", "bars", "stages"]
Row = tuple[Any, ...]

LOOK_BACK = timedelta(days=2)  # an interval longer than this is found only from its start
WIDE = timedelta(hours=6)  # a longer window of a line may hold too many rows to sort and join
LAST_SEEN_DAYS = 90  # how far back lists look for a patient's last sample
MOST_CONFLICTS = 500
MOST_POINTS = 5_000
# Bucket widths a person can read off: 1, 2, 5, 10, 15, 20, 30 minutes, 1, 2, 3, 6, 12 hours, a day, a week.
STEPS = (60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 604800)
GRIDS = (900, 300, 60)  # seconds; each one divides the one before
ALL = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Window:
    """What is asked for: `start_at` (included) to `end_at` (not), in the patient's `zone`, `points` a line.

    A line keeps within `points` if they are two or more.
    """

    patient_id: int
    start_at: datetime
    end_at: datetime
    zone: ZoneInfo
    points: int = 1_500
    every_source: bool = False

    @property
    def step_seconds(self) -> int:
        """The narrowest readable bucket that keeps a line within `points`, whatever the bucket grid's phase."""
        wanted = (self.end_at - self.start_at).total_seconds() / max(self.points - 1, 1)
        weeks = -(-int(wanted + 1) // STEPS[-1])
        return next((step for step in STEPS if step >= wanted), weeks * STEPS[-1])

    def aligned(self) -> "Window":
        """This window, widened at each end to a whole minute, five minutes or quarter of an hour, by its length.

        So that windows that end now are the same window for a while. Every zone's midnights lie on whole quarters of
        an hour, so none is crossed, and no bar is drawn that this window would not draw.
        """
        length = (self.end_at - self.start_at).total_seconds()
        grid = next((grid for grid in GRIDS if grid * 200 <= length), GRIDS[-1])
        start_at = _on(grid, math.floor(self.start_at.timestamp() / grid))
        return replace(self, start_at=start_at, end_at=_on(grid, math.ceil(self.end_at.timestamp() / grid)))

    def whole_days(self) -> tuple[datetime, datetime]:
        """The local midnights around the window: 23, 24 or 25 hours apart for one day."""
        first = self.start_at.astimezone(self.zone).date()
        last = (self.end_at - timedelta(microseconds=1)).astimezone(self.zone).date()
        return self._midnight(first), self._midnight(last + timedelta(days=1))

    def _midnight(self, day: Any) -> datetime:
        return datetime.combine(day, time.min, self.zone).astimezone(UTC)


@dataclass(slots=True)
class Line:
    """What one device (bars: one set of devices) says, as columns of equal length.

    A row without a `value` is a gap. `low` and `high` differ from `value` only where several samples were drawn
    into one bucket. For stages `value` is the stage's number.
    """

    sources: tuple[int, ...]
    start: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)
    value: list[float | None] = field(default_factory=list)
    low: list[float | None] = field(default_factory=list)
    high: list[float | None] = field(default_factory=list)

    def add(self, start: float, end: float, value: float | None, low: float | None, high: float | None) -> None:
        for column, entry in zip(self._columns(), (start, end, value, low, high), strict=True):
            column.append(entry)

    def _columns(self) -> tuple[list[Any], ...]:
        return self.start, self.end, self.value, self.low, self.high


@dataclass(frozen=True, slots=True)
class Series:
    """One metric: the settled `lines`, and on request what every source said on its own."""

    metric: Metric
    shape: Shape
    lines: list[Line]
    every_source: list[Line] | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """`sources` names all that `series` and `conflicts` refer to; `more_conflicts` says that the list was cut."""

    window: Window
    series: list[Series]
    conflicts: list[Conflict]
    more_conflicts: bool
    sources: dict[int, Source]

    @property
    def has_data(self) -> bool:
        return any(series.lines for series in self.series)


def read(window: Window, metrics: Sequence[Metric]) -> Timeline:
    """The whole answer, out of one snapshot: one statement a metric (two with every source), one for conflicts, one for
    the devices.
    """
    return reads.consistent([window.patient_id], lambda: _read(window, metrics))


def _read(window: Window, metrics: Sequence[Metric]) -> Timeline:
    series = [_series(window, metric) for metric in metrics]
    conflicts = _conflicts(window, metrics)
    return Timeline(
        window,
        series,
        conflicts[:MOST_CONFLICTS],
        len(conflicts) > MOST_CONFLICTS,
        Source.objects.using(reads.database()).in_bulk(_mentioned(series, conflicts)),
    )


def _on(grid: int, place: int) -> datetime:
    return datetime.fromtimestamp(grid * place, UTC)


def shape_of(metric: Metric) -> Shape:
    if metric.adds == "state":
        return "stages"
    if metric.cumulative:
        return "bars"
    return "dots" if metric.bucket in {DAY, NIGHT} else "line"


def last_sample_at(patient_ids: Sequence[int], metrics: Iterable[Metric]) -> dict[int, datetime]:
    """When each patient's newest sample of the last 90 days ends (never later than now); patients without are absent.

    One probe of the key a patient and metric, newest partition first.
    """
    now = datetime.now(UTC)
    found = _newest(patient_ids, metrics, now - timedelta(days=LAST_SEEN_DAYS))
    return {patient_id: min(ending, now) for patient_id, ending in found.items()}


def last_sample_ever(patient_id: int, metrics: Iterable[Metric]) -> datetime | None:
    """As `last_sample_at`, without its bounds: it opens every partition, so it is for one patient at a time.

    A running day's total ends at midnight, though that lies ahead: so the answer changes only when the data do.
    """
    return _newest([patient_id], metrics, datetime.min.replace(tzinfo=UTC)).get(patient_id)


def winners(window: Window, metric: Metric) -> list[tuple[int, datetime, datetime]]:
    """What `read` would draw of `metric`: source, start and end of each sample that counts.

    Of a metric compared over seconds: source, start and end of each bucket in which it counts. Of a cumulative one
    those are quarters of an hour, and the days for which a source's total counts.
    """
    if metric.cumulative:
        found = _parameters(window, metric, *window.whole_days())
        return reads.fetch(_COUNTED, found | {"every": False})
    kind = _kind_of_bucket(metric)
    statement = _WINNERS[kind] + (_WINNING_BUCKETS if kind == "seconds" else _WINNING)
    found = _parameters(window, metric, window.start_at, window.end_at)
    return reads.fetch(statement, found | {"stages": metric.adds == "state"})


def disputes(window: Window, metric: Metric) -> QuerySet[Conflict]:
    """The conflicts that decide `metric` and touch the window, by start."""
    found = Conflict.objects.filter(
        patient_id=window.patient_id,
        metric__in=_disputed_as(metric),
        start_at__gte=window.start_at - LOOK_BACK,
        start_at__lt=window.end_at,
        end_at__gt=window.start_at,
    )
    return found.order_by("start_at", "daily")


@dataclass(frozen=True, slots=True)
class Told:
    """The samples by which one source takes part in a conflict."""

    samples: int
    first_at: datetime
    last_at: datetime
    revised_at: datetime


def told(conflict: Conflict) -> dict[int, Told]:
    """By source: what is stored now of what it says in `conflict`."""
    asked = {
        "patient": conflict.patient_id,
        "metric": conflict.metric,
        "look_back": conflict.start_at - LOOK_BACK,
        "start": conflict.start_at,
        "end": conflict.end_at,
        "quarter": BY_NUMBER[conflict.metric].cumulative and not conflict.daily,
    }
    return {source: Told(*rest) for source, *rest in reads.fetch(_TOLD_BY, asked)}


def quarters(window: Window, metric: Metric) -> list[Line]:
    """What each source counted in each quarter of an hour of the window; totals of a day say nothing about those."""
    return _split(reads.fetch(_QUARTERS, _parameters(window, metric, window.start_at, window.end_at)), gap=None)


def _series(window: Window, metric: Metric) -> Series:
    shape = shape_of(metric)
    lines = _lines(window, metric, shape, every=False)
    every = _lines(window, metric, shape, every=True) if window.every_source else None
    return Series(metric, shape, lines, every)


def _lines(window: Window, metric: Metric, shape: Shape, *, every: bool) -> list[Line]:
    if shape == "bars":
        return _split(_bars(window, metric, every=every), gap=None)
    rows = _settled(window, metric, every=every, points=ALL if shape == "stages" else window.points)
    if shape == "stages":
        return [_coarser(line, window) for line in _split(rows, gap=None)]
    return _split(rows, gap=longest_silence(window, metric))


def longest_silence(window: Window, metric: Metric) -> float:
    """Seconds from one value's start to the next beyond which the line is broken rather than drawn through."""
    if isinstance(metric.bucket, str):
        return 36 * 3600.0  # one night or day without a value
    return float(max(3 * metric.bucket, 2 * window.step_seconds))


def _split(rows: Iterable[Row], gap: float | None) -> list[Line]:
    """One `Line` for each set of sources, in order of first appearance, broken where it was silent for longer."""
    lines: dict[tuple[int, ...], Line] = {}
    for sources, start, end, value, low, high in rows:
        line = lines.setdefault(tuple(sources), Line(tuple(sources)))
        if gap is not None and line.start and start - line.start[-1] > gap:
            line.add(line.end[-1], start, None, None, None)
        line.add(start, end, value, low, high)
    return list(lines.values())


def _coarser(line: Line, window: Window) -> Line:
    """Merge neighbouring stages until the line keeps within its points; of those merged the longest one is shown."""
    if len(line.value) <= window.points:
        return line
    merged = Line(line.sources)
    for group in _neighbours(line, window.step_seconds):
        longest = max(group, key=lambda stage: stage[1] - stage[0])
        merged.add(group[0][0], group[-1][1], longest[2], longest[2], longest[2])
    return merged


def _neighbours(line: Line, seconds: float) -> Iterator[list[Row]]:
    """Runs of stages that follow each other without a pause and together last at least `seconds`."""
    group: list[Row] = []
    for stage in zip(line.start, line.end, line.value, strict=True):
        apart = bool(group) and (stage[0] != group[-1][1] or IN_BED in {stage[2], group[-1][2]})
        if group and (apart or group[-1][1] - group[0][0] >= seconds):
            yield group
            group = []
        group.append(stage)
    if group:
        yield group


def _mentioned(series: Iterable[Series], conflicts: Iterable[Conflict]) -> set[int]:
    drawn = {source for one in series for line in one.lines + (one.every_source or []) for source in line.sources}
    disputed = {int(source) for conflict in conflicts for source in conflict.values}
    return drawn | disputed | {conflict.winner_id for conflict in conflicts}


def _conflicts(window: Window, metrics: Iterable[Metric]) -> list[Conflict]:
    """Those that touch the window, by start; one more than `MOST_CONFLICTS` when there are more."""
    numbers = {number for metric in metrics for number in _disputed_as(metric)}
    found = Conflict.objects.using(reads.database()).filter(
        patient_id=window.patient_id,
        metric__in=numbers,
        start_at__gte=window.start_at - LOOK_BACK,
        start_at__lt=window.end_at,
        end_at__gt=window.start_at,
    )
    return list(found.order_by("start_at", "metric")[: MOST_CONFLICTS + 1])


def _disputed_as(metric: Metric) -> list[int]:
    """The metrics whose conflicts are shown with this one."""
    return list({metric.number, _decided_as(metric)})


def _decided_as(metric: Metric) -> int:
    """The metric whose conflicts and decisions decide this one: a night is one conflict, on `sleep_duration`."""
    night = metric.bucket == NIGHT and metric.name.startswith("sleep_")
    return BY_NAME["sleep_duration"].number if night else metric.number


def _settled(window: Window, metric: Metric, *, every: bool, points: int) -> list[Row]:
    names = {
        "every": every,
        "points": points,
        "step": window.step_seconds,
        "stages": metric.adds == "state",
    }
    parameters = _parameters(window, metric, window.start_at, window.end_at)
    wide = window.end_at - window.start_at > WIDE and shape_of(metric) == "line"
    return reads.fetch(_REDUCED if wide else _SETTLED[_kind_of_bucket(metric)], parameters | names)


def _bars(window: Window, metric: Metric, *, every: bool) -> list[Row]:
    return reads.fetch(_BARS, _parameters(window, metric, *window.whole_days()) | {"every": every})


def _parameters(window: Window, metric: Metric, start_at: datetime, end_at: datetime) -> dict[str, Any]:
    return {
        "start": start_at,
        "end": end_at,
        "look_back": start_at - LOOK_BACK,  # reckoned here: PostgreSQL prunes partitions by constants
        "patient": window.patient_id,
        "patients": [window.patient_id],
        "metric": metric.number,
        "decided_as": _decided_as(metric),
        "bucket": metric.bucket if isinstance(metric.bucket, int) else 0,
        "order": list(metric.order),
        "zone": window.zone.key,
        # Stages of one night may have holes; other night values are one interval a night.
        "pause": timedelta(hours=1) if metric.adds == "state" else timedelta(0),
    }


def _kind_of_bucket(metric: Metric) -> str:
    return metric.bucket if isinstance(metric.bucket, str) else "seconds"


def _newest(patient_ids: Sequence[int], metrics: Iterable[Metric], since: datetime) -> dict[int, datetime]:
    if not patient_ids:
        return {}
    numbers = [metric.number for metric in metrics]
    asked = {"patients": list(patient_ids), "metrics": numbers, "since": since}
    return reads.consistent(patient_ids, lambda: dict(reads.fetch(_NEWEST, asked)))


# Samples that touch the window. Of two of one source and interval only the newest revision stays. The sort follows
# the key (…, start_at, source_id), so PostgreSQL sorts a handful of rows at a time.
_ROWS = """
        SELECT DISTINCT ON (s.start_at, s.source_id, s.end_at) s.start_at, s.end_at, s.source_id, s.value, s.revised_at
        FROM biometrics_sample s
        WHERE s.patient_id = %(patient)s AND s.metric = %(metric)s
          AND s.start_at >= %(look_back)s AND s.start_at < %(end)s
          AND (s.end_at > %(start)s OR s.start_at >= %(start)s)
        ORDER BY s.start_at, s.source_id, s.end_at, s.revised_at DESC, s.record
    """
_TOLD_BY = f"""
    SELECT s.source_id, count(*), min(s.start_at), max(s.start_at), max(s.revised_at)
    FROM biometrics_sample s
    WHERE s.patient_id = %(patient)s AND s.metric = %(metric)s
      AND s.start_at >= %(look_back)s AND s.start_at < %(end)s
      AND (s.end_at > %(start)s OR s.start_at >= %(start)s) AND NOT (%(quarter)s AND {rules.is_total("s")})
    GROUP BY s.source_id
    """
_QUARTERS = f"""
    SELECT ARRAY[source_id], extract(epoch FROM slot)::float8,
           extract(epoch FROM slot + {rules.QUARTER})::float8, counted, counted, counted
    FROM (
        SELECT source_id, slot, sum({rules.share("c", "slot")}) AS counted
        FROM ({_ROWS}) c, LATERAL {rules.quarters("c", "%(start)s", "%(end)s")} AS slot
        WHERE NOT {rules.is_total("c")} AND slot >= %(start)s AND slot < %(end)s
        GROUP BY source_id, slot
    ) quarter
    ORDER BY slot, source_id
    """
_AROUND = f"""
    device AS (
        SELECT id AS source_id, {rules.kind_place("%(order)s::text[]", "source")} AS kind_place
        FROM biometrics_source source
        WHERE id IN (SELECT DISTINCT source_id FROM sample)
    ), {rules.PREFERENCE}"""
_SAMPLE = f"""
    sample AS ({_ROWS}), {_AROUND}"""
# What decisions are about, beside a bucket's own columns: see `rules.concerns`.
_WHOSE = "%(patient)s::bigint AS patient_id, %(decided_as)s::smallint AS metric"

# Which comparison bucket a sample falls into, and from when to when that is.
_SECONDS = "date_bin(make_interval(secs => %(bucket)s), start_at, 'epoch')"
# `opens` is true where nothing before overlaps: there a new night begins. A point is taken for a second long.
_NIGHTS = """
        SELECT *, count(*) FILTER (WHERE opens) OVER (ORDER BY start_at, source_id ROWS UNBOUNDED PRECEDING) AS bucket
        FROM (
            SELECT *, start_at >= %(pause)s + coalesce(
                max(greatest(end_at, start_at + interval '1 second')) OVER (
                    ORDER BY start_at, source_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
                '-infinity') AS opens
            FROM sample
        ) following"""
_BUCKETS = {
    "seconds": (f"SELECT *, {_SECONDS} AS bucket FROM sample", "bucket", "bucket + make_interval(secs => %(bucket)s)"),
    DAY: (
        f"SELECT *, {rules.day_of('sample', '%(zone)s')} AS bucket FROM sample",
        "bucket",
        "date_trunc('day', bucket + interval '30 hours', %(zone)s)",
    ),
    NIGHT: (
        _NIGHTS,
        "min(min(start_at)) OVER (PARTITION BY bucket)",
        "max(max(greatest(end_at, start_at + interval '1 second'))) OVER (PARTITION BY bucket)",
    ),
}
# The winner of a night's conflict gives all that is known of the night.
_WON_NIGHT = """s.source_id = (
            SELECT c.winner_id FROM biometrics_conflict c
            WHERE c.patient_id = s.patient_id AND c.metric = s.metric
              AND c.start_at >= %(look_back)s AND c.start_at < s.end_at AND c.end_at > s.start_at
            ORDER BY c.start_at LIMIT 1)"""

# The winner of a bucket is found by the rules that settle conflicts. Of stages, a source that tells light from deep
# goes before one that only knows "asleep".
_WON = """,
    bucketed AS ({bucketed}),
    spoken AS (
        SELECT bucket, source_id, {start} AS start_at, {end} AS end_at, false AS daily,
               max(revised_at) AS revised_at, %(stages)s AND bool_or(value BETWEEN 2 AND 4) AS staged, {whose}
        FROM bucketed GROUP BY bucket, source_id
    ),
    placed AS (
        SELECT s.*, device.kind_place, {place} AS place, {won} AS won
        FROM spoken s JOIN device USING (source_id)
    ),
    winner AS (
        SELECT DISTINCT ON (bucket) bucket, source_id
        FROM placed
        ORDER BY bucket, won DESC NULLS LAST, {order}
    )"""


def _won(kind: str) -> str:
    """From `sample` to `bucketed` and the `winner` of each bucket."""
    bucketed, start, end = _BUCKETS[kind]
    won = _WON_NIGHT if kind == NIGHT else "false"
    order = rules.first(among="staged DESC,")
    return _WON.format(
        bucketed=bucketed, start=start, end=end, whose=_WHOSE, place=rules.place("s"), won=won, order=order
    )


_DRAWN = """,
    drawn AS (
        SELECT b.source_id, b.value, b.start_at, b.end_at,
               count(*) OVER (PARTITION BY b.source_id) > %(points)s AS crowded
        FROM bucketed b
        JOIN winner w ON w.bucket = b.bucket AND (%(every)s OR w.source_id = b.source_id)
    ),
    reduced_to AS (
        SELECT source_id, value, crowded, end_at,
               CASE WHEN crowded
                    THEN date_bin(make_interval(secs => %(step)s), greatest(start_at, %(start)s), '2000-01-01Z')
                    ELSE start_at END AS start_at
        FROM drawn
    )
    SELECT ARRAY[source_id], extract(epoch FROM start_at)::float8, extract(epoch FROM
               CASE WHEN crowded THEN start_at + make_interval(secs => %(step)s) ELSE ending END)::float8,
           mean, low, high
    FROM (
        SELECT source_id, start_at, crowded, max(end_at) AS ending,
               avg(value) AS mean, min(value) AS low, max(value) AS high
        FROM reduced_to
        GROUP BY source_id, start_at, crowded, CASE WHEN crowded THEN NULL ELSE end_at END
    ) reduced
    ORDER BY start_at, source_id, ending
    """
_WINNERS = {kind: "WITH" + _SAMPLE + _won(kind) for kind in _BUCKETS}
_SETTLED = {kind: found + _DRAWN for kind, found in _WINNERS.items()}
_WINNING = """
    SELECT b.source_id, b.start_at, b.end_at
    FROM bucketed b JOIN winner w ON w.bucket = b.bucket AND w.source_id = b.source_id
    """
_WINNING_BUCKETS = """
    SELECT source_id, bucket, bucket + make_interval(secs => %(bucket)s) FROM winner
    """

# The same for a window that may hold millions of rows: what one source says in one comparison bucket is added up first,
# as the rows come from the key, and the winner is found among those sums. One pass at about a microsecond a row; only
# for the samples of a source that keeps within its points is there a second one. What comes out is the same.
_SLOT = "date_bin(make_interval(secs => %(step)s), greatest(start_at, %(start)s), '2000-01-01Z')"
_TOLD = f"(SELECT *, {_SECONDS} AS bucket, {_SLOT} AS slot FROM each) told"
_REDUCED = (
    f"""WITH
    each AS NOT MATERIALIZED ({_ROWS}),
    sample AS MATERIALIZED (
        SELECT min(start_at) AS start_at, max(end_at) AS end_at, max(revised_at) AS revised_at, source_id,
               avg(value) AS value, slot, count(*) AS samples, sum(value) AS total, min(value) AS low,
               max(value) AS high
        FROM {_TOLD}
        GROUP BY source_id, bucket, slot
    ), {_AROUND}"""
    + _won("seconds")
    + f""",
    drawn AS (
        SELECT b.*, sum(samples) OVER (PARTITION BY b.source_id) > %(points)s AS crowded
        FROM bucketed b
        JOIN winner w ON w.bucket = b.bucket AND (%(every)s OR w.source_id = b.source_id)
    )
    SELECT ARRAY[source_id], extract(epoch FROM slot)::float8 AS starting,
           extract(epoch FROM slot + make_interval(secs => %(step)s))::float8 AS ending,
           sum(total) / sum(samples), min(low), max(high)
    FROM drawn WHERE crowded GROUP BY source_id, slot
    UNION ALL
    SELECT ARRAY[told.source_id], extract(epoch FROM told.start_at)::float8, extract(epoch FROM told.end_at)::float8,
           told.value, told.value, told.value
    FROM drawn JOIN {_TOLD} USING (source_id, bucket, slot)
    WHERE NOT crowded
    ORDER BY 2, 1, 3
    """
)

# Sums by local day: in each quarter of an hour one source counts; a vendor's total of the day competes with what the
# quarters add up to, which goes by the name of the first of their sources.
# With `every`, sources do not compete: each one's own sum or total stands.
_DAYS = (
    "WITH"
    + _SAMPLE
    + f""",
    counted AS (
        SELECT sample.*, device.kind_place, {rules.is_total("sample")} AS total, {_WHOSE}
        FROM sample JOIN device USING (source_id)
    ),
    quarter AS (
        SELECT slot AS start_at, slot + {rules.QUARTER} AS end_at, false AS daily, source_id, kind_place,
               patient_id, metric, sum({rules.share("c", "slot")}) AS value, max(revised_at) AS revised_at
        FROM counted c, LATERAL {rules.quarters("c", "%(start)s", "%(end)s")} slot
        WHERE NOT total AND slot >= %(start)s AND slot < %(end)s
        GROUP BY slot, source_id, kind_place, patient_id, metric
    ),
    chosen AS (
        SELECT DISTINCT ON (start_at, CASE WHEN %(every)s THEN source_id END) *
        FROM (SELECT q.*, {rules.place("q")} AS place FROM quarter q) placed
        ORDER BY start_at, CASE WHEN %(every)s THEN source_id END, {rules.first()}
    ),
    part AS (
        SELECT date_trunc('day', start_at, %(zone)s) AS start_at, source_id, kind_place, false AS total,
               sum(value) AS value, max(revised_at) AS revised_at
        FROM chosen GROUP BY 1, source_id, kind_place
        UNION ALL
        SELECT {rules.day_of("c", "%(zone)s")}, source_id, kind_place, true, max(value), max(revised_at)
        FROM counted c WHERE total GROUP BY 1, source_id, kind_place
    ),
    dated AS (
        SELECT *, date_trunc('day', start_at + interval '30 hours', %(zone)s) AS end_at, true AS daily, {_WHOSE}
        FROM part WHERE start_at >= %(start)s AND start_at < %(end)s
    ),
    candidate AS (
        SELECT start_at, end_at, total, array_agg(source_id ORDER BY source_id) AS sources,
               (array_agg(source_id ORDER BY {rules.first()}))[1] AS source_id, min(place) AS place,
               (array_agg(kind_place ORDER BY {rules.first()}))[1] AS kind_place,
               max(revised_at) AS revised_at, sum(value) AS value
        FROM (SELECT d.*, {rules.place("d")} AS place FROM dated d) placed
        GROUP BY start_at, end_at, total, CASE WHEN %(every)s OR total THEN source_id END
    ),
    bar AS (
        SELECT DISTINCT ON (start_at, CASE WHEN %(every)s THEN source_id END) *
        FROM candidate
        WHERE total OR (start_at, source_id) NOT IN (SELECT start_at, source_id FROM candidate WHERE total)
        ORDER BY start_at, CASE WHEN %(every)s THEN source_id END, {rules.first()}
    )"""
)
_BARS = (
    _DAYS
    + """
    SELECT sources, extract(epoch FROM start_at)::float8, extract(epoch FROM end_at)::float8, value, value, value
    FROM bar ORDER BY start_at, sources
    """
)
_COUNTED = (
    _DAYS
    + """
    SELECT chosen.source_id, chosen.start_at, chosen.end_at
    FROM chosen JOIN bar ON bar.start_at = date_trunc('day', chosen.start_at, %(zone)s) AND NOT bar.total
    UNION ALL
    SELECT source_id, start_at, end_at FROM bar WHERE total
    """
)

_NEWEST = """
    SELECT patient_id, max(ending)
    FROM unnest(%(patients)s::bigint[]) AS patient_id, unnest(%(metrics)s::smallint[]) AS metric,
    LATERAL (
        SELECT s.end_at AS ending FROM biometrics_sample s
        WHERE s.patient_id = patient_id.patient_id AND s.metric = metric.metric AND s.start_at >= %(since)s
        ORDER BY s.start_at DESC LIMIT 1
    ) newest
    GROUP BY 1
    """
