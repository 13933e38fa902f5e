"""A clinician with one patient: so many days of a heart rate every five seconds, and of everything else at its pace."""

import sys
from datetime import UTC, datetime, timedelta

import django
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

PASSWORD = "only-for-measurements"  # noqa: S105 - of a database that is gone afterwards
PATIENT = 1
Given = dict[str, int | datetime]
# Metric, seconds between two of its samples, how long each lasts, and its value as SQL of the sample's number `n`.
PACES = (
    ("heart_rate", 5, 0, "60 + 30 * abs(sin(n / 700.0)) + n %% 7"),
    ("hrv_rmssd", 300, 0, "45 + 20 * sin(n / 40.0) + n %% 9"),
    ("spo2", 300, 0, "96 + n %% 4"),
    ("respiratory_rate", 300, 0, "14 + n %% 3"),
    ("sleep_stage", 1200, 1200, "1 + n %% 4"),
    ("steps", 900, 900, "n %% 400"),
    ("active_energy", 900, 900, "n %% 60"),
    ("resting_heart_rate", 86_400, 28_800, "50 + n %% 6"),
    ("oura_readiness_score", 86_400, 86_400, "70 + n %% 25"),
    ("oura_sleep_score", 86_400, 86_400, "65 + n %% 30"),
)
FILL = """
INSERT INTO biometrics_sample (patient_id, metric, start_at, end_at, source_id, record, value, revised_at, delivery_id)
SELECT 1, %(metric)s, at, at + make_interval(secs => %(lasts)s), 1,
       '00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'), {value}, at + interval '1 hour', n / 1000
FROM generate_series(0, %(rows)s - 1) AS n,
     LATERAL (SELECT %(start)s + n * make_interval(secs => %(step)s) AS at) AS moment
"""


def people() -> None:
    from auren.biometrics.models import Source  # noqa: PLC0415 - once Django is set up
    from auren.console import roles  # noqa: PLC0415
    from devices.models import Assignment, Link, Patient  # noqa: PLC0415

    clara = User.objects.create_user("clara", password=PASSWORD)
    roles.give(clara, "clinician")
    patient = Patient.objects.create(pk=PATIENT, external_id="user_1", display_name="Ada", timezone="Europe/Berlin")
    Assignment.objects.create(clinician=clara, patient=patient, since=timezone.now() - timedelta(days=1))
    Link.objects.create(pk=1, patient=patient, vendor="healthkit", vendor_user_id="user_1")
    Source.objects.create(pk=1, link_id=1, name="Apple Watch", kind="watch")


def samples(days: int) -> None:
    from auren.biometrics.metrics import BY_NAME  # noqa: PLC0415

    start_at = datetime.now(UTC) - timedelta(days=days)
    with connection.cursor() as cursor:
        for name, step, lasts, value in PACES:
            rows = days * 86_400 // step
            number = BY_NAME[name].number
            given: Given = {"metric": number, "step": step, "lasts": lasts, "rows": rows, "start": start_at}
            cursor.execute(FILL.format(value=value), given)
        cursor.execute("VACUUM ANALYZE biometrics_sample")


if __name__ == "__main__":
    django.setup()
    people()
    samples(int(sys.argv[1]))
