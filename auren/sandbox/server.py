"""The sandbox as one ASGI application, and that application in a thread for the test-suite.

`/oura` and `/whoop` stand in for the vendors' hosts, `/sandbox` is the control API.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from typing import cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Router
from starlette.types import ASGIApp

from auren.sandbox import control, oura_api, whoop_api
from auren.sandbox.announce import Announcer
from auren.sandbox.config import SandboxConfig, VendorConfig
from auren.sandbox.faults import Door
from auren.sandbox.remote import RemoteSandbox
from auren.sandbox.state import Sandbox, VendorError, VendorState, answer
from auren.sandbox.subscriptions import Subscriptions
from auren.sandbox.trickle import Trickle

__all__ = ["RunningSandbox", "SandboxConfig", "VendorConfig", "addresses", "make_app", "run_in_thread"]


def make_app(config: SandboxConfig) -> Starlette:
    """The whole sandbox. Opens its database at once, and closes it when the application shuts down."""
    sandbox = Sandbox(config)
    subscriptions = Subscriptions(sandbox.database)
    announcer = Announcer(sandbox, subscriptions)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        lives = config.trickle_seconds and config.people and config.bridge_url
        life = asyncio.create_task(Trickle(sandbox, announcer).run()) if lives else None
        try:
            yield
        finally:
            if life:
                life.cancel()
                await asyncio.gather(life, return_exceptions=True)
            await announcer.close()
            sandbox.close()

    return Starlette(
        routes=[
            Mount("/oura", _door(sandbox, sandbox.oura, Router(oura_api.routes(sandbox, subscriptions, announcer)))),
            Mount("/whoop", _door(sandbox, sandbox.whoop, Router(whoop_api.routes(sandbox)))),
            Mount("/sandbox", routes=control.routes(sandbox, announcer)),
        ],
        exception_handlers={VendorError: refuse},
        lifespan=lifespan,
    )


def _door(sandbox: Sandbox, vendor: VendorState, app: ASGIApp) -> ASGIApp:
    return Door(app, vendor.name, vendor.faults, sandbox.calls, vendor.latency_seconds, sandbox.clock.seconds)


async def refuse(request: Request, error: Exception) -> Response:
    del request
    refused = cast("VendorError", error)
    return answer(refused.content, refused.status, refused.headers)


def addresses(url: str) -> dict[str, str]:
    """The bridge's settings that point it at a sandbox at `url`."""
    return {
        "OURA_API_URL": f"{url}/oura",
        "OURA_AUTHORIZE_URL": f"{url}/oura/oauth/authorize",
        "OURA_TOKEN_URL": f"{url}/oura/oauth/token",
        "OURA_REVOKE_URL": f"{url}/oura/oauth/revoke",
        "WHOOP_API_URL": f"{url}/whoop/developer",
        "WHOOP_AUTHORIZE_URL": f"{url}/whoop/oauth/oauth2/auth",
        "WHOOP_TOKEN_URL": f"{url}/whoop/oauth/oauth2/token",
        "WHOOP_REVOKE_URL": f"{url}/whoop/developer/v2/user/access",
    }


def uvicorn_server(app: ASGIApp) -> uvicorn.Server:
    """A server that gives requests in flight a second when it stops: a hanging one must not hold it."""
    config = uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=1, lifespan="on")
    return uvicorn.Server(config)


class RunningSandbox(RemoteSandbox):
    """A sandbox in a thread of this process, on a port of its own."""

    def __init__(self, config: SandboxConfig) -> None:
        listening = socket.create_server(("127.0.0.1", 0), backlog=2_048)
        super().__init__(f"http://127.0.0.1:{listening.getsockname()[1]}")
        self._listening = listening
        self._server = uvicorn_server(make_app(config))
        self._thread = threading.Thread(target=self._serve, name="sandbox", daemon=True)
        self._thread.start()

    @property
    def settings(self) -> dict[str, str]:
        """The bridge's settings that point it here."""
        return addresses(self.url)

    def _serve(self) -> None:
        self._server.run(sockets=[self._listening])

    def close(self) -> None:
        """Stop serving and end the thread."""
        super().close()
        self._server.should_exit = True
        self._thread.join(timeout=5)


def run_in_thread(config: SandboxConfig | None = None) -> RunningSandbox:
    """Start a sandbox; requests may be sent at once. Close it when done."""
    return RunningSandbox(config or SandboxConfig())
