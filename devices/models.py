"""Whose device it is: patients, the links to their vendor accounts, and the keys to both."""

import hashlib
import secrets
from datetime import timedelta
from typing import Self

from django.conf import settings
from django.core import signing
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone


class Patient(models.Model):
    """`external_id` is the `user_id` of HealthKit bodies and the key of Kafka messages; `timezone` is an IANA name."""

    external_id = models.CharField(max_length=255, unique=True)
    display_name = models.CharField(max_length=255)
    timezone = models.CharField(max_length=64, db_default="UTC", default="UTC")
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.display_name or self.external_id


class Assignment(models.Model):
    """Which clinician may see which patient, and for how long."""

    clinician = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="assignments")
    patient = models.ForeignKey(Patient, models.CASCADE, related_name="assignments")
    since = models.DateTimeField(db_default=Now())
    until = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.clinician} sees {self.patient}"


class Link(models.Model):
    """A patient's account at a vendor. `stale` is quiet or failing but still tried; `expired` needs the patient."""

    VENDORS = [("oura", "Oura"), ("whoop", "WHOOP"), ("healthkit", "Apple HealthKit")]
    STATUSES = [(status, status) for status in ("active", "stale", "expired", "revoked")]

    patient = models.ForeignKey(Patient, models.CASCADE, related_name="links")
    vendor = models.CharField(max_length=16, choices=VENDORS)
    vendor_user_id = models.CharField(max_length=255)
    status = models.CharField(max_length=16, choices=STATUSES, db_default="active", default="active")
    status_since = models.DateTimeField(db_default=Now())
    scopes = models.TextField(blank=True, db_default="", default="")
    connected_at = models.DateTimeField(db_default=Now())
    paused_at = models.DateTimeField(null=True, blank=True)
    last_delivery_at = models.DateTimeField(null=True, blank=True)
    last_synced_at = models.DateTimeField(null=True, blank=True)
    reconciled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["vendor", "vendor_user_id"], name="link_of_vendor_user")]
        permissions = [
            ("pause_link", "Can pause and resume links"),
            ("sync_link", "Can have a link's recent data and history fetched"),
            ("disconnect_link", "Can disconnect links"),
        ]

    def __str__(self) -> str:
        return f"{self.get_vendor_display()} of {self.patient}"


class Token(models.Model):
    """A link's OAuth pair, encrypted with MultiFernet. Shown nowhere, logged nowhere.

    A refresh holds `refresh_token_lease` until `refresh_until`, both committed before the vendor is called, so
    that a crash leaves the trace that the refresh token may be spent.
    """

    link = models.OneToOneField(Link, models.CASCADE, primary_key=True)
    access_token = models.TextField()
    refresh_token = models.TextField()
    expires_at = models.DateTimeField()
    issued_by = models.CharField(max_length=255)
    refresh_token_lease = models.UUIDField(null=True)
    refresh_until = models.DateTimeField(null=True)
    updated_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"token of link {self.pk}"


class ApiKey(models.Model):
    """What a phone uploader shows. 256 random bits, of which only the SHA-256 is stored.

    `owner` names the uploader and stays the same when its key is changed, so that a batch sent again under the new
    key is still known. `every_sandbox_user` is for the sandbox's one key and counts nowhere else.
    """

    owner = models.CharField(max_length=255)
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    patients = models.ManyToManyField(Patient, blank=True, related_name="api_keys")
    every_sandbox_user = models.BooleanField(db_default=False, default=False, editable=False)
    created_at = models.DateTimeField(db_default=Now())
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"key {self.pk} of {self.owner}"

    @classmethod
    def issue(cls, owner: str, *patients: Patient) -> tuple[Self, str]:
        """A new key, and its text, which is never seen again."""
        key = cls(owner=owner)
        key.choose_text()
        key.save()
        key.patients.set(patients)
        return key, key.text

    def choose_text(self) -> None:
        """Give an unsaved key its text, which this object alone knows: of it only the digest is stored."""
        self.text = secrets.token_urlsafe(32)
        self.digest = hashlib.sha256(self.text.encode()).digest()


