"""A circuit breaker: a vendor that is down is asked one question now and then, not one for every delivery."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum

from prometheus_client import Gauge

from devices.vendors.client import Postponed

LOOKED_AT = 20  # calls
WITHIN_SECONDS = 30.0
TOO_MANY = 10
OPEN_SECONDS = 15.0
PROBE_SECONDS = 1.0  # what others wait while one call tries

BREAKER = Gauge(
    "auren_vendor_breaker",
    "Circuit breaker of a vendor: 0 closed, 1 half open, 2 open; the worst of all processes",
    ["vendor"],
    multiprocess_mode="livemax",
)


class State(IntEnum):
    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Opens after 10 failures among the last 20 calls of the last 30 s; after 15 s lets one call through to see.

    A failure is a 5xx, a timeout or a broken connection; any other answer shows that the vendor is there. `clock`
    gives seconds and never goes back; `changed` hears of every other state than before.
    """

    def __init__(
        self,
        vendor: str,
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[str, State], None] = lambda _vendor, _state: None,
    ) -> None:
        self.vendor = vendor
        self._clock = clock
        self._changed = changed
        self._calls: deque[tuple[float, bool]] = deque(maxlen=LOOKED_AT)
        self._opened_at = 0.0
        self._probing = False
        self.state = State.CLOSED
        BREAKER.labels(vendor).set(State.CLOSED)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Room for one call, about which `answered` or `failed` is to be said. Raises `Postponed`.

        A call that ends without either, because it was cancelled or never sent, lets the next one try.
        """
        probing = self._admit()
        try:
            yield
        finally:
            if probing and self.state is State.HALF_OPEN:
                self._probing = False

    def answered(self) -> None:
        if self.state is State.HALF_OPEN:
            self._calls.clear()
            self._become(State.CLOSED)
        self._note(failed=False)

    def failed(self) -> None:
        self._note(failed=True)
        if self.state is State.HALF_OPEN or (self.state is State.CLOSED and self._failures() >= TOO_MANY):
            self._opened_at = self._clock()
            self._become(State.OPEN)

    def _admit(self) -> bool:
        """Whether the admitted call is the one that tries."""
        if self.state is State.CLOSED:
            return False
        wait = self._opened_at + OPEN_SECONDS - self._clock() if self.state is State.OPEN else 0.0
        if wait > 0 or self._probing:
            raise Postponed(f"{self.vendor} keeps failing and is not asked for now", max(wait, PROBE_SECONDS))
        self._become(State.HALF_OPEN)
        self._probing = True
        return True

    def _become(self, state: State) -> None:
        self.state = state
        self._probing = False
        BREAKER.labels(self.vendor).set(state)
        self._changed(self.vendor, state)

    def _note(self, *, failed: bool) -> None:
        self._calls.append((self._clock(), failed))

    def _failures(self) -> int:
        since = self._clock() - WITHIN_SECONDS
        return sum(failed for at, failed in self._calls if at > since)
