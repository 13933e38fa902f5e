"""Server-sent events of one patient's timeline: its version, whenever it is another one (WHATWG HTML, 9.2).

`event: version` carries the number; `event: end` says that this user may not see the patient any more. A worker rings
through Redis; without Redis PostgreSQL is looked at every two seconds, and with it every ten, in case a ring was lost.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from time import monotonic
from types import TracebackType
from typing import Self

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.http import require_GET
from prometheus_client import Gauge
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from auren import streams
from auren.biometrics.models import Timeline
from auren.console.views import patients_of, problem
from webhooks.bell import channel

logger = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
LOOK_WITHOUT_REDIS_SECONDS = 2.0
LISTEN_SECONDS = 0.5  # at a time, so that a stream ends soon after it is told to
CONNECT_SECONDS = 0.3
LONGEST_SECONDS = 600.0  # then the browser comes again, and shows its session again

OPEN = Gauge("auren_live_streams", "Timelines that are open and told of new data", multiprocess_mode="livesum")


@require_GET
async def live(request: HttpRequest, pk: int) -> HttpResponseBase:
    user = await request.auser()
    if not isinstance(user, User) or await _version(user, pk) is None:
        return HttpResponse(status=404)
    if streams.count() >= streams.MOST:
        refusal = problem(503, "Too many timelines are open", "Ask for the timeline itself now and then.")
        refusal["Retry-After"] = "30"
        return refusal
    answer = StreamingHttpResponse(_events(user, pk), content_type="text/event-stream")
    answer["Cache-Control"] = "no-store"
    answer["X-Accel-Buffering"] = "no"  # nginx would collect them
    return answer


async def _events(user: User, patient_id: int) -> AsyncIterator[bytes]:
    until, told = monotonic() + LONGEST_SECONDS, None
    with streams.stream() as ending, OPEN.track_inprogress():
        async with Ear(patient_id) as ear:
            while not ending.is_set() and monotonic() < until:
                version = await _version(user, patient_id)
                if version is None:
                    yield b"event: end\ndata: \n\n"
                    return
                yield b":\n\n" if version == told else b"event: version\ndata: %d\n\n" % version
                told = version
                await ear.listen(ending)


@sync_to_async
def _version(user: User, patient_id: int) -> int | None:
    """The timeline's version, 0 for one that has none yet; None when the user may not see it."""
    if not patients_of(user).filter(pk=patient_id, assignments__clinician__is_active=True).exists():
        return None
    return Timeline.objects.filter(pk=patient_id).values_list("version", flat=True).first() or 0


class Ear:
    """Listens for one patient's bell."""

    def __init__(self, patient_id: int) -> None:
        self._channel = channel(patient_id)
        self._redis = _client()
        self._listening = self._redis.pubsub(ignore_subscribe_messages=True) if self._redis else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _type: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        if self._redis is not None and self._listening is not None:
            await self._listening.aclose()  # type: ignore[no-untyped-call]
            await self._redis.aclose()

    async def listen(self, ending: asyncio.Event) -> None:
        """Return when the bell rings, when it is time to look all the same, or when the stream has to end."""
        try:
            await self._hear(ending)
        except (RedisError, OSError, TimeoutError) as error:
            logger.info("open timelines look for themselves: %s", type(error).__name__)
            await _wait(ending, LOOK_WITHOUT_REDIS_SECONDS)

    async def _hear(self, ending: asyncio.Event) -> None:
        if self._listening is None:
            await _wait(ending, LOOK_WITHOUT_REDIS_SECONDS)
            return
        if not self._listening.subscribed:
            await self._listening.subscribe(self._channel)
        until = monotonic() + LOOK_SECONDS
        while monotonic() < until and not ending.is_set():
            if await self._listening.get_message(timeout=LISTEN_SECONDS) is not None:
                return


def _client() -> Redis | None:
    if not settings.REDIS_URL:
        return None
    return Redis.from_url(settings.REDIS_URL, socket_connect_timeout=CONNECT_SECONDS, retry=Retry(NoBackoff(), 0))


async def _wait(ending: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await ending.wait()
    except TimeoutError:
        pass
