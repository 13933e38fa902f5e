"""How fast is a long export, and how much memory does it take? 1,000,000 heart rates of one patient, as CSV and FHIR.

Everything is real: PostgreSQL with fsync, `manage.py make_exports` in a process of its own whose peak memory the kernel
tells. Two devices speak: a watch every 5 seconds and a ring every 45, so every five minutes have a winner.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from auren.embedded.postgres import Postgres
from auren.embedded.server import BASE_DIR, free_port

SAMPLES = int(os.environ.get("SAMPLES", "1000000"))
START = datetime(2026, 1, 1, tzinfo=UTC)
PEOPLE = """
INSERT INTO devices_patient (id, external_id, display_name) VALUES (1, 'user_1', 'Ada');
INSERT INTO devices_link (id, patient_id, vendor, vendor_user_id) VALUES (1, 1, 'healthkit', 'user_1');
INSERT INTO biometrics_source (id, link_id, name, kind) VALUES (1, 1, 'Apple Watch', 'watch'), (2, 1, 'Ring', 'ring');
"""
FILL = """
INSERT INTO biometrics_sample (patient_id, metric, start_at, end_at, source_id, record, value, revised_at, delivery_id)
SELECT 1, 1, at, at, %(source)s, gen_random_uuid()::text, 50 + (n %% 90), at + interval '1 hour', n / 1000
FROM generate_series(0, %(count)s - 1) AS n, LATERAL (SELECT %(start)s + n * %(every)s AS at) AS moment
"""
ASK = """
INSERT INTO console_export (requested_by, patient_id, start_at, end_at, format, metrics, every_source, direct, state,
                            samples_done, entries, size, stored_size, error, starts, downloads)
VALUES ('bench', 1, %s, %s, %s, '["heart_rate"]', true, false, 'waiting', 0, 0, 0, 0, '', 0, 0)
"""
MADE = "SELECT state, entries, size, stored_size FROM console_export ORDER BY id DESC LIMIT 1"


def main() -> None:
    # An ordinary user, which PostgreSQL runs as, passes through.
    with tempfile.TemporaryDirectory(prefix="auren-bench-") as folder:
        Path(folder).chmod(0o711)
        with Postgres(Path(folder), "only-for-the-bench", port=free_port()) as server:
            environment = {**os.environ, "AUREN_SANDBOX": "1", "AUREN_VAR": folder, "DATABASE_URL": server.url}
            environment |= {"REDIS_URL": "", "AUREN_ENV_FILE": os.devnull, "SECRET_KEY": "x" * 50}
            run(environment, "migrate", "--verbosity", "0")
            fill(server.url)
            for kind in ("csv", "fhir"):
                print(json.dumps({"format": kind, **measure(server.url, environment, kind)}))


def fill(url: str) -> None:
    """Nine samples of the watch to one of the ring."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(PEOPLE)
        for source, every, count in ((1, 5, SAMPLES * 9 // 10), (2, 45, SAMPLES // 10)):
            of = {"source": source, "every": timedelta(seconds=every), "count": count, "start": START}
            connection.execute(FILL, of)
        connection.execute("VACUUM ANALYZE biometrics_sample")


def measure(url: str, environment: dict[str, str], kind: str) -> dict[str, float | str]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(ASK, [START, START + timedelta(days=366), kind])
        began_at = time.monotonic()
        peak_kib = run(environment, "make_exports", "--until-idle")
        seconds = time.monotonic() - began_at
        row = connection.execute(MADE).fetchone()
    assert row is not None
    state, entries, size, stored = row
    return {
        "state": state,
        "entries": entries,
        "seconds": round(seconds, 1),
        "entries/s": round(entries / seconds),
        "peak MiB": round(peak_kib / 1024),
        "file MiB": round(size / 2**20),
        "stored MiB": round(stored / 2**20),
    }


def run(environment: dict[str, str], *arguments: str) -> int:
    """A command to its end; returns its peak memory in KiB."""
    process = subprocess.Popen([sys.executable, str(BASE_DIR / "manage.py"), *arguments], env=environment)  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments[0]} failed")
    return usage.ru_maxrss


if __name__ == "__main__":
    main()
