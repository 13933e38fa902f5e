from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0001_initial")]

    # An outbox lives for the second until it is published. Compressing it (pglz) took the store longer than settling
    # all conflicts of its batch.
    operations = [
        migrations.RunSQL(
            "ALTER TABLE webhooks_delivery ALTER COLUMN outbox SET STORAGE EXTERNAL",
            "ALTER TABLE webhooks_delivery ALTER COLUMN outbox SET STORAGE EXTENDED",
        ),
    ]
