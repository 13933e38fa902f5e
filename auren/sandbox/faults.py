"""What goes wrong on purpose, and the book of calls: the door every request to a stand-in vendor passes through."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Any, Literal, NamedTuple

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Action = Literal["status", "hang", "lose_reply"]
CALLS_KEPT = 50_000


@dataclass(slots=True)
class Shares:
    """Shares of requests (0 to 1): answered 5xx, never answered, 404 for a document; and of webhooks never sent."""

    error: float = 0.0
    timeout: float = 0.0
    not_found: float = 0.0
    drop_webhook: float = 0.0


@dataclass(slots=True)
class Scripted:
    """The next `count` requests whose path (below the vendor's mount) begins with `path` meet this fault.

    `status` is answered without doing anything, with `retry_after` seconds if given. `hang` never answers.
    `lose_reply` does the work, then breaks the connection in the middle of the answer.
    """

    path: str
    action: Action = "status"
    count: int = 1
    method: str = ""
    status: int = 503
    retry_after: int | None = None

    def matches(self, method: str, path: str) -> bool:
        return path.startswith(self.path) and self.method in {"", method}


class Call(NamedTuple):
    """A request that came in. `user` is empty where no valid token named one; `status` 0 where none was answered."""

    vendor: str
    method: str
    path: str
    user: str
    status: int
    at: float


@dataclass(slots=True)
class Calls:
    """The last calls in full, and the number of all since the last reset by vendor and status."""

    recent: deque[Call] = field(default_factory=lambda: deque(maxlen=CALLS_KEPT))
    totals: Counter[tuple[str, int]] = field(default_factory=Counter)

    def add(self, call: Call) -> None:
        self.recent.append(call)
        self.totals[call.vendor, call.status] += 1

    def clear(self) -> None:
        self.recent.clear()
        self.totals.clear()

    def matching(self, wanted: dict[str, str]) -> list[Call]:
        """Recent calls whose path begins with `path` and whose other fields equal what `wanted` says."""
        return [call for call in self.recent if _is_wanted(call, wanted)]


def _is_wanted(call: Call, wanted: dict[str, str]) -> bool:
    exact = {name: value for name, value in wanted.items() if name != "path"}
    fields = call._asdict()
    return call.path.startswith(wanted.get("path", "")) and all(str(fields[key]) == exact[key] for key in exact)


class Faults:
    """One vendor's faults; all off to begin with. The same `seed` fails the same requests of an equal series."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.clear()

    def clear(self) -> None:
        self.shares = Shares()
        self.scripted: list[Scripted] = []
        self._dice = random.Random(self._seed)  # noqa: S311 - faults, not secrets

    def happens(self, share: float) -> bool:
        return share > 0 and self._dice.random() < share

    def take(self, method: str, path: str) -> Scripted | None:
        """The fault this request meets, if any; a scripted one goes before chance."""
        for fault in self.scripted:
            if fault.matches(method, path):
                fault.count -= 1
                self.scripted = [each for each in self.scripted if each.count > 0]
                return fault
        if self.happens(self.shares.timeout):
            return Scripted(path, "hang")
        return Scripted(path, "status", status=503) if self.happens(self.shares.error) else None

    def as_json(self) -> dict[str, Any]:
        return {"shares": asdict(self.shares), "scripted": [asdict(fault) for fault in self.scripted]}


class Door:
    """ASGI: faults, else the vendor, and no answer sooner than the latency; every request is written into the book of
    calls.
    """

    def __init__(
        self,
        app: ASGIApp,
        vendor: str,
        faults: Faults,
        calls: Calls,
        latency: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._app = app
        self._vendor = vendor
        self._faults = faults
        self._calls = calls
        self._latency = latency  # seconds
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        user: dict[str, str] = scope.setdefault("state", {})
        user["user"] = ""
        status = 0
        earliest = monotonic() + self._latency()

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            while (seconds := earliest - monotonic()) > 0:
                await asyncio.sleep(seconds)
            await send(message)

        try:
            await self._answer(scope, receive, noting, path)
        finally:
            self._calls.add(Call(self._vendor, scope["method"], path, user["user"], status, self._clock()))

    async def _answer(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        fault = self._faults.take(scope["method"], path)
        if fault is None:
            await self._app(scope, receive, send)
        elif fault.action == "hang":
            await until_disconnected(receive)
        elif fault.action == "lose_reply":
            await self._app(scope, receive, discard)
            await break_off(send)
        else:
            headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            await JSONResponse({"detail": "A fault made on purpose."}, fault.status, headers)(scope, receive, send)


async def until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def discard(message: Message) -> None:
    """Where an answer goes that nobody is to see."""


async def break_off(send: Send) -> None:
    """Promise a body and end without it: the server then closes the connection, and the client has no answer."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
