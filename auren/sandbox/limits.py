"""Rate limits as vendors keep them: so many calls in a window, several windows at once, refused calls not counted."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Limit:
    calls: int
    seconds: int


class Standing(NamedTuple):
    """How a key stands with its tightest limit: `resets_in` seconds until its window is over."""

    limit: Limit
    remaining: int
    resets_in: float
    allowed: bool


def parse(text: str) -> tuple[Limit, ...]:
    """`100/60,10000/86400` as limits; empty or `0` means none. Raises ValueError for anything else."""
    if text.strip() in {"", "0"}:
        return ()
    return tuple(_parse_one(part) for part in text.split(","))


def _parse_one(part: str) -> Limit:
    calls, slash, seconds = part.strip().partition("/")
    if not (slash and calls.isdecimal() and seconds.isdecimal() and int(calls) and int(seconds)):
        raise ValueError(f"{part!r} is no rate limit: write calls/seconds, as in 100/60.")
    return Limit(int(calls), int(seconds))


class Windows:
    """Fixed windows for any number of keys. A key's window opens with its first call."""

    MANY = 20_000  # keys; past this the ones whose window is over are forgotten

    def __init__(self, limits: tuple[Limit, ...]) -> None:
        self.limits = limits
        self._open: dict[tuple[str, Limit], tuple[float, int]] = {}  # when it opened, and the calls since

    def admit(self, key: str, now: float) -> Standing | None:
        """Count a call of `key` at `now` (epoch seconds) unless a limit forbids it; None where there is no limit."""
        standings = [self._standing(key, limit, now) for limit in self.limits]
        if not standings:
            return None
        if all(standing.allowed for standing in standings):
            for limit in self.limits:
                opened, calls = self._window(key, limit, now)
                self._open[key, limit] = (opened, calls + 1)
            self._forget(now)
        return min(standings, key=lambda standing: (standing.allowed, standing.remaining))

    def _standing(self, key: str, limit: Limit, now: float) -> Standing:
        opened, calls = self._window(key, limit, now)
        remaining = max(0, limit.calls - calls - 1)
        return Standing(limit, remaining, opened + limit.seconds - now, allowed=calls < limit.calls)

    def _window(self, key: str, limit: Limit, now: float) -> tuple[float, int]:
        opened, calls = self._open.get((key, limit), (now, 0))
        return (opened, calls) if opened <= now < opened + limit.seconds else (now, 0)

    def _forget(self, now: float) -> None:
        if len(self._open) > self.MANY:
            self._open = {key: kept for key, kept in self._open.items() if now < kept[0] + key[1].seconds}
