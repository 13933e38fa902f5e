"""A vendor's published rate limits, kept by all workers together, so that 429 stays the exception.

A limit is counts of calls, each over a number of seconds ("100/60,10000/86400"), and all of them hold. A window
slides: its calls are counted in sixtieths, and a sixtieth leaves only when all of it is too old. So no span of that
many seconds ever holds more calls than allowed, wherever the vendor's own window begins, and a call that takes up to
a sixtieth to arrive is still inside.
"""

import hashlib
import time
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from prometheus_client import Counter
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from devices.spare_redis import SpareRedis
from devices.vendors.client import Postponed

PARTS = 60
ALONE_SHARE = 4  # away from Redis each process takes a quarter
BACKGROUND_SHARE = 2  # what can wait (history, polls) leaves half of every window to what has just happened

POSTPONED = Counter("auren_vendor_calls_postponed", "Calls put off by our keeping of a rate limit", ["vendor"])

# KEYS: the pause, then one hash a window; ARGV: for each window its count, its seconds and the seconds of one part.
# Returns the microseconds to wait; 0 is a go, and has been counted. A hash holds 62 parts at most.
ADMIT = """
local paused = redis.call('PTTL', KEYS[1])
if paused > 0 then return paused * 1000 end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local wait = 0
for i = 2, #KEYS do
  local count, seconds, part = tonumber(ARGV[3*i-5]), tonumber(ARGV[3*i-4]), tonumber(ARGV[3*i-3])
  local flat = redis.call('HGETALL', KEYS[i])
  local used, parts = 0, {}
  for j = 1, #flat, 2 do
    local start, calls = tonumber(flat[j]) * part, tonumber(flat[j+1])
    if start + part + seconds <= now then
      redis.call('HDEL', KEYS[i], flat[j])
    else
      used = used + calls
      parts[#parts+1] = {start + part + seconds, calls}
    end
  end
  if used >= count then
    table.sort(parts, function(a, b) return a[1] < b[1] end)
    for _, entry in ipairs(parts) do
      used = used - entry[2]
      if used < count then
        wait = math.max(wait, entry[1] - now)
        break
      end
    end
  end
end
if wait > 0 then return math.ceil(wait * 1e6) end
for i = 2, #KEYS do
  redis.call('HINCRBY', KEYS[i], string.format('%d', math.floor(now / tonumber(ARGV[3*i-3]))), 1)
  redis.call('EXPIRE', KEYS[i], math.ceil(tonumber(ARGV[3*i-4]) * 1.1) + 1)
end
return 0
"""
# A shorter pause never cuts a longer one.
PAUSE = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], 1, 'PX', ARGV[1]) end
return 0
"""


class Window(NamedTuple):
    """At most `calls` in any `seconds`."""

    calls: int
    seconds: int

    @property
    def part_seconds(self) -> float:
        return self.seconds / PARTS

    def share(self, of: int) -> "Window":
        """A window of one in `of` calls, and at least one."""
        return Window(max(1, self.calls // of), self.seconds)


def parse(text: str) -> tuple[Window, ...]:
    """The windows of "100/60,10000/86400"; none for "" or "0", which is no limit. Raises `ImproperlyConfigured`."""
    if text.strip() in {"", "0"}:
        return ()
    try:
        windows = tuple(Window(*(int(number) for number in part.split("/"))) for part in text.split(","))
    except (ValueError, TypeError):
        windows = ()
    spans = {window.seconds for window in windows if window.calls > 0 and window.seconds > 0}
    if not windows or len(spans) < len(windows):
        raise ImproperlyConfigured(f"A rate limit is {text!r}: write calls/seconds, one a span, with commas, or 0.")
    return windows


class Alone:
    """The windows as one process counts them for itself; `clock` gives seconds and never goes back."""

    def __init__(self, windows: Sequence[Window], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: dict[Window, Tally[int]] = {window: Tally() for window in windows}
        self._paused_until = 0.0

    def pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    def paused_for(self) -> float:
        return max(0.0, self._paused_until - self._clock())

    def admit(self, *, background: bool = False) -> float:
        """Seconds to wait; 0.0 is a go, and has been counted."""
        now = self._clock()
        share = BACKGROUND_SHARE if background else 1
        wait = max((self._wait(window, window.share(share).calls, now) for window in self._counts), default=0.0)
        if wait > 0:
            return wait
        for window, parts in self._counts.items():
            parts[int(now / window.part_seconds)] += 1
        return 0.0

    def _wait(self, window: Window, most: int, now: float) -> float:
        parts = self._counts[window]
        for part in [part for part in parts if self._leaves_at(window, part) <= now]:
            del parts[part]
        used = parts.total()
        for part in sorted(parts):
            if used < most:
                break
            used -= parts[part]
            if used < most:
                return self._leaves_at(window, part) - now
        return 0.0

    @staticmethod
    def _leaves_at(window: Window, part: int) -> float:
        return (part + 1) * window.part_seconds + window.seconds


class RateLimit:
    """One app's limit at one vendor. It never waits: it says go, or how long to stay away."""

    def __init__(self, vendor: str, windows: Sequence[Window], redis: Redis | None, *, app: str = "") -> None:
        """`app` is the client id, whose calls the vendor adds up: each has its own keys."""
        self.vendor = vendor
        self._redis = SpareRedis(redis, f"{vendor}'s rate limit is kept by each process")
        self._admit = redis.register_script(ADMIT) if redis else None
        self._pause = redis.register_script(PAUSE) if redis else None
        place = f"auren:calls:{{{vendor}:{hashlib.sha256(app.encode()).hexdigest()[:12]}}}"
        self._keys = [f"{place}:pause", *(f"{place}:{window.seconds}" for window in windows)]
        self._numbers = {
            background: [
                number
                for window in windows
                for number in (*window.share(BACKGROUND_SHARE if background else 1), window.part_seconds)
            ]
            for background in (False, True)
        }
        self._alone = Alone([window.share(ALONE_SHARE) for window in windows])

    @classmethod
    def of(cls, vendor: str, redis: Redis | None) -> "RateLimit":
        """The limit that the settings give the vendor."""
        name = vendor.upper()
        windows = parse(getattr(settings, f"{name}_RATE_LIMIT"))
        return cls(vendor, windows, redis, app=getattr(settings, f"{name}_CLIENT_ID"))

    async def admit(self, *, background: bool = False) -> None:
        """Count one call. Raises `Postponed` when it would be one too many, or while the vendor is paused.

        A `background` call is one too many when half of a window is used, by whichever calls.
        """
        wait = self._alone.paused_for() or await self._wait(background)
        if wait > 0:
            POSTPONED.labels(self.vendor).inc()
            raise Postponed(f"{self.vendor}'s rate limit: room in {wait:.3g} s", wait)

    async def pause(self, seconds: float) -> None:
        """Keep every worker from asking the vendor for `seconds`, as its 429 said."""
        self._alone.pause(seconds)
        await self._ask(self._pause, self._keys[:1], [max(1, round(seconds * 1000))])

    async def _wait(self, background: bool) -> float:
        answer = await self._ask(self._admit, self._keys, self._numbers[background])
        return self._alone.admit(background=background) if answer is None else answer / 1e6

    async def _ask(self, script: AsyncScript | None, keys: list[str], numbers: list[float]) -> int | None:
        if script is None:
            return None
        return await self._redis.ask(lambda _: cast(Awaitable[int], script(keys=keys, args=numbers)))
