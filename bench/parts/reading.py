"""One day of heart rate out of a year of one every five seconds, from PostgreSQL to JSON: alone, and among others.

The rows are made month by month in a table that becomes a partition when its key is built: the way PostgreSQL's
manual loads much at once, and the same table in the end.
"""

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from django.db import connection, transaction

from auren.biometrics import timeline, windows
from auren.biometrics.metrics import BY_NAME
from auren.biometrics.models import Source
from auren.biometrics.partitions import months_from
from auren.console import lanes
from bench.parts.sizes import print_sizes
from bench.parts.telling import add_into, tell

HEART_RATE = BY_NAME["heart_rate"]
LANE = next(lane for lane in lanes.LANES if HEART_RATE in lane.metrics)
STEP_SECONDS = 5
YEAR_ROWS = 365 * 86_400 // STEP_SECONDS
DAYS = 20
LOADERS = 2  # filling partitions at once
MILLION = 1_000_000
PATIENT = 1_000_000  # the one whose day is read; the others follow

CREATE = "CREATE TABLE {name}_new (LIKE biometrics_sample INCLUDING DEFAULTS)"
# One row in STEP_SECONDS of everybody. The record is as long as a phone's uuid.
FILL = """
INSERT INTO {name}_new (patient_id, metric, start_at, end_at, source_id, record, value, revised_at, utc_offset_minutes,
                    delivery_id)
SELECT patient, %(metric)s, at, at, patient, '00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'),
       60 + abs(n %% 960 - 480) / 12 + n %% 7, at + interval '1 hour', 60, n / 1000
FROM generate_series(%(first)s, %(last)s) AS patient,
     generate_series(0, %(rows)s - 1) AS n,
     LATERAL (SELECT %(start)s::timestamptz + n * make_interval(secs => %(step)s) AS at OFFSET 0) AS moment
"""
KEY = "ALTER TABLE {name}_new ADD PRIMARY KEY (patient_id, metric, start_at, source_id, record)"
ATTACH = """
DROP TABLE {name};
ALTER TABLE {name}_new RENAME TO {name};
ALTER TABLE biometrics_sample ATTACH PARTITION {name} FOR VALUES FROM ('{start}Z') TO ('{end}Z')
"""


def months(today: date) -> list[date]:
    """The twelve whole months before this one, oldest first."""
    return [months_from(today, back - 12) for back in range(12)]


def fill(month: date, patients: int) -> None:
    following = months_from(month, 1)
    names = {"name": f"biometrics_sample_{month:%Y_%m}", "start": month, "end": following}
    rows = (following - month).days * 86_400 // STEP_SECONDS
    given = {"metric": HEART_RATE.number, "first": PATIENT, "last": PATIENT + patients - 1, "rows": rows}
    start_at = datetime(month.year, month.month, 1, tzinfo=UTC)
    with connection.cursor() as cursor:
        cursor.execute("SET maintenance_work_mem = '512MB'")
        with transaction.atomic():
            cursor.execute(CREATE.format(**names))
            cursor.execute(FILL.format(**names), given | {"start": start_at, "step": STEP_SECONDS})
            cursor.execute(KEY.format(**names))
        cursor.execute(ATTACH.format(**names))
    connection.close()


def load(patients: int) -> None:
    """A year of everybody, by the month."""
    started = time.monotonic()
    with ThreadPoolExecutor(LOADERS) as loaders:
        for filled in [loaders.submit(fill, month, patients) for month in months(datetime.now(UTC).date())]:
            filled.result()
    print(f"  {patients} people loaded in {time.monotonic() - started:.0f} s", flush=True)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE biometrics_sample")


def read_day(day: datetime) -> float:
    """Milliseconds from the question to the JSON that the page draws; without Redis, so nothing is kept."""
    started = time.perf_counter()
    window = timeline.Window(PATIENT, day, day + timedelta(days=1), ZoneInfo("Europe/Berlin"))
    found = windows.rendered(window.aligned(), LANE.metrics, lanes.as_bytes).body or b""
    taken = (time.perf_counter() - started) * 1000
    assert len(found) > 10_000, f"an empty day: {found!r:.200}"
    return taken


def measure(label: str) -> list[float]:
    """Milliseconds of each day that was read for the first time."""
    months_of = months(datetime.now(UTC).date())
    days = [
        datetime(month.year, month.month, 3 + number * 11, tzinfo=UTC) for month in months_of for number in range(2)
    ][:DAYS]
    read = {what: [read_day(day) for day in days] for what in ("read for the first time", "read again")}
    for what, times in read.items():
        middle, worst = statistics.median(times), max(times)
        print(f"  {label}: {DAYS} days of the year, {what}: median {middle:.0f} ms, worst {worst:.0f} ms", flush=True)
    return read["read for the first time"]


def parsed(part: str, description: str) -> tuple[int, Path | None]:
    """Rows of other people, and the file for the figures."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.parts.{part}", description=description)
    parser.add_argument("others", type=int, nargs="?", default=10, metavar="MILLIONS", help="rows of others (10)")
    add_into(parser)
    options = parser.parse_args()
    return options.others * MILLION, options.into


def main() -> None:
    others, into = parsed("reading", __doc__)
    figures = {}
    Source.objects.create(pk=PATIENT, link_id=1, name="Apple Watch", kind="watch")
    for name, patients in (("alone", 1), ("among others", 1 + -(-others // YEAR_ROWS))):
        load(patients)
        figures[name] = measure(f"{YEAR_ROWS:,} rows of one, {(patients - 1) * YEAR_ROWS:,} of {patients - 1} others")
    print_sizes()
    tell(into, figures)


if __name__ == "__main__":
    main()