class Invitation(models.Model):
    """What support hands a patient to connect a device: for one vendor, once, until `expires_at`.

    The address that carries it is signed and holds nothing but its number. `used_at` is set when a grant is stored,
    and `link` is what that grant connected.
    """

    SIGNER = signing.Signer(salt="devices.invitation", sep=".")

    VENDORS = [vendor for vendor in Link.VENDORS if vendor[0] != "healthkit"]

    patient = models.ForeignKey(Patient, models.CASCADE, related_name="invitations")
    vendor = models.CharField(max_length=16, choices=VENDORS)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    link = models.ForeignKey(Link, models.SET_NULL, null=True, blank=True, related_name="invitations")

    def __str__(self) -> str:
        return f"invitation {self.pk} to connect {self.get_vendor_display()}"

    @classmethod
    def issue(cls, patient: Patient, vendor: str, *, by: str) -> Self:
        """A new one, open for INVITATION_DAYS."""
        expires_at = timezone.now() + timedelta(days=settings.INVITATION_DAYS)
        return cls.objects.create(patient=patient, vendor=vendor, created_by=by, expires_at=expires_at)

    @classmethod
    def of_token(cls, token: str, vendor: str) -> Self | None:
        """The one that `token` carries, whatever has become of it; None for a token that we did not sign."""
        try:
            number = int(cls.SIGNER.unsign(token))
        except (signing.BadSignature, ValueError):
            return None
        return cls.objects.filter(pk=number, vendor=vendor).select_related("patient", "link").first()

    @property
    def token(self) -> str:
        return self.SIGNER.sign(str(self.pk))

    @property
    def state(self) -> str:
        """`open`, `used`, `revoked` or `expired`."""
        if self.used_at:
            return "used"
        if self.revoked_at:
            return "revoked"
        return "open" if self.expires_at > timezone.now() else "expired"


class Consent(models.Model):
    """One trip of a browser to a vendor's consent page. The row goes when the browser is back, so `state` works once.

    `state` and `browser` are SHA-256 digests, of OAuth's state and of the browser's cookie; `verifier` is PKCE's,
    encrypted; `token_url` is where the code will be exchanged, whatever the settings say by then.
    """

    LIFE = timedelta(minutes=15)

    invitation = models.ForeignKey(Invitation, models.CASCADE, related_name="consents")
    state = models.BinaryField(max_length=32)
    browser = models.BinaryField(max_length=32)
    verifier = models.TextField(blank=True, db_default="", default="")
    redirect_uri = models.TextField()
    token_url = models.CharField(max_length=255)
    started_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [models.Index(fields=["browser"], name="consent_of_browser")]

    def __str__(self) -> str:
        return f"consent {self.pk}"


class Subscription(models.Model):
    """One webhook subscription that we want of Oura, as it was last seen; `vendor_id` is empty while it is missing."""

    vendor = models.CharField(max_length=16, choices=Link.VENDORS, db_default="oura", default="oura")
    event_type = models.CharField(max_length=64)
    data_type = models.CharField(max_length=64)
    vendor_id = models.CharField(max_length=64, blank=True, db_default="", default="")
    callback_url = models.CharField(max_length=500, blank=True, db_default="", default="")
    expires_at = models.DateTimeField(null=True)
    checked_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True, db_default="", default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["vendor", "event_type", "data_type"], name="subscription_of_pair")
        ]

    def __str__(self) -> str:
        return f"{self.data_type} {self.event_type}"


class Sync(models.Model):
    """One kind of document of one link: when the vendor last answered for it, and how far polls have asked for it."""

    link = models.ForeignKey(Link, models.CASCADE, related_name="syncs")
    kind = models.CharField(max_length=64)
    synced_at = models.DateTimeField(null=True)
    polled_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["link", "kind"], name="sync_of_kind")]

    def __str__(self) -> str:
        return f"{self.kind} of link {self.link_id}"


class Outage(models.Model):
    """A time in which one worker's circuit breaker kept a vendor from being asked; `seen_at` moves while it lasts."""

    vendor = models.CharField(max_length=16, choices=Link.VENDORS)
    worker = models.UUIDField()
    opened_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now())
    closed_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["vendor", "-opened_at"], name="outage_of_vendor")]

    def __str__(self) -> str:
        return f"{self.get_vendor_display()} was not asked from {self.opened_at:%Y-%m-%d %H:%M:%S}"


class Erasure(models.Model):
    """That a patient was erased, by whom, why, and how many rows of what: the audit record, without health data."""

    external_id = models.CharField(max_length=255)
    requested_by = models.CharField(max_length=150)
    reason = models.TextField()
    erased_at = models.DateTimeField(db_default=Now())
    removed = models.JSONField(default=dict)
    delivery_id = models.BigIntegerField(null=True)

    class Meta:
        indexes = [models.Index(fields=["external_id"], name="erasure_of_patient")]

    def __str__(self) -> str:
        return f"erasure of {self.external_id}"
