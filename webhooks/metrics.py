"""What the ways in and out count. Names are documented in docs/operations.md; a test holds the two together."""

from collections import Counter as Count

from prometheus_client import Counter, Gauge, Histogram

FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
SLOW = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

ANSWERED = Counter("auren_webhooks_answered", "Webhooks answered", ["vendor", "status"])
REFUSED = Counter("auren_webhooks_refused", "Webhooks refused, by problem", ["vendor", "problem"])
DUPLICATES = Counter("auren_webhooks_duplicate", "Webhooks known already", ["vendor"])
INGEST_SECONDS = Histogram("auren_webhook_seconds", "From request to answer", ["vendor"], buckets=FAST)
QUEUED = Gauge("auren_webhooks_queued", "Webhooks waiting for a commit", multiprocess_mode="livesum")
QUEUED_BYTES = Gauge("auren_webhooks_queued_bytes", "Their bodies", multiprocess_mode="livesum")
COMMITS = Counter("auren_webhook_commits", "Group commits")
COMMITTED = Counter("auren_webhook_commit_rows", "Rows in them")
COMMIT_SECONDS = Histogram("auren_webhook_commit_seconds", "Length of a group commit", buckets=FAST)
BACKLOG = Gauge("auren_deliveries_backlog", "Deliveries not yet processed or published", multiprocess_mode="max")

PROCESSING = Gauge("auren_deliveries_processing", "Deliveries held by workers", multiprocess_mode="livesum")
PROCESSED = Counter("auren_deliveries_processed", "Tries at deliveries", ["vendor", "outcome"])
STORED_SECONDS = Histogram("auren_delivery_stored_seconds", "From receipt to stored", ["vendor"], buckets=SLOW)
STORE_SECONDS = Histogram("auren_store_seconds", "Length of a store transaction", buckets=FAST)
SAMPLES = Counter("auren_samples_stored", "Samples stored", ["vendor"])
SAMPLES_REFUSED = Counter("auren_samples_refused", "Parts of documents refused", ["vendor"])
STRAY_SAMPLES = Gauge(
    "auren_samples_default_partition", "Samples that belong to no partition", multiprocess_mode="livemostrecent"
)
LEASES_LOST = Counter("auren_leases_lost", "Results dropped because the lease had gone to another worker")

PUBLISHED = Counter("auren_deliveries_published", "Deliveries published")
MESSAGES = Counter("auren_messages_published", "Messages Kafka confirmed", ["topic"])
MESSAGES_FAILED = Counter("auren_messages_failed", "Messages Kafka did not take", ["reason"])
PUBLISHED_SECONDS = Histogram("auren_delivery_published_seconds", "From receipt to published", buckets=SLOW)
SHARDS = Gauge("auren_publisher_shards", "Shards held", multiprocess_mode="livesum")
IN_FLIGHT = Gauge("auren_publisher_in_flight", "Messages waiting for their report", multiprocess_mode="livesum")
PRODUCERS = Counter("auren_publisher_producers", "Producers made, the first one included")


class Tally:
    """What one web process has answered since it was last written down.

    A metric shared between processes costs several microseconds a change, more than all else about a webhook but
    its signature. So answers are counted here, and written down a few times a second and before a page is made. Of
    the times only the first hundred are kept each time: beyond 400 webhooks a second the histogram is a sample.
    """

    KEPT = 100

    def __init__(self) -> None:
        self._answered: Count[tuple[str, int]] = Count()
        self._seconds: list[tuple[str, float]] = []

    def answered(self, vendor: str, status: int, seconds: float) -> None:
        self._answered[vendor, status] += 1
        if len(self._seconds) < self.KEPT:
            self._seconds.append((vendor, seconds))

    def write_down(self) -> None:
        answered, self._answered = self._answered, Count()
        seconds, self._seconds = self._seconds, []
        for (vendor, status), count in answered.items():
            ANSWERED.labels(vendor, status).inc(count)
        for vendor, taken in seconds:
            INGEST_SECONDS.labels(vendor).observe(taken)
