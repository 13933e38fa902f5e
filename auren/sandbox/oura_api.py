"""Oura's API v2 over HTTP: collections, single documents, webhook subscriptions.

Errors as vendors.md 1.4 and 1.5 list them: 401 token, 403 scope, 404 single document, 422 parameters, 429 limits.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from auren.sandbox import oura
from auren.sandbox.announce import Announcer
from auren.sandbox.grants import Grant
from auren.sandbox.oauth import is_client, oura_routes
from auren.sandbox.shelf import Key, key_of, page
from auren.sandbox.state import Sandbox, VendorError, answer, body_of
from auren.sandbox.subscriptions import Subscriptions

DOCUMENTS_A_PAGE = 50
ROWS_A_PAGE = 1_000
BY_TIME = {"heartrate", "ring_battery_level"}  # kinds whose list is asked for by instants, and has no single form
# Collections whose end_date is not included, seen with some of the real ones: ask one day wider.
END_EXCLUDED = {"sleep", "daily_activity", "workout"}


@dataclass(frozen=True, slots=True)
class Window:
    """What part of a collection was asked for: `first` to `last` local day, and for rows the instants between."""

    first: date
    last: date
    start_at: datetime | None = None
    end_at: datetime | None = None

    def holds(self, document: dict[str, Any]) -> bool:
        if self.start_at is None or self.end_at is None:
            return True
        return self.start_at <= datetime.fromisoformat(document["timestamp"]) < self.end_at


class OuraApi:
    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.vendor = sandbox.oura

    def _admit(self, request: Request, kind: str) -> Grant:
        """Whose data may be read. Raises VendorError 401, 403 or 429."""
        now = self.sandbox.clock.seconds()
        grant = self.vendor.grant_of(request, now)
        for tier, key in (("token", f"token:{grant.id}"), ("application", "application")):
            standing = self.vendor.windows.admit(key, now)
            if standing is not None and not standing.allowed:
                raise VendorError(429, "Too many requests.", limit_headers(tier, standing, now))
        if oura.SCOPES[kind] not in grant.scopes:
            raise VendorError(403, f"The token does not cover the scope {oura.SCOPES[kind]}.")
        return grant

    async def collection(self, request: Request) -> Response:
        kind = known_kind(request)
        grant = self._admit(request, kind)
        window = self._window(request, kind, grant)
        after = page_key(request.query_params.get("next_token"))
        first = max(window.first, date.fromisoformat(after[0])) if after else window.first
        shelf, now, since = self.vendor.shelf, self.sandbox.clock.now(), self.sandbox.since()
        days = shelf.days(grant.user_id, kind, first, window.last, since, now)
        keyed = shelf.each(grant.user_id, kind, days, since, now, newest_first=False)
        if kind in BY_TIME:
            keyed = (each for each in keyed if window.holds(each[1]))
        size = ROWS_A_PAGE if kind in BY_TIME else DOCUMENTS_A_PAGE
        documents, next_token = page(keyed, after, size, newest_first=False)
        return answer({"data": [chosen(request, each) for each in documents], "next_token": next_token})

    def _window(self, request: Request, kind: str, grant: Grant) -> Window:
        who = self.vendor.shelf.person(grant.user_id)
        now = self.sandbox.clock.now()
        if kind in BY_TIME:
            end_at = instant(request, "end_datetime", who.zone) or now
            start_at = instant(request, "start_datetime", who.zone) or end_at - timedelta(days=1)
            return Window(who.local_day(start_at), who.local_day(end_at), start_at, end_at)
        last = day(request, "end_date") or who.local_day(now)
        first = day(request, "start_date") or last - timedelta(days=1)
        if first > last:
            raise VendorError(422, "start_date must not be after end_date.")
        return Window(first, last - timedelta(days=kind in END_EXCLUDED))

    async def document(self, request: Request) -> Response:
        kind = known_kind(request)
        if kind in BY_TIME:
            raise VendorError(404, "Not Found")
        grant = self._admit(request, kind)
        now, since = self.sandbox.clock.now(), self.sandbox.since()
        record = request.path_params["document_id"]
        lost = self.vendor.faults.happens(self.vendor.faults.shares.not_found)
        found = None if lost else self.vendor.shelf.find(grant.user_id, kind, record, since, now)
        if found is None:
            raise VendorError(404, "Document not found.")
        return answer(chosen(request, found))

    async def personal_info(self, request: Request) -> Response:
        grant = self._admit(request, "personal_info")
        shelf = self.vendor.shelf
        made = oura.personal_info(shelf.person(grant.user_id))
        return answer(shelf.single(grant.user_id, "personal_info") or made)


def limit_headers(tier: str, standing: Any, now: float) -> dict[str, str]:
    return {
        "Retry-After": str(max(1, round(standing.resets_in))),
        "X-RateLimit-Limit": str(standing.limit.calls),
        "X-RateLimit-Window": str(standing.limit.seconds),
        "X-RateLimit-Reset": str(round(now + standing.resets_in)),
        "X-RateLimit-Tier": tier,
    }


def known_kind(request: Request) -> str:
    kind: str = request.path_params["kind"]
    if kind not in oura.SCOPES:
        raise VendorError(404, "Not Found")
    return kind


def page_key(token: str | None) -> Key | None:
    if not token:
        return None
    try:
        key = key_of(token)
        date.fromisoformat(key[0])
    except ValueError:
        raise VendorError(422, "next_token is not one of ours.") from None
    return key


def day(request: Request, name: str) -> date | None:
    text = request.query_params.get(name)
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise VendorError(422, f"{name} must be a date, YYYY-MM-DD.") from None


def instant(request: Request, name: str, zone: Any) -> datetime | None:
    """A time of the query; one without an offset is the person's local time."""
    text = request.query_params.get(name)
    try:
        at = datetime.fromisoformat(text) if text else None
    except ValueError:
        raise VendorError(422, f"{name} must be a time in ISO 8601.") from None
    return at if at is None or at.tzinfo else at.replace(tzinfo=zone).astimezone(UTC)


