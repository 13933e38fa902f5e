"""What conflicts and the timeline both go by, as SQL: who comes first, which day a value is of, how a count spreads.

The two read it from here, so that the line drawn is the winner's, also where devices agree and there is no conflict.
A fragment speaks of a row by the name it is given; what columns the row must have stands with it.
"""
# ruff: noqa: S608 - fragments are put together from constants and names of this project's own statements

NOWHERE = 1_000  # the place of a source that a decision or an order does not name

# What people have decided for `%(patients)s` and not undone. Within it a narrower decision comes before a wider one,
# and of two alike the newer one: `rank` and then `id`, downwards.
PREFERENCE = """
preference AS MATERIALIZED (
    SELECT id, patient_id, scope, metric, daily, sources, made_by, note,
           coalesce(since, '-infinity') AS since, coalesce(until, 'infinity') AS until,
           array_position(ARRAY['moment', 'metric', 'patient'], scope::text) AS rank
    FROM biometrics_preference
    WHERE patient_id = ANY(%(patients)s::bigint[]) AND undone_at IS NULL
)
"""
# Of a sum or a mean that was stored twice at one time by one source, the newest revision counts.
TWICE = "start_at, source_id, end_at"
NEWEST = f"{TWICE}, revised_at DESC, record"


def concerns(row: str) -> str:
    """Whether `preference p` speaks about the bucket of `row`: its patient_id, metric, start_at, end_at and daily."""
    return f"""
        p.patient_id = {row}.patient_id AND (p.metric IS NULL OR p.metric = {row}.metric)
        AND p.since < {row}.end_at AND p.until > {row}.start_at AND (p.daily IS NULL OR p.daily = {row}.daily)"""


def place(row: str) -> str:
    """Where `row`'s source_id stands in each decision about its bucket: the lowest array of a bucket comes first.

    Nearly no patient has any, and then nothing is looked up.
    """
    return f"""
        CASE WHEN EXISTS (SELECT FROM preference) THEN ARRAY(
            SELECT coalesce(array_position(p.sources, {row}.source_id), {NOWHERE})
            FROM preference p WHERE {concerns(row)}
            ORDER BY p.rank, p.id DESC
        ) ELSE '{{}}' END"""


def kind_place(order: str, source: str) -> str:
    """Where the kind of `source` stands in the metric's `order`, an array of kinds: an unknown one comes last."""
    return f"coalesce(array_position({order}, {source}.kind::text), {NOWHERE})"


def first(*, among: str = "") -> str:
    """The order of sources within a bucket, by their place, the place of their kind, revision and number.

    `among` goes before the metric's order of kinds.
    """
    return f"place, {among} kind_place, revised_at DESC, source_id"


def day_of(row: str, zone: str) -> str:
    """The local midnight of the day that `row` counts for: where it ends, or is twelve hours old, whatever is earlier.

    A night counts for the day it ends on, what runs from midnight to midnight for that day, and a day that begins
    when somebody falls asleep for the one they are awake in.
    """
    end = f"least({row}.end_at - interval '1 microsecond', {row}.start_at + interval '12 hours')"
    return f"date_trunc('day', greatest({row}.start_at, {end}), {zone})"


def is_total(row: str) -> str:
    """Whether `row` is a count over a day, however long the day was: it is no part of a quarter of an hour."""
    return f"({row}.end_at - {row}.start_at BETWEEN interval '23 hours' AND interval '25 hours')"


QUARTER = "interval '15 minutes'"


def quarters(row: str, start: str, end: str) -> str:
    """The quarters of an hour, by their start, that `row` reaches into between `start` and `end`."""
    last = f"greatest({row}.start_at, least({row}.end_at, {end}) - interval '1 microsecond')"
    return f"generate_series(date_bin({QUARTER}, greatest({row}.start_at, {start}), 'epoch'), {last}, {QUARTER})"


def share(row: str, quarter: str) -> str:
    """What falls to the `quarter` of `row`'s value, which is spread evenly over its time."""
    within = f"least({row}.end_at, {quarter} + {QUARTER}) - greatest({row}.start_at, {quarter})"
    return f"""{row}.value * CASE WHEN {row}.end_at = {row}.start_at THEN 1 ELSE
        extract(epoch FROM {within}) / extract(epoch FROM {row}.end_at - {row}.start_at) END"""
