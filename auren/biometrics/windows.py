"""Rendered windows, kept in Redis under a key that holds the version of the patient's timeline.

Nothing is dropped by hand, and nothing stale is served. The version is looked up on the primary before Redis is
asked; a window that is not there is read, and its version with it, in one snapshot, and kept under the version of
that snapshot. So what lies under a version was read at that version, however long the reading took, and whatever
was committed before the lookup is in the answer. What shapes a window without raising the version is in the key.

Redis is good to have and never needed: nobody waits for it longer than a tenth of a second.
"""

import hashlib
import inspect
import logging
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from django.conf import settings
from prometheus_client import Counter
from redis import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from auren.biometrics import baseline, reads, timeline
from auren.biometrics import metrics as catalogue
from auren.biometrics.metrics import Metric
from auren.biometrics.timeline import Timeline, Window

KEPT_SECONDS = 900  # a window that ends now has another key after a quarter of an hour anyway
MOST_BYTES = 512 * 1024  # compressed; what is larger is rendered each time
COMPRESSION = 1
REDIS_SECONDS = 0.1
NOT_ASKED_SECONDS = 1.0
CONNECTIONS = 8

WINDOWS = Counter("auren_windows", "Rendered windows by where they came from", ["outcome"])
FAULTS = Counter("auren_window_faults", "Times Redis did not answer for a window")

Render = Callable[[Timeline], bytes]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rendered:
    """`body` is None where the caller has it already: `etag` is the one it named."""

    body: bytes | None
    etag: str


def rendered(
    window: Window, metrics: Sequence[Metric], render: Render, *, known: str = "", beside: str = ""
) -> Rendered:
    """The window as `render` makes it of what `timeline.read` finds, from Redis if it was made before.

    `render` is a plain function of a module, of the timeline alone: whatever else it looks at must not change. It runs
    in the snapshot, so it may read more. `known` is the request's `If-None-Match`. `beside` says what shapes the answer
    and does not raise the version.
    """
    patient_id = window.patient_id
    version = reads.versions([patient_id]).get(patient_id, 0)
    etag = _etag(window, metrics, render, version, beside)
    if _names(known, etag):
        WINDOWS.labels("unchanged").inc()
        return Rendered(None, etag)
    body = _kept().find(etag)
    WINDOWS.labels("miss" if body is None else "hit").inc()
    return _fresh(window, metrics, render, version, beside) if body is None else Rendered(body, etag)


def _fresh(window: Window, metrics: Sequence[Metric], render: Render, known: int, beside: str = "") -> Rendered:
    patient_id = window.patient_id

    def ask() -> tuple[int, bytes]:
        version = reads.versions([patient_id]).get(patient_id, 0)
        return version, render(timeline.read(window, metrics))

    version, body = reads.consistent([patient_id], ask, known={patient_id: known})
    etag = _etag(window, metrics, render, version, beside)
    _kept().keep(etag, body)
    return Rendered(body, etag)


def _etag(window: Window, metrics: Sequence[Metric], render: Render, version: int, beside: str) -> str:
    """Weak: two readings of one version may differ in the last digit of a mean."""
    shape = (window.start_at.timestamp(), window.end_at.timestamp(), window.zone.key, window.points)
    asked = (window.patient_id, version, *shape, window.every_source, [metric.name for metric in metrics])
    made = (_digest_of(sys.modules[render.__module__]), render.__qualname__)
    return f'W/"{hashlib.sha256(repr((asked, made, beside)).encode()).hexdigest()[:32]}"'


@cache
def _digest_of(module: ModuleType) -> str:
    """Of the code that makes windows, so that a new release never serves what another one made."""
    files = [Path(inspect.getfile(one)) for one in (module, timeline, baseline, catalogue)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _names(known: str, etag: str) -> bool:
    """Whether an `If-None-Match` names `etag` (RFC 9110, 13.1.2: `W/` does not count)."""
    asked = {one.strip().removeprefix("W/") for one in known.split(",")}
    return not asked.isdisjoint({"*", etag.removeprefix("W/")})


class Kept:
    """The windows in Redis. While it is away there are none, and it is left alone for a second."""

    def __init__(self, url: str) -> None:
        self._redis = _open(url) if url else None
        self._not_asked_until = 0.0

    def find(self, etag: str) -> bytes | None:
        packed = self._ask(lambda redis: redis.get(_key(etag)))
        try:
            return zlib.decompress(packed) if isinstance(packed, bytes) else None
        except zlib.error:  # somebody else's, or cut short
            return None

    def keep(self, etag: str, body: bytes) -> None:
        packed = zlib.compress(body, COMPRESSION)
        if len(packed) > MOST_BYTES:
            WINDOWS.labels("too_large").inc()
            return
        self._ask(lambda redis: redis.set(_key(etag), packed, ex=KEPT_SECONDS))

    def _ask(self, command: Callable[[Redis], object]) -> object:
        if self._redis is None or time.monotonic() < self._not_asked_until:
            return None
        try:
            return command(self._redis)
        except (RedisError, OSError) as error:
            self._not_asked_until = time.monotonic() + NOT_ASKED_SECONDS
            FAULTS.inc()
            logger.warning("Redis is away (%s): windows are rendered each time", type(error).__name__)
            return None


@cache
def _kept() -> Kept:
    return Kept(settings.REDIS_URL)


def _open(url: str) -> Redis:
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=REDIS_SECONDS,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)


def _key(etag: str) -> str:
    return f"auren:windows:{etag[3:-1]}"
