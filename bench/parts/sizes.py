"""Bytes a row, heap and index, of the tables that hold samples."""

from django.db import connection

SIZES = """
SELECT table_name, sum(pg_relation_size(part)), sum(pg_indexes_size(part))
FROM (VALUES ('biometrics_sample'), ('biometrics_record'), ('biometrics_conflict')) AS named (table_name),
     LATERAL (SELECT table_name::regclass UNION SELECT relid FROM pg_partition_tree(table_name::regclass)) AS own (part)
GROUP BY table_name
ORDER BY table_name DESC
"""


def print_sizes() -> None:
    """Run VACUUM before: free space counts as well."""
    with connection.cursor() as cursor:
        cursor.execute(SIZES)
        sizes = cursor.fetchall()
        for name, heap, index in sizes:
            cursor.execute(f"SELECT count(*) FROM {name}")  # noqa: S608 - one of three names above
            rows = cursor.fetchone()[0]
            if rows:
                print(f"  {name}: {rows:,} rows; a row {heap / rows:.0f} bytes of heap, {index / rows:.0f} of index")
