"""Who did and who saw what, for good: rows are added, and PostgreSQL refuses everything else (`0002_final.py`)."""

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Verb(models.TextChoices):
    VIEW = "view", "looked at"
    DOWNLOAD = "download", "downloaded"
    WATCH = "watch", "followed live"
    EXPORT = "export", "asked for an export of"
    CANCEL = "cancel", "cancelled"
    ADD = "add", "added"
    CHANGE = "change", "changed"
    DELETE = "delete", "deleted"
    ERASE = "erase", "erased"
    RETRY = "retry", "tried again"
    RETRY_ALL = "retry-all", "tried all again like"
    STOP = "stop", "stopped"
    IGNORE = "ignore", "ignored"
    LINK = "link", "linked to a patient"
    INVITE = "invite", "invited"
    WITHDRAW = "withdraw", "withdrew"
    SYNC = "sync", "synced"
    BACKFILL = "backfill", "fetched history of"
    PAUSE = "pause", "paused"
    RESUME = "resume", "resumed"
    DISCONNECT = "disconnect", "disconnected"
    CHECK = "check", "had checked"
    OVERRIDE = "override", "decided"
    UNDO = "undo", "took back the decision of"
    ISSUE = "issue", "issued"
    REPLACE = "replace", "replaced"
    REVOKE = "revoke", "revoked"
    ROTATE = "rotate", "sealed anew"
    SIGN_IN = "sign-in", "signed in"
    SIGN_IN_FAILED = "sign-in-failed", "failed to sign in"
    LOCKED_OUT = "locked-out", "was kept waiting at the sign-in"
    CODE_FAILED = "code-failed", "gave a wrong code"
    SIGN_OUT = "sign-out", "signed out"
    PASSWORD = "password", "changed the password of"
    SECOND_FACTOR = "second-factor", "set up a second factor"
    RECOVERY_CODES = "recovery-codes", "made new recovery codes"
    RECOVERY_CODE = "recovery-code", "used a recovery code"
    RESET = "reset-second-factor", "reset the second factor of"
    UNLOCK = "unlock", "unlocked"


LOOKS = frozenset({Verb.VIEW, Verb.DOWNLOAD, Verb.WATCH, Verb.EXPORT})
SIGNING_IN = frozenset(
    {
        *(Verb.SIGN_IN, Verb.SIGN_IN_FAILED, Verb.LOCKED_OUT, Verb.CODE_FAILED, Verb.SIGN_OUT, Verb.PASSWORD),
        *(Verb.SECOND_FACTOR, Verb.RECOVERY_CODES, Verb.RECOVERY_CODE, Verb.RESET, Verb.UNLOCK),
    }
)


class Entry(models.Model):
    """One thing that a person, or a program with a person's token, did or saw.

    People, patients and things are numbers and names of accounts, never foreign keys: what is deleted or erased leaves
    its trail. No value, body, secret or patient's name is ever in here.
    """

    VIAS = [(via, via) for via in ("session", "token", "command", "nobody")]
    RESULTS = [(result, result) for result in ("done", "refused")]

    at = models.DateTimeField(db_default=Now())
    user_id = models.BigIntegerField(null=True)
    username = models.CharField(max_length=150, blank=True)
    via = models.CharField(max_length=16, choices=VIAS)
    token_id = models.BigIntegerField(null=True)
    address = models.GenericIPAddressField(null=True)
    verb = models.CharField(max_length=32)
    model = models.CharField(max_length=64, blank=True)
    object_id = models.CharField(max_length=64, blank=True)
    patient_ids = ArrayField(models.BigIntegerField(), default=list)
    detail = models.CharField(max_length=200, blank=True)
    result = models.CharField(max_length=16, choices=RESULTS, default="done")
    # A keyed digest of the name that was typed at a sign-in. The name itself may be somebody's password.
    account = models.CharField(max_length=20, blank=True)

    class Meta:
        verbose_name = "audit log entry"
        verbose_name_plural = "audit log entries"
        default_permissions = ("view",)
        indexes = [
            models.Index(fields=["-at", "-id"], name="audit_at"),
            models.Index(fields=["user_id", "-at", "-id"], name="audit_user"),
            models.Index(fields=["username", "-at", "-id"], name="audit_username"),
            models.Index(fields=["verb", "-at", "-id"], name="audit_verb"),
            models.Index(fields=["model", "object_id", "-at", "-id"], name="audit_object"),
            models.Index(fields=["address", "-at", "-id"], name="audit_address"),
            models.Index(fields=["account", "-at"], name="audit_account", condition=~Q(account="")),
            GinIndex(fields=["patient_ids"], name="audit_patient"),
        ]

    def __str__(self) -> str:
        return f"{self.username or 'somebody'} {self.did}"

    @property
    def did(self) -> str:
        return Verb(self.verb).label if self.verb in Verb.values else self.verb
