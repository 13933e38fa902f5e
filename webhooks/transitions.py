"""A delivery's life: which state follows a try, and when the next one is due. docs/deliveries.md draws it."""

import random
from datetime import datetime, timedelta
from typing import Literal

import msgspec

State = Literal["received", "retrying", "stored", "published", "ignored", "unlinked", "dead"]

MINUTE = 60.0
HOUR = 3600.0
RETRY_AFTER = (30.0, 2 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, 24 * HOUR)
JITTER = 0.2
ASK_AGAIN_AFTER = (10 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 12 * HOUR, 24 * HOUR)
MISSING_FOR = timedelta(hours=1)  # how long a 404 may still be a document on its way
MISSING_TRIES = 5  # as many tries as the schedule fits into that hour


class Next(msgspec.Struct, frozen=True):
    """What becomes of a delivery after a try. `wait` in seconds; `planned` says the wait is nobody's fault."""

    state: State
    wait: float = 0.0
    planned: bool = False
    reason: str = ""


def after_failure(failures: int, *, retry_after: float | None = None) -> Next:
    """After the `failures`-th failed try (1 is the first): the schedule, each wait ± 20 %, `Retry-After` obeyed."""
    if failures > len(RETRY_AFTER):
        return Next("dead", reason="given up: the schedule of tries has run out")
    wait = RETRY_AFTER[failures - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load, hides nothing
    return Next("retrying", wait=max(wait, retry_after or 0.0))


def after_missing(failures: int, *, received_at: datetime, now: datetime) -> Next:
    """After a 404: the schedule for an hour, then nobody waits for it any more."""
    if failures >= MISSING_TRIES or now - received_at > MISSING_FOR:
        return Next("ignored", reason="the vendor no longer has it")
    return after_failure(failures)


def after_pending(asks: int, *, has_samples: bool) -> Next:
    """After the `asks`-th answer that was not finished yet (1 is the first). Not a failed try."""
    if asks <= len(ASK_AGAIN_AFTER):
        wait = ASK_AGAIN_AFTER[asks - 1]
        return Next("retrying", wait=wait, planned=True, reason="the vendor has not finished it yet")
    if has_samples:
        return Next("stored")
    return Next("ignored", reason="the vendor never scored it")


def after_postponement(seconds: float, reason: str) -> Next:
    """A rate limit or an open breaker: nothing was tried, nothing is counted. Spread, or all come back at once."""
    wait = max(seconds, 1.0) * random.uniform(1, 1 + JITTER)  # noqa: S311 - spreads load, hides nothing
    return Next("retrying", wait=wait, planned=True, reason=reason)
