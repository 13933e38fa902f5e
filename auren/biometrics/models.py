"""What a sample is, and what the timeline is made of. Patients, links and deliveries are numbers here."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class Source(models.Model):
    """One device under one link: the watch and the phone of one HealthKit link are two sources."""

    KINDS = [(kind, kind) for kind in ("ring", "band", "watch", "phone", "scale", "cuff", "meter", "other")]

    link_id = models.BigIntegerField()
    name = models.CharField(max_length=255)
    kind = models.CharField(max_length=16, choices=KINDS, default="other")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["link_id", "name"], name="source_of_link")]

    def __str__(self) -> str:
        return self.name


class Timeline(models.Model):
    """One row a patient, locked by whoever stores. `version` grows by one with every store that changed something."""

    patient_id = models.BigIntegerField(primary_key=True)
    version = models.BigIntegerField(db_default=0)

    def __str__(self) -> str:
        return f"patient {self.patient_id}, version {self.version}"


class Record(models.Model):
    """Which revision of a vendor's document or sample stands, where its samples lie, and whether it was withdrawn."""

    pk = models.CompositePrimaryKey("patient_id", "link_id", "record")
    patient_id = models.BigIntegerField()
    link_id = models.BigIntegerField()
    record = models.TextField()
    revised_at = models.DateTimeField()
    withdrawn_at = models.DateTimeField(null=True)
    start_at = models.DateTimeField(null=True)
    end_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.record


class Sample(models.Model):
    """One value of one metric of one patient, from one source, out of one record.

    The table is range-partitioned by `start_at` and its key is (patient_id, metric, start_at, source_id, record).
    `id` is the key in Django's state only: Django 5.2's admin refuses composite ones. `metric` is the catalogue's
    number, `value` is in the catalogue's unit.
    """

    id = models.BigAutoField(primary_key=True)
    patient_id = models.BigIntegerField()
    metric = models.SmallIntegerField()
    start_at = models.DateTimeField()
    end_at = models.DateTimeField()
    source = models.ForeignKey(Source, models.DO_NOTHING, db_constraint=False, db_index=False)
    record = models.TextField()
    value = models.FloatField()
    revised_at = models.DateTimeField()
    utc_offset_minutes = models.SmallIntegerField(null=True)
    delivery_id = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.metric} {self.value:g} at {self.start_at:%Y-%m-%d %H:%M}"


class Preference(models.Model):
    """What a person decided about a patient's devices: `sources` in their order, the first one counts.

    `scope` says about what: a `moment` (one metric from `since` to `until`), a `metric` from `since` on, or all of a
    `patient`. Of one scope the newest decision comes first; where its devices say nothing, the one before it decides.
    Rows are never removed while the patient is there: one that was undone says by whom and why.
    """

    SCOPES = [(scope, scope) for scope in ("moment", "metric", "patient")]

    patient_id = models.BigIntegerField()
    scope = models.CharField(max_length=16, choices=SCOPES)
    metric = models.SmallIntegerField(null=True)
    since = models.DateTimeField(null=True)
    until = models.DateTimeField(null=True)
    daily = models.BooleanField(null=True)
    sources = ArrayField(models.BigIntegerField())
    made_by = models.CharField(max_length=150)
    note = models.TextField()
    made_at = models.DateTimeField(db_default=Now())
    undone_by = models.CharField(max_length=150, blank=True, db_default="")
    undone_note = models.TextField(blank=True, db_default="")
    undone_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.made_by}'s decision of {self.made_at:%Y-%m-%d} for patient {self.patient_id}"


class Conflict(models.Model):
    """Two or more sources that speak about one metric in one comparison bucket and differ beyond its tolerance.

    `values` maps a source's id to what it says, in the metric's unit. `rule` is what decided: `person`,
    `patient_order`, `metric_order` or `recency`; where it was a person, `preference` is the decision, `resolved_by`
    and `note` are from there. `daily` is a vendor's total of a day against the sum of its quarters of an hour, which
    may be in conflict themselves.
    """

    STATES = [(state, state) for state in ("settled", "overridden", "open")]

    patient_id = models.BigIntegerField()
    metric = models.SmallIntegerField()
    start_at = models.DateTimeField()
    end_at = models.DateTimeField()
    daily = models.BooleanField(db_default=False, default=False)
    values = models.JSONField()
    winner = models.ForeignKey(Source, models.DO_NOTHING, db_constraint=False, db_index=False)
    rule = models.CharField(max_length=16)
    state = models.CharField(max_length=16, choices=STATES)
    preference = models.ForeignKey(Preference, models.DO_NOTHING, null=True, db_constraint=False, db_index=False)
    resolved_by = models.CharField(max_length=150, blank=True, db_default="")
    note = models.TextField(blank=True, db_default="")
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["patient_id", "metric", "start_at", "daily"], name="conflict_of_bucket"),
        ]
        # For lists of all patients' conflicts, the newest moment first. Settled by the metric's order are nearly all.
        indexes = [
            models.Index(fields=["-start_at", "-id"], name="conflict_by_time"),
            models.Index(fields=["metric", "-start_at", "-id"], name="conflict_by_metric"),
            models.Index(
                fields=["state", "-start_at", "-id"],
                name="conflict_by_state",
                condition=models.Q(state__in=["open", "overridden"]),
            ),
            models.Index(
                fields=["-start_at", "-id"], name="conflict_by_order", condition=models.Q(rule="patient_order")
            ),
        ]
        permissions = [("override_conflict", "Can decide which device counts in a conflict, and take it back")]

    def __str__(self) -> str:
        return f"patient {self.patient_id}, metric {self.metric} at {self.start_at:%Y-%m-%d %H:%M}"
