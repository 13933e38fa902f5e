"""A running sandbox's state: one `VendorState` a vendor, the clock, the book of calls."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from auren.sandbox import oura, whoop
from auren.sandbox.config import SandboxConfig, VendorConfig
from auren.sandbox.database import first_day, open_database
from auren.sandbox.faults import Calls, Faults
from auren.sandbox.grants import Grant, Grants, Vendor
from auren.sandbox.limits import Windows, parse
from auren.sandbox.shelf import Making, Shelf
from auren.sandbox.whoop import Scoring


class VendorError(Exception):
    """An answer that is not what was asked for: raised anywhere in a handler, turned into JSON by the server."""

    def __init__(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status}: {content}")
        self.status = status
        self.content = {"detail": content} if isinstance(content, str) else content
        self.headers = headers or {}


@dataclass(slots=True)
class Knobs:
    """What may be turned while the sandbox runs."""

    latency_ms: float
    access_token_seconds: int


class Clock:
    """The sandbox's time: the configured clock, or a fixed time that a test set."""

    def __init__(self, source: Callable[[], datetime]) -> None:
        self._source = source
        self.fixed: datetime | None = None

    def now(self) -> datetime:
        return self.fixed or self._source()

    def seconds(self) -> float:
        return self.now().timestamp()


class VendorState:
    """All that one vendor knows and how it behaves."""

    def __init__(self, name: Vendor, config: VendorConfig, grants: Grants, shelf: Shelf, seed: int) -> None:
        self.name: Vendor = name
        self.config = config
        self.grants = grants
        self.shelf = shelf
        self.faults = Faults(seed)
        self.restore_settings()

    def restore_settings(self) -> None:
        self.knobs = Knobs(self.config.latency_ms, self.config.access_token_seconds)
        self.limit_calls(self.config.rate_limit)

    def limit_calls(self, text: str) -> None:
        """Keep the limits of `text` from now on, with fresh windows. Raises ValueError for a text that is none."""
        self.rate_limit = text
        self.windows = Windows(parse(text))

    def latency_seconds(self) -> float:
        return self.knobs.latency_ms / 1000

    def grant_of(self, request: Request, now: float) -> Grant:
        """Whose token the request carries. Raises VendorError 401."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        grant = self.grants.by_access_token(token, now) if scheme.lower() == "bearer" else None
        if grant is None:
            raise VendorError(401, "The access token is missing, expired or revoked.", {"WWW-Authenticate": "Bearer"})
        request.scope["state"]["user"] = grant.user_id
        return grant


class Sandbox:
    """Both vendors over one database and one clock."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.clock = Clock(config.clock)
        self.calls = Calls()
        self.scoring = Scoring(config.pending_share, config.pending_minutes, config.unscorable_share)
        self.database = open_database(config.state)
        self._first_day = first_day(self.database, self._days_ago())
        self.oura = self._vendor("oura", config.oura, _oura_making())
        self.whoop = self._vendor("whoop", config.whoop, _whoop_making(self.scoring))

    def _vendor(self, name: Vendor, config: VendorConfig, making: Making) -> VendorState:
        shelf = Shelf(name, making, self.database, self.config.seed)
        return VendorState(name, config, Grants(name, self.database), shelf, self.config.seed)

    def _days_ago(self) -> date:
        return (self.clock.now() - timedelta(days=self.config.days)).date()

    def since(self) -> date:
        """The day histories begin with; an earlier one while a test has set the clock back."""
        return min(self._first_day, self._days_ago())

    def vendor(self, name: object) -> VendorState:
        """Raises VendorError 422 for a vendor there is not."""
        for vendor in (self.oura, self.whoop):
            if vendor.name == name:
                return vendor
        raise VendorError(422, f"vendor must be oura or whoop, not {name!r}.")

    def reset(self) -> None:
        """Back to how it was configured: no grants, no changed documents, no faults, no calls, the real clock."""
        self.clock.fixed = None
        self.calls.clear()
        self.scoring.pending_share = self.config.pending_share
        self.scoring.pending_minutes = self.config.pending_minutes
        for vendor in (self.oura, self.whoop):
            vendor.grants.forget()
            vendor.shelf.forget_changes()
            vendor.faults.clear()
            vendor.restore_settings()
        with self.database:
            self.database.execute("DELETE FROM subscription")

    def close(self) -> None:
        self.database.close()


def _oura_making() -> Making:
    return Making(oura.build, oura.record_of, oura.day_of, oura.order_of, oura.may_be)


def _whoop_making(scoring: Scoring) -> Making:
    build = partial(whoop.build, scoring=scoring)
    return Making(build, whoop.record_of, whoop.day_of, whoop.order_of, whoop.may_be)


def answer(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, "application/json")


async def body_of(request: Request) -> dict[str, Any]:
    """The request's JSON object. Raises VendorError 422."""
    try:
        body = msgspec.json.decode(await request.body() or b"{}")
    except msgspec.DecodeError as error:
        raise VendorError(422, f"The body is not JSON: {error}.") from None
    if not isinstance(body, dict):
        raise VendorError(422, "The body is JSON, but not an object.")
    return body
