import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

# patient_id first, as in every key that Citus could distribute by, and the way the settling asks.
PATIENT_FIRST = """
ALTER TABLE biometrics_preference
    DROP CONSTRAINT biometrics_preference_pkey,
    ADD CONSTRAINT biometrics_preference_pkey PRIMARY KEY (patient_id, id)
"""
AS_DJANGO_HAS_IT = """
ALTER TABLE biometrics_preference
    DROP CONSTRAINT biometrics_preference_pkey,
    ADD CONSTRAINT biometrics_preference_pkey PRIMARY KEY (id)
"""


class Migration(migrations.Migration):
    dependencies = [
        ("biometrics", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Preference",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("patient_id", models.BigIntegerField()),
                (
                    "scope",
                    models.CharField(
                        choices=[("moment", "moment"), ("metric", "metric"), ("patient", "patient")], max_length=16
                    ),
                ),
                ("metric", models.SmallIntegerField(null=True)),
                ("since", models.DateTimeField(null=True)),
                ("until", models.DateTimeField(null=True)),
                ("daily", models.BooleanField(null=True)),
                ("sources", django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), size=None)),
                ("made_by", models.CharField(max_length=150)),
                ("note", models.TextField()),
                ("made_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("undone_by", models.CharField(blank=True, db_default="", max_length=150)),
                ("undone_note", models.TextField(blank=True, db_default="")),
                ("undone_at", models.DateTimeField(null=True)),
            ],
        ),
        migrations.RunSQL(PATIENT_FIRST, AS_DJANGO_HAS_IT),
        migrations.AddField(
            model_name="conflict",
            name="preference",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                to="biometrics.preference",
            ),
        ),
    ]
