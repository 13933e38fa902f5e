from django.db import migrations

# A statement trigger, so that TRUNCATE is refused like the others, and a statement that would touch no row as well.
FINAL = """
CREATE FUNCTION audit_entry_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is only added to: % of audit_entry is refused', TG_OP
        USING ERRCODE = 'insufficient_privilege', HINT = 'docs/operations.md says how long it is kept.';
END $$;
CREATE TRIGGER audit_entry_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry
    FOR EACH STATEMENT EXECUTE FUNCTION audit_entry_is_final();
"""
UNDONE = """
DROP TRIGGER audit_entry_is_final ON audit_entry;
DROP FUNCTION audit_entry_is_final();
"""


class Migration(migrations.Migration):
    dependencies = [("audit", "0001_trail")]

    operations = [migrations.RunSQL(FINAL, UNDONE)]
