"""What exports count. Names are documented in docs/operations.md; a test holds the two together."""

from prometheus_client import Counter, Gauge, Histogram

LONG = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

WAITING = Gauge("auren_exports_waiting", "Exports nobody is making yet", multiprocess_mode="livemax")
RUNNING = Gauge("auren_exports_running", "Exports being made", multiprocess_mode="livesum")
ENDED = Counter("auren_exports_ended", "Exports made, or not", ["format", "outcome"])
SECONDS = Histogram("auren_export_seconds", "From asked for to made", ["format"], buckets=LONG)
SAMPLES = Counter("auren_export_samples", "Samples read for exports", ["format"])
DOWNLOADS = Counter("auren_export_downloads", "Files sent", ["format"])
