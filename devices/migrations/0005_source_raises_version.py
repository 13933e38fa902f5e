from django.db import migrations

# A device's name and kind are drawn, and its kind decides whose line is: a window rendered before must not be served
# after. A trigger, so that no way of changing them can forget it. Timelines are locked in ascending order, as by
# whoever stores.
CREATE = """
CREATE FUNCTION devices_source_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM biometrics_timeline
    WHERE patient_id IN (SELECT l.patient_id FROM changed c JOIN devices_link l ON l.id = c.link_id)
    ORDER BY patient_id FOR UPDATE;
    UPDATE biometrics_timeline SET version = version + 1
    WHERE patient_id IN (SELECT l.patient_id FROM changed c JOIN devices_link l ON l.id = c.link_id);
    RETURN NULL;
END $$;
CREATE TRIGGER source_changed AFTER UPDATE ON biometrics_source
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION devices_source_changed();
"""
DROP = """
DROP TRIGGER source_changed ON biometrics_source;
DROP FUNCTION devices_source_changed();
"""


class Migration(migrations.Migration):
    dependencies = [("devices", "0004_api_key_name"), ("biometrics", "0001_initial")]

    operations = [migrations.RunSQL(CREATE, DROP)]
