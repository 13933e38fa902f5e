"""How often to look for something, where each look costs PostgreSQL something and often finds nothing."""

from collections import deque


class Pace:
    """A rest of `times` what a look took, so that looking takes little of anybody's time; from `least` to `most` s.

    One look that took long says that PostgreSQL was held up, not that looking is dear: it goes by the quicker of the
    last two.
    """

    def __init__(self, times: float, *, least: float, most: float) -> None:
        self.times = times
        self.least = least
        self.most = most
        self._looks = deque([0.0, 0.0], maxlen=2)

    def took(self, seconds: float) -> None:
        self._looks.append(seconds)

    @property
    def rest(self) -> float:
        """Seconds until the next look."""
        return min(max(self.least, self.times * min(self._looks)), self.most)
