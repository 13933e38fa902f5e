"""The web process: `/webhooks/*` goes to ingest, `/health/*` and `/metrics` are answered here, the rest is Django's."""

import logging
import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auren.settings")
django.setup()

from django.core.handlers.asgi import ASGIHandler

from auren.checks import refuse_to_start
from auren.exposition import metrics_answer
from auren.health import Health
from webhooks.http import Receive, Scope, Send, reply
from webhooks.ingest import Ingest

logger = logging.getLogger(__name__)


class Application:
    """Opens its connections in `lifespan`, and does not start when it cannot.

    Uvicorn's `lifespan=auto` would serve after a failed start-up: auren/gunicorn.py turns it on for good.
    """

    def __init__(self) -> None:
        self.django = ASGIHandler()
        self.ingest: Ingest | None = None
        self.health: Health | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        path = scope["path"]
        if path.startswith("/webhooks/") and self.ingest is not None:
            await self.ingest(scope, receive, send)
        elif path.startswith("/health/") and self.health is not None:
            await reply(send, await self.health.answer(path))
        elif path == "/metrics":
            if self.ingest is not None:
                self.ingest.write_down_metrics()
            await reply(send, await metrics_answer(scope))
        else:
            await self.django(dict(scope), receive, send)  # type: ignore[arg-type]

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.open()
        except Exception as error:
            logger.exception("the web process cannot start")
            await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def open(self) -> None:
        """Check the settings and connect. Raises what keeps the process from keeping its promises."""
        refuse_to_start()
        self.ingest, self.health = Ingest(), Health()
        try:
            await self.ingest.open()
            await self.health.open()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of what is open, all of it or the half that start-up came to."""
        if self.ingest is not None:
            await self.ingest.close()
        if self.health is not None:
            await self.health.close()


application = Application()
