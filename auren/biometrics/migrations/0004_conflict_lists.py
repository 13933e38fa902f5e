from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # built while workers go on settling

    dependencies = [
        ("biometrics", "0003_override_right"),
    ]

    operations = [
        AddIndexConcurrently("conflict", models.Index(fields=["-start_at", "-id"], name="conflict_by_time")),
        AddIndexConcurrently(
            "conflict", models.Index(fields=["metric", "-start_at", "-id"], name="conflict_by_metric")
        ),
        AddIndexConcurrently(
            "conflict",
            models.Index(
                fields=["state", "-start_at", "-id"],
                name="conflict_by_state",
                condition=models.Q(state__in=["open", "overridden"]),
            ),
        ),
        AddIndexConcurrently(
            "conflict",
            models.Index(
                fields=["-start_at", "-id"], name="conflict_by_order", condition=models.Q(rule="patient_order")
            ),
        ),
    ]
