"""`/metrics` for Prometheus: all processes of a node in one page, from the files they share."""

import asyncio
import hmac
import os
from pathlib import Path

from django.conf import settings
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess

from webhooks.http import Answer, Scope, answer, from_loopback, headers_of


def page() -> bytes:
    """Every metric of every process that shares PROMETHEUS_MULTIPROC_DIR, or of this one alone without it."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    if not folder or not Path(folder).is_dir():
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def allowed(scope: Scope) -> bool:
    """From loopback, or with METRICS_TOKEN as the bearer token."""
    if from_loopback(scope):
        return True
    shown = headers_of(scope).get("authorization", "").encode("latin-1")
    return bool(settings.METRICS_TOKEN) and hmac.compare_digest(shown, f"Bearer {settings.METRICS_TOKEN}".encode())


async def metrics_answer(scope: Scope) -> Answer:
    if not allowed(scope):
        return answer(403, {"detail": "Metrics are shown to loopback, or with METRICS_TOKEN as the bearer token."})
    return 200, await asyncio.to_thread(page), ((b"content-type", CONTENT_TYPE_LATEST.encode()),)
