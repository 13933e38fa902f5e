"""WHOOP's API v2 over HTTP: collections, single documents, what hangs on a cycle, the end of access."""

from datetime import UTC, date, datetime, timedelta
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from auren.sandbox import whoop
from auren.sandbox.grants import Grant
from auren.sandbox.limits import Limit, Standing
from auren.sandbox.oauth import whoop_routes
from auren.sandbox.shelf import Document, key_of, page
from auren.sandbox.state import Sandbox, VendorError, answer

LIMIT, MOST = 10, 25  # documents a page
PATHS = {
    "cycle": "/v2/cycle",
    "recovery": "/v2/recovery",
    "sleep": "/v2/activity/sleep",
    "workout": "/v2/activity/workout",
}
EARLIEST, LATEST = datetime(1970, 1, 2, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


class WhoopApi:
    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.vendor = sandbox.whoop

    def _admit(self, request: Request, scope: str) -> tuple[Grant, dict[str, str]]:
        """Whose data may be read, and the limit's headers. Raises VendorError 401, 403 or 429."""
        now = self.sandbox.clock.seconds()
        grant = self.vendor.grant_of(request, now)
        standing = self.vendor.windows.admit("application", now)
        headers = limit_headers(standing, self.vendor.windows.limits) if standing else {}
        if standing is not None and not standing.allowed:
            raise VendorError(429, "Too many requests.", headers)
        if scope and scope not in grant.scopes:
            raise VendorError(403, f"The token does not cover the scope {scope}.")
        return grant, headers

    async def collection(self, request: Request, kind: str) -> Response:
        grant, headers = self._admit(request, whoop.SCOPES[kind])
        size = page_size(request)
        start = max(EARLIEST, instant(request, "start") or EARLIEST)
        end = min(LATEST, instant(request, "end") or LATEST)
        token = request.query_params.get("nextToken")
        try:
            after = key_of(token) if token else None
            newest = date.fromisoformat(after[0]) if after else end.date() + timedelta(days=2)
        except ValueError:
            raise VendorError(400, "nextToken is not one of ours.") from None
        shelf, now, since = self.vendor.shelf, self.sandbox.clock.now(), self.sandbox.since()
        days = shelf.days(grant.user_id, kind, (start - timedelta(days=1)).date(), newest, since, now)
        keyed = shelf.each(grant.user_id, kind, reversed(days), since, now, newest_first=True)
        wanted = (each for each in keyed if start <= whoop.moment_of(each[1]) < end)
        records, next_token = page(wanted, after, size, newest_first=True)
        return answer({"records": records, "next_token": next_token}, headers=headers)

    def _find(self, grant: Grant, kind: str, record: str) -> Document:
        shelf, now, since = self.vendor.shelf, self.sandbox.clock.now(), self.sandbox.since()
        lost = self.vendor.faults.happens(self.vendor.faults.shares.not_found)
        found = None if lost else shelf.find(grant.user_id, kind, record, since, now)
        if found is None:
            raise VendorError(404, "Not found.")
        return found

    async def document(self, request: Request, kind: str) -> Response:
        grant, headers = self._admit(request, whoop.SCOPES[kind])
        return answer(self._find(grant, kind, request.path_params["id"]), headers=headers)

    async def of_cycle(self, request: Request, kind: str) -> Response:
        """The sleep or the recovery that opened a cycle."""
        grant, headers = self._admit(request, whoop.SCOPES[kind])
        cycle_id: int = request.path_params["id"]
        known = whoop.day_of_integer(grant.user_id, cycle_id)
        shelf, now, since = self.vendor.shelf, self.sandbox.clock.now(), self.sandbox.since()
        made = shelf.on_day(grant.user_id, kind, known[0], since, now) if known else []
        candidates = [*made, *shelf.put_by_hand(grant.user_id, kind)]
        mine = [each for each in candidates if each.get("cycle_id") == cycle_id and not each.get("nap")]
        if not mine:
            raise VendorError(404, "Not found.")
        return answer(mine[0], headers=headers)

    async def single(self, request: Request, kind: str) -> Response:
        grant, headers = self._admit(request, whoop.SCOPES[kind])
        shelf = self.vendor.shelf
        made = whoop.SINGLES[kind](shelf.person(grant.user_id))
        return answer(shelf.single(grant.user_id, kind) or made, headers=headers)

    async def end_access(self, request: Request) -> Response:
        grant, headers = self._admit(request, "")
        self.vendor.grants.kill(grant.id)
        return Response(status_code=204, headers=headers)

    async def mapping(self, request: Request) -> Response:
        """The v2 id of what had an integer id in v1."""
        grant, headers = self._admit(request, "")
        known = whoop.day_of_integer(grant.user_id, request.path_params["id"])
        if known is None or known[1] == whoop.CYCLE_SLOT:
            raise VendorError(404, "Not found.")
        day, slot = known
        kind, first = ("workout", whoop.WORKOUT_SLOT) if slot >= whoop.WORKOUT_SLOT else ("sleep", whoop.NIGHT_SLOT)
        return answer({"v2_activity_id": whoop.record_id(kind, grant.user_id, day, slot - first)}, headers=headers)


def limit_headers(standing: Standing, limits: tuple[Limit, ...]) -> dict[str, str]:
    """WHOOP writes every limit, and how many calls the tightest one still allows for how many seconds."""
    every = ", ".join(f"{limit.calls};window={limit.seconds}" for limit in limits)
    return {
        "X-RateLimit-Limit": every,
        "X-RateLimit-Remaining": str(standing.remaining),
        "X-RateLimit-Reset": str(max(1, round(standing.resets_in))),
    }


def page_size(request: Request) -> int:
    text = request.query_params.get("limit", str(LIMIT))
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise VendorError(400, f"limit must be 1 to {MOST}.")
    return int(text)


def instant(request: Request, name: str) -> datetime | None:
    text = request.query_params.get(name)
    try:
        at = datetime.fromisoformat(text) if text else None
    except ValueError:
        raise VendorError(400, f"{name} must be a time in ISO 8601.") from None
    return at if at is None or at.tzinfo else at.replace(tzinfo=UTC)


def routes(sandbox: Sandbox) -> list[Route]:
    """The API below `/v2`, as real clients know it below `/developer/v2`; both are served."""
    return [*whoop_routes(sandbox.whoop, sandbox.clock), *_below("", sandbox), *_below("/developer", sandbox)]


def _below(prefix: str, sandbox: Sandbox) -> list[Route]:
    api = WhoopApi(sandbox)
    collections = [Route(prefix + path, partial(api.collection, kind=kind)) for kind, path in PATHS.items()]
    return [
        *collections,
        Route(prefix + "/v2/activity/sleep/{id}", partial(api.document, kind="sleep")),
        Route(prefix + "/v2/activity/workout/{id}", partial(api.document, kind="workout")),
        Route(prefix + "/v2/cycle/{id}", partial(api.document, kind="cycle")),
        Route(prefix + "/v2/cycle/{id:int}/sleep", partial(api.of_cycle, kind="sleep")),
        Route(prefix + "/v2/cycle/{id:int}/recovery", partial(api.of_cycle, kind="recovery")),
        Route(prefix + "/v2/user/measurement/body", partial(api.single, kind="body_measurement")),
        Route(prefix + "/v2/user/profile/basic", partial(api.single, kind="profile")),
        Route(prefix + "/v2/user/access", api.end_access, methods=["DELETE"]),
        Route(prefix + "/v1/activity-mapping/{id:int}", api.mapping),
    ]
