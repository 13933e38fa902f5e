"""PostgreSQL's clock, as a worker knows it: read with every claim, carried on by the process's own."""

from datetime import UTC, datetime, timedelta
from time import monotonic


class DatabaseClock:
    """Leases, revisions and waits are all reckoned by one clock, whatever the nodes' own clocks say."""

    def __init__(self) -> None:
        self._known = datetime.now(UTC)
        self._at = monotonic()

    def set(self, now: datetime, *, asked_at: float) -> None:
        """`now` as PostgreSQL gave it, `asked_at` the monotonic time just before it was asked: never ahead of it."""
        self._known, self._at = now, asked_at

    def now(self) -> datetime:
        return self._known + timedelta(seconds=monotonic() - self._at)
