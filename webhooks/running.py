"""What every long-running command shares: the loop, the signals, the metrics page of a node without web."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable

import uvicorn
import uvloop
from django.conf import settings
from prometheus_client import multiprocess

from auren.collecting import collect_seldom
from auren.exposition import metrics_answer
from webhooks.http import Receive, Scope, Send, answer, reply

logger = logging.getLogger(__name__)

Main = Callable[[asyncio.Event], Awaitable[None]]


def run(main: Main) -> None:
    """Run `main` until it ends by itself or SIGTERM or SIGINT sets its stop event."""
    collect_seldom()
    try:
        uvloop.run(_run(main))
    finally:
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            multiprocess.mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


async def _run(main: Main) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(_serve_metrics()) if settings.METRICS_PORT else None
    try:
        await main(stop)
    finally:
        if serving is not None:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


class _Quiet(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """Signals are this module's."""


async def _serve_metrics() -> None:
    """The first process of the node to bind METRICS_PORT serves the page for all of them; the others try again."""
    config = uvicorn.Config(metrics_app, host="0.0.0.0", port=settings.METRICS_PORT, log_level="error", lifespan="off")  # noqa: S104 - guarded by METRICS_TOKEN
    while True:
        try:
            await _Quiet(config).serve()
        except (SystemExit, OSError):
            logger.debug("METRICS_PORT is served by another process")
        await asyncio.sleep(5)


async def metrics_app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
    if scope["type"] != "http":
        return
    if scope["path"] != "/metrics":
        await reply(send, answer(404, {"detail": "There is /metrics."}))
        return
    await reply(send, await metrics_answer(scope))
