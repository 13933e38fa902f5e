"""How long a vendor's 429 says to wait."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

UNSAID = 30.0
LONGEST = 86_400.0
# Oura's X-RateLimit-Reset is a Unix time, WHOOP's a number of seconds; no wait is as long as the former.
LEAST_UNIX_TIME = 1_000_000_000.0


def seconds_to_wait(headers: Mapping[str, str]) -> float:
    """Seconds from `Retry-After` (a number or an HTTP date), else `X-RateLimit-Reset`; 1 to 86,400, 30 if unsaid."""
    for name in ("retry-after", "x-ratelimit-reset"):
        seconds = _seconds(headers.get(name, ""))
        if seconds is not None:
            return min(max(seconds, 1.0), LONGEST)
    return UNSAID


def _seconds(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return _until(text)
    if not number < float("inf"):
        return None
    return number - time.time() if number >= LEAST_UNIX_TIME else number


def _until(text: str) -> float | None:
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
