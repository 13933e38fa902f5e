"""What was asked for, and what was made of it. The row stays when the file is gone: health data has left by it."""

from datetime import timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models, transaction
from django.db.models.functions import Now

from auren.audit.models import Verb
from auren.audit.trail import record
from auren.biometrics.metrics import BY_NAME, METRICS
from devices.models import Patient


class Export(models.Model):
    """Samples of `patient` that start from `start_at` (included) to `end_at` (not), as a file of `format`.

    `metrics` are names, none for all. A `direct` one is short: nothing is stored, it is read again for each download.
    Any other is made by `manage.py make_exports` and kept in parts until `expires_at`. `size` is the file's,
    `stored_size` what its parts take; `starts` counts how often making it has begun.
    """

    FORMATS: ClassVar = [("csv", "CSV"), ("fhir", "FHIR R4"), ("pdf", "Report (PDF)")]
    STATES: ClassVar = [(state, state) for state in ("waiting", "running", "done", "failed", "cancelled", "expired")]
    UNFINISHED: ClassVar = ("waiting", "running")

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="exports")
    requested_by = models.CharField(max_length=150)
    patient = models.ForeignKey(Patient, models.CASCADE, related_name="exports")
    start_at = models.DateTimeField()
    end_at = models.DateTimeField()
    format = models.CharField(max_length=16, choices=FORMATS)
    metrics = models.JSONField(default=list)
    every_source = models.BooleanField(default=True)
    direct = models.BooleanField(default=False)
    state = models.CharField(max_length=16, choices=STATES, default="waiting")
    samples_total = models.BigIntegerField(null=True)
    samples_done = models.BigIntegerField(default=0)
    entries = models.BigIntegerField(default=0)
    size = models.BigIntegerField(default=0)
    stored_size = models.BigIntegerField(default=0)
    error = models.TextField(blank=True, default="")
    starts = models.SmallIntegerField(default=0)
    lease_token = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    requested_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    downloads = models.IntegerField(default=0)
    downloaded_at = models.DateTimeField(null=True)

    class Meta:
        permissions = [("export_samples", "Can export a patient's samples")]
        indexes = [
            models.Index(fields=["id"], name="export_to_make", condition=models.Q(state__in=["waiting", "running"])),
            models.Index(fields=["expires_at"], name="export_to_expire", condition=models.Q(state="done")),
            models.Index(fields=["patient", "-id"], name="export_of_patient"),
        ]

    def __str__(self) -> str:
        return f"export {self.pk}"

    @property
    def unfinished(self) -> bool:
        return self.state in self.UNFINISHED

    @property
    def percent(self) -> int | None:
        """How far it is; None before it is known how much there is. 100 is for a file that is there."""
        if self.state == "done":
            return 100
        if not self.samples_total:
            return None
        return min(99, 100 * self.samples_done // self.samples_total)

    @property
    def labels(self) -> list[str]:
        return [BY_NAME[name].label for name in self.metrics if name in BY_NAME]

    def cancel(self, *, who: Any) -> bool:
        """Whether there was anything left to cancel. Whoever is making it notices at the next page."""
        with transaction.atomic():
            unfinished = Export.objects.filter(pk=self.pk, state__in=self.UNFINISHED)
            if not unfinished.update(state="cancelled", finished_at=Now(), lease_token=None, lease_until=None):
                return False
            ExportPart.objects.filter(export_id=self.pk).delete()
            record(who, Verb.CANCEL, self)
        return True

    @classmethod
    def unfinished_of(cls, user: User) -> int:
        return cls.objects.filter(user=user, state__in=cls.UNFINISHED).count()


class ExportPart(models.Model):
    """A piece of an export's file. All of them, in order of `offset`, are one gzip stream."""

    export = models.ForeignKey(Export, models.CASCADE, related_name="parts")
    offset = models.BigIntegerField()
    content = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["export", "offset"], name="part_of_export")]

    def __str__(self) -> str:
        return f"export {self.export_id} from byte {self.offset}"


def kept_for() -> timedelta:
    return timedelta(hours=settings.EXPORT_HOURS)


ALL_METRICS = tuple(metric.name for metric in METRICS)
