"""How `biometrics_sample` is cut by time: older data by the year, recent and coming data by the month.

A year before the retention goes as whole partitions, with what else spoke of it. What belongs to no partition lies
in the default one, which is to stay empty: it would have to be searched by every read and before every new month.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime

from django.conf import settings
from django.db import connection, transaction

FIRST_YEAR = 2014
MONTHS_BACK = 24
MONTHS_AHEAD = 3
LOCK_TIMEOUT = "5s"  # whoever waits for the table has everybody else wait behind it
COUNTED = 100_000  # rows of the default partition; beyond, there are too many whatever their number
SLICE = 10_000  # rows forgotten in one transaction

PARTITIONS = """
SELECT relname, (regexp_match(bounds, 'FROM \\(''(.+?)''\\)'))[1]::timestamptz,
       (regexp_match(bounds, 'TO \\(''(.+?)''\\)'))[1]::timestamptz
FROM pg_inherits
JOIN pg_class ON pg_class.oid = inhrelid,
LATERAL pg_get_expr(relpartbound, pg_class.oid) AS bounds
WHERE inhparent = 'biometrics_sample'::regclass AND bounds <> 'DEFAULT'
ORDER BY 3
"""
# Attached rather than made as a partition: so nobody who reads or writes other months is waited for, nor waits. What
# lies in the default partition meanwhile comes along, or it could not be attached.
CREATE = """
CREATE TABLE {name} (LIKE biometrics_sample INCLUDING DEFAULTS INCLUDING INDEXES);
LOCK TABLE biometrics_sample_default IN ACCESS EXCLUSIVE MODE;
WITH moved AS (
    DELETE FROM biometrics_sample_default WHERE start_at >= '{since}' AND start_at < '{end}' RETURNING *
)
INSERT INTO {name} SELECT * FROM moved;
ALTER TABLE biometrics_sample ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ('{end}');
"""
DROP = "ALTER TABLE biometrics_sample DETACH PARTITION {name}; DROP TABLE {name}"
STRAY_MONTHS = "SELECT DISTINCT date_trunc('month', start_at, 'UTC') FROM biometrics_sample_default ORDER BY 1"
STRAYS = f"SELECT count(*) FROM (SELECT FROM biometrics_sample_default LIMIT {COUNTED}) AS stray"  # noqa: S608

# Which revision stood of a record, and that one was withdrawn, matters while a sample of it may still come: what ended
# before the horizon is refused from now on.
FORGET_RECORDS = """
WITH slice AS (
    SELECT patient_id, link_id, record FROM biometrics_record
    WHERE (patient_id, link_id, record) > (%(patient)s, %(link)s, %(record)s)
    ORDER BY patient_id, link_id, record LIMIT %(slice)s
), gone AS (
    DELETE FROM biometrics_record r USING slice s
    WHERE (r.patient_id, r.link_id, r.record) = (s.patient_id, s.link_id, s.record)
      AND coalesce(r.end_at, r.withdrawn_at) < %(horizon)s
    RETURNING 1
)
SELECT patient_id, link_id, record, (SELECT count(*) FROM gone)
FROM slice ORDER BY patient_id DESC, link_id DESC, record DESC LIMIT 1
"""
FORGET_CONFLICTS = """
DELETE FROM biometrics_conflict WHERE id IN (
    SELECT id FROM biometrics_conflict WHERE end_at <= %(horizon)s LIMIT %(slice)s
)
"""


@dataclass(frozen=True)
class Part:
    """A partition from `start` (None: from the beginning) to `end`, which it does not include."""

    name: str
    start: date | None
    end: date

    def overlaps(self, other: "Part") -> bool:
        return (self.start or date.min) < other.end and (other.start or date.min) < self.end


def months_from(start: date, months: int) -> date:
    years, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    return date(years, month + 1, 1)


def month_part(start: date) -> Part:
    return Part(f"biometrics_sample_{start:%Y_%m}", start, months_from(start, 1))


def wanted(today: date) -> Iterator[Part]:
    """Every partition that should be there on `today`, oldest first."""
    monthly_from = months_from(today, -MONTHS_BACK)
    yield Part("biometrics_sample_before", None, date(FIRST_YEAR, 1, 1))
    for year in range(FIRST_YEAR, monthly_from.year + 1):
        start, end = date(year, 1, 1), min(date(year + 1, 1, 1), monthly_from)
        if start < end:
            yield Part(f"biometrics_sample_{year}", start, end)
    for month in range(MONTHS_BACK + MONTHS_AHEAD + 1):
        yield month_part(months_from(monthly_from, month))


def horizon(today: date) -> date | None:
    """The day from which on samples are kept: SAMPLE_RETENTION_YEARS whole years before this one. None: for ever.

    A year's first day is the border of a partition, whether the year is one or twelve: so what is dropped and what is
    refused when it comes late are the same.
    """
    years = settings.SAMPLE_RETENTION_YEARS
    return date(max(today.year - years, 1), 1, 1) if years else None


def existing() -> list[Part]:
    """The partitions there are, oldest first, without the default one."""
    with connection.cursor() as cursor:
        cursor.execute(PARTITIONS)
        return [Part(name, start and day_of(start), day_of(end)) for name, start, end in cursor.fetchall()]


def day_of(at: datetime) -> date:
    return at.astimezone(UTC).date()


def create_missing(today: date | None = None) -> list[str]:
    """Create what is wanted, not there yet, and not past the retention; returns the names. Safe to run again.

    Years that lie behind are twelve months from when they were recent: what is covered already is not missing.
    """
    today = today or datetime.now(UTC).date()
    first, there = horizon(today) or date.min, existing()
    missing = [part for part in wanted(today) if part.end > first and not any(part.overlaps(other) for other in there)]
    for part in missing:
        _create(part)
    return [part.name for part in missing]


def stray_samples() -> int:
    """How many samples lie in the default partition, up to `COUNTED`."""
    with connection.cursor() as cursor:
        cursor.execute(STRAYS)
        return int(cursor.fetchone()[0])


def empty_default() -> list[str]:
    """Give the samples in the default partition a partition for each of their months; returns the names."""
    with connection.cursor() as cursor:
        cursor.execute(STRAY_MONTHS)
        parts = [month_part(day_of(month)) for (month,) in cursor.fetchall()]
    for part in parts:
        _create(part)
    return [part.name for part in parts]


def drop_expired(today: date | None = None) -> list[str]:
    """Drop the partitions that end before the retention; returns their names.

    Raises `OperationalError` when a partition could not be had within `LOCK_TIMEOUT`: the rest waits for another time.
    """
    first = horizon(today or datetime.now(UTC).date())
    expired = [part.name for part in existing() if first is not None and part.end <= first]
    for name in expired:
        _alter(DROP.format(name=name))
    return expired


def _create(part: Part) -> None:
    low, since = (f"'{part.start}Z'", f"{part.start}Z") if part.start else ("MINVALUE", "-infinity")
    _alter(CREATE.format(name=part.name, since=since, low=low, end=f"{part.end}Z"))


def _alter(statements: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        cursor.execute(statements)


class Forgetting:
    """Records and conflicts of samples that are gone with their partitions: all of them once, in slices.

    They have no partitions of their own: records are looked through in the order of their key.
    """

    BEGINNING = (0, 0, "")

    def __init__(self) -> None:
        self._done_until: date | None = None
        self._since = self.BEGINNING

    def forget_some(self, today: date | None = None) -> tuple[int, bool]:
        """Forget what one slice holds; how many rows that were, and whether there is more to look through."""
        first = horizon(today or datetime.now(UTC).date())
        if first is None or first == self._done_until:
            return 0, False
        patient, link, record = self._since
        names: dict[str, int | str] = {"patient": patient, "link": link, "record": record}
        names |= {"slice": SLICE, "horizon": f"{first}Z"}
        with connection.cursor() as cursor:
            cursor.execute(FORGET_CONFLICTS, names)
            count = cursor.rowcount
            cursor.execute(FORGET_RECORDS, names)
            last = cursor.fetchone()
        if last is None and not count:
            self._done_until, self._since = first, self.BEGINNING
            return 0, False
        self._since = last[:3] if last else self._since
        return count + (last[3] if last else 0), True
