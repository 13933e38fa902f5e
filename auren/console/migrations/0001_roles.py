from django.db import migrations


def create_groups(apps, schema_editor):
    """The groups alone: permissions are made after migrating, and auren/console/roles.py hands them out then."""
    group = apps.get_model("auth", "Group")
    for name in ("support", "admin", "clinician"):
        group.objects.using(schema_editor.connection.alias).get_or_create(name=name)


class Migration(migrations.Migration):
    initial = True

    dependencies = [("auth", "0012_alter_user_first_name_max_length")]

    operations = [migrations.RunPython(create_groups, migrations.RunPython.noop)]
