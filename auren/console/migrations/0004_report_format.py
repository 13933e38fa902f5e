from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("console", "0003_exports"),
    ]

    operations = [
        migrations.AlterField(
            model_name="export",
            name="format",
            field=models.CharField(
                choices=[("csv", "CSV"), ("fhir", "FHIR R4"), ("pdf", "Report (PDF)")], max_length=16
            ),
        ),
    ]
