"""How `biometrics_sample` is cut by time: older data by the year, recent and coming data by the month."""

from collections.abc import Iterator
from datetime import UTC, date, datetime

from django.db import connection

FIRST_YEAR = 2014
MONTHS_BACK = 24
MONTHS_AHEAD = 3


def months_from(start: date, months: int) -> date:
    years, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    return date(years, month + 1, 1)


def wanted(today: date) -> Iterator[tuple[str, str, str]]:
    """Name, lower and upper bound of every partition that should be there on `today`, oldest first."""
    monthly_from = months_from(today, -MONTHS_BACK)
    yield "biometrics_sample_before", "MINVALUE", f"'{FIRST_YEAR}-01-01Z'"
    for year in range(FIRST_YEAR, monthly_from.year + 1):
        start, end = date(year, 1, 1), min(date(year + 1, 1, 1), monthly_from)
        if start < end:
            yield f"biometrics_sample_{year}", f"'{start}Z'", f"'{end}Z'"
    for month in range(MONTHS_BACK + MONTHS_AHEAD + 1):
        start = months_from(monthly_from, month)
        yield f"biometrics_sample_{start:%Y_%m}", f"'{start}Z'", f"'{months_from(start, 1)}Z'"


def create_missing(today: date | None = None) -> list[str]:
    """Create the partitions that are not there yet; returns their names. Safe to run side by side and again.

    What lies behind the newest one was cut when the table was made, so later runs only ever add months ahead.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'biometrics_sample'::regclass"
        )
        newest = max((name for (name,) in cursor.fetchall() if name[-2:].isdigit()), default="")
        missing = [part for part in wanted(today or datetime.now(UTC).date()) if part[0] > newest or not newest]
        for name, low, high in missing:
            cursor.execute(
                f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF biometrics_sample FOR VALUES FROM ({low}) TO ({high})"
            )
    return [name for name, _, _ in missing]
