"""How data comes in and goes out: a delivery is the inbox and the outbox in one row."""

from django.db import models
from django.db.models.functions import Now

from devices.models import Link


class Delivery(models.Model):
    """One webhook, polled document or operator's act, from receipt to publication. docs/deliveries.md has its life.

    `background` is what can wait: history, polls, reconciliation. `body` is what was received, byte for byte.
    `document` is the JSON text the vendor's API answered. `headers` are the few request headers the worker needs.
    `attempts` counts the rows in `webhooks_attempt`, `failures` the failed tries that count toward the schedule,
    `pending_asks` how often an unfinished document was asked for. `shard` is the patient's, for the publisher.
    `outbox` holds the messages until they are published, `publish_at` the next try after Kafka did not take them.
    """

    STATES = [
        (state, state) for state in ("received", "retrying", "stored", "published", "ignored", "unlinked", "dead")
    ]
    VENDORS = [*Link.VENDORS, ("auren", "AUREN")]
    ORIGINS = [(origin, origin) for origin in ("webhook", "poll", "reconcile", "backfill", "operator")]

    vendor = models.CharField(max_length=16, choices=VENDORS)
    dedup_key = models.CharField(max_length=64)
    event_type = models.CharField(max_length=255)
    vendor_user_id = models.CharField(max_length=255)
    object_id = models.CharField(max_length=255, db_default="", default="", blank=True)
    event_time = models.DateTimeField(null=True)
    link = models.ForeignKey(Link, models.SET_NULL, null=True, related_name="deliveries")
    patient_id = models.BigIntegerField(null=True)
    shard = models.SmallIntegerField(null=True)
    body = models.BinaryField(null=True)
    headers = models.JSONField(null=True)
    document = models.TextField(null=True)
    origin = models.CharField(max_length=16, choices=ORIGINS, db_default="webhook", default="webhook")
    background = models.GeneratedField(
        expression=~models.Q(origin__in=["webhook", "operator"]),  # type: ignore[arg-type]
        output_field=models.BooleanField(),
        db_persist=True,
    )
    received_at = models.DateTimeField(db_default=Now())
    state = models.CharField(max_length=16, choices=STATES, db_default="received", default="received")
    attempts = models.IntegerField(db_default=0, default=0)
    failures = models.IntegerField(db_default=0, default=0)
    pending_asks = models.SmallIntegerField(db_default=0, default=0)
    next_attempt_at = models.DateTimeField(db_default=Now())
    planned_wait = models.BooleanField(db_default=False, default=False)
    lease_token = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    stored_at = models.DateTimeField(null=True)
    published_at = models.DateTimeField(null=True)
    sequence = models.BigIntegerField(null=True)
    sample_count = models.IntegerField(db_default=0, default=0)
    ignored_count = models.IntegerField(db_default=0, default=0)
    refused = models.JSONField(null=True)
    error = models.TextField(db_default="", default="", blank=True)
    error_class = models.CharField(max_length=64, db_default="", default="", blank=True)
    outbox = models.BinaryField(null=True)
    publish_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "deliveries"
        constraints = [models.UniqueConstraint(fields=["vendor", "dedup_key"], name="delivery_once")]
        indexes = [
            models.Index(
                fields=["background", "next_attempt_at"],
                name="delivery_due",
                condition=models.Q(state__in=["received", "retrying"]),
            ),
            models.Index(
                fields=["shard", "patient_id", "sequence"],
                name="delivery_unpublished",
                condition=models.Q(outbox__isnull=False),
            ),
            models.Index(
                fields=["vendor", "vendor_user_id"], name="delivery_unlinked", condition=models.Q(state="unlinked")
            ),
            models.Index(
                fields=["state", "-id"],
                name="delivery_by_state",
                condition=models.Q(state__in=["dead", "ignored", "unlinked"]),
            ),
            models.Index(fields=["received_at"], name="delivery_received"),
        ]
        permissions = [
            ("retry_delivery", "Can retry deliveries"),
            ("ignore_delivery", "Can ignore deliveries"),
            ("view_payload", "Can see what a delivery carried"),
        ]

    def __str__(self) -> str:
        return f"delivery {self.pk}"


class Attempt(models.Model):
    """One try at a delivery: what stage it reached, how long it took, and how it ended."""

    delivery = models.ForeignKey(Delivery, models.CASCADE, db_constraint=False, related_name="tries")
    number = models.IntegerField()
    stage = models.CharField(max_length=16)
    started_at = models.DateTimeField()
    duration_ms = models.IntegerField()
    outcome = models.CharField(max_length=16)
    error_class = models.CharField(max_length=64, db_default="", default="", blank=True)
    message = models.TextField(db_default="", default="", blank=True)

    class Meta:
        ordering = ["delivery_id", "number"]

    def __str__(self) -> str:
        return f"try {self.number} of delivery {self.delivery_id}"

    @property
    def duration(self) -> str:
        return f"{self.duration_ms:,} ms"


class Replay(models.Model):
    """That somebody had all deliveries like one tried again, and how far the scheduler is with it.

    `like` holds fields of a delivery and what they must be. It goes through those up to `until_id`, in the order of
    their ids, and has come to `reached_id`; `sent` of the `seen` were sent through again, the others left alone.
    """

    like = models.JSONField()
    until_id = models.BigIntegerField()
    reached_id = models.BigIntegerField(db_default=0, default=0)
    seen = models.IntegerField(db_default=0, default=0)
    sent = models.IntegerField(db_default=0, default=0)
    user_id = models.BigIntegerField()
    requested_by = models.CharField(max_length=150)
    requested_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True)
    stopped_by = models.CharField(max_length=150, blank=True, db_default="", default="")

    class Meta:
        indexes = [models.Index(fields=["id"], name="replay_open", condition=models.Q(ended_at=None))]

    def __str__(self) -> str:
        return f"replay {self.pk}"

    @property
    def state(self) -> str:
        if self.stopped_by:
            return "stopped"
        return "pending" if self.ended_at is None else "done"


class Lease(models.Model):
    """Who does a thing only one may do at a time: a publisher's shard (`shard-7`), the schedule (`schedule`)."""

    name = models.CharField(max_length=32, primary_key=True)
    holder = models.UUIDField(null=True)
    until = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name