def chosen(request: Request, document: dict[str, Any]) -> dict[str, Any]:
    """The document with only the `fields` asked for."""
    names = request.query_params.get("fields")
    return {name: document[name] for name in names.split(",") if name in document} if names else document


class SubscriptionApi:
    """Webhook subscriptions, with application credentials. 403 really means "no such subscription", as at Oura."""

    def __init__(self, sandbox: Sandbox, subscriptions: Subscriptions, announcer: Announcer) -> None:
        self.sandbox = sandbox
        self.subscriptions = subscriptions
        self.announcer = announcer

    def guarded(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def with_credentials(request: Request) -> Response:
            headers = request.headers
            if not is_client(self.sandbox.oura, headers.get("x-client-id", ""), headers.get("x-client-secret", "")):
                raise VendorError(401, "x-client-id or x-client-secret is wrong.")
            return await handler(request)

        return with_credentials

    async def list_all(self, request: Request) -> Response:
        del request
        return answer([each.as_json() for each in self.subscriptions.all()])

    async def create(self, request: Request) -> Response:
        wanted = await body_of(request)
        self._check(wanted, ("callback_url", "verification_token", "event_type", "data_type"))
        if self.subscriptions.of_pair(wanted["event_type"], wanted["data_type"]):
            raise VendorError(409, "There is a subscription for this event_type and data_type.")
        await self._handshake(wanted["callback_url"], wanted["verification_token"])
        return answer(self.subscriptions.add(wanted, self.sandbox.clock.seconds()).as_json(), 201)

    async def read(self, request: Request) -> Response:
        return answer(self._found(request).as_json())

    async def update(self, request: Request) -> Response:
        old = self._found(request)
        wanted = await body_of(request)
        self._check(wanted, ("verification_token",))
        await self._handshake(wanted.get("callback_url", old.callback_url), wanted["verification_token"])
        return answer(self.subscriptions.change(old, wanted).as_json())

    async def delete(self, request: Request) -> Response:
        self.subscriptions.remove(self._found(request).id)
        return Response(status_code=204)

    async def renew(self, request: Request) -> Response:
        return answer(self.subscriptions.renew(self._found(request), self.sandbox.clock.seconds()).as_json())

    def _found(self, request: Request) -> Any:
        found = self.subscriptions.get(request.path_params["id"])
        if found is None:
            raise VendorError(403, "Forbidden")
        return found

    def _check(self, wanted: dict[str, Any], required: tuple[str, ...]) -> None:
        missing = [name for name in required if not (isinstance(wanted.get(name), str) and wanted[name])]
        if missing:
            raise VendorError(422, f"Missing: {', '.join(missing)}.")
        if wanted.get("event_type", "create") not in {"create", "update", "delete"}:
            raise VendorError(422, "event_type must be create, update or delete.")
        if wanted.get("data_type", "sleep") not in oura.SUBSCRIBABLE:
            raise VendorError(422, f"data_type must be one of {', '.join(oura.SUBSCRIBABLE)}.")

    async def _handshake(self, callback_url: str, token: str) -> None:
        if not await self.announcer.shake_hands(callback_url, token):
            raise VendorError(422, "callback_url did not answer the verification challenge.")


def routes(sandbox: Sandbox, subscriptions: Subscriptions, announcer: Announcer) -> list[Route]:
    api = OuraApi(sandbox)
    hooks = SubscriptionApi(sandbox, subscriptions, announcer)
    hook = "/v2/webhook/subscription"
    return [
        *oura_routes(sandbox.oura, sandbox.clock),
        Route("/v2/usercollection/personal_info", api.personal_info),
        Route("/v2/usercollection/{kind}", api.collection),
        Route("/v2/usercollection/{kind}/{document_id}", api.document),
        Route(hook, hooks.guarded(hooks.list_all)),
        Route(hook, hooks.guarded(hooks.create), methods=["POST"]),
        Route(hook + "/renew/{id}", hooks.guarded(hooks.renew), methods=["PUT"]),
        Route(hook + "/{id}", hooks.guarded(hooks.read)),
        Route(hook + "/{id}", hooks.guarded(hooks.update), methods=["PUT"]),
        Route(hook + "/{id}", hooks.guarded(hooks.delete), methods=["DELETE"]),
    ]
