"""How often one caller may ask: DRF's throttles, with rates written as everywhere here, `requests/seconds`.

Counts are in the shared cache. While Redis is away there are none, and everybody may ask.
"""

from time import monotonic
from typing import Any

from django.conf import settings
from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle

SLOW_SECONDS = 0.4  # under the cache's own time limit
NOT_ASKED_SECONDS = 5.0


class _Rate(SimpleRateThrottle):
    """`setting` names the rate; `0` is no limit."""

    setting: str
    not_asked_until = 0.0

    def allow_request(self, request: Request, view: Any) -> bool:
        """Also true while Redis is away; it is left alone for a while then, lest every request waits for it."""
        began = monotonic()
        if began < _Rate.not_asked_until:
            return True
        try:
            return super().allow_request(request, view)
        except RedisError:  # what the cache does not ignore: whatever answers there is no Redis
            _Rate.not_asked_until = began + NOT_ASKED_SECONDS
            return True
        finally:
            if monotonic() - began > SLOW_SECONDS:
                _Rate.not_asked_until = monotonic() + NOT_ASKED_SECONDS

    def get_rate(self) -> str | None:
        rate: str = getattr(settings, self.setting)
        return None if rate == "0" else rate

    def parse_rate(self, rate: str | None) -> tuple[int | None, int | None]:
        if rate is None:
            return None, None
        requests, _, seconds = rate.partition("/")
        return int(requests), int(seconds)

    def get_cache_key(self, request: Request, view: Any) -> str:  # noqa: ARG002 - DRF's signature
        return f"api:{self.scope}:{self._caller(request)}"

    def _caller(self, request: Request) -> str:
        if request.auth is not None:
            return f"token:{request.auth.pk}"
        return f"user:{request.user.pk}" if request.user.is_authenticated else f"address:{self.get_ident(request)}"


class Every(_Rate):
    scope = "every"
    setting = "API_RATE_LIMIT"


class Costly(_Rate):
    """For what reads much: samples, timelines."""

    scope = "costly"
    setting = "API_COSTLY_RATE_LIMIT"
