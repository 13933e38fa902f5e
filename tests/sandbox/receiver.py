"""An address that webhooks and batches are sent to: it keeps what came, and answers what the test wants."""

import socket
import threading
from dataclasses import dataclass, field
from typing import Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from auren.sandbox.server import uvicorn_server


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """`answers` are given in turn, then 202 for ever."""

    url: str = ""
    received: list[Received] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    verification_token: str = "shaken"
    _came: threading.Condition = field(default_factory=threading.Condition)

    def __enter__(self) -> Self:
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        routes = [Route("/{path:path}", self._take, methods=["POST"]), Route("/{path:path}", self._shake)]
        self._server = uvicorn_server(Starlette(routes=routes))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=5)

    def wait_for(self, paths: set[str], seconds: float = 60) -> bool:
        """Whether something came to every one of `paths` in that time."""
        with self._came:
            return self._came.wait_for(lambda: paths <= {each.path for each in self.received}, seconds)

    def clear(self) -> None:
        self.received.clear()
        self.answers.clear()

    async def _take(self, request: Request) -> Response:
        body = await request.body()
        with self._came:
            self.received.append(Received(request.url.path, dict(request.headers), body))
            self._came.notify_all()
        return JSONResponse({}, self.answers.pop(0) if self.answers else 202)

    async def _shake(self, request: Request) -> Response:
        if request.query_params.get("verification_token") != self.verification_token:
            return JSONResponse({}, 401)
        return JSONResponse({"challenge": request.query_params["challenge"]})
