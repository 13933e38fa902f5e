"""`/sandbox/…`: what tests and the demo turn, put, break and read. README.md lists every address."""

from collections import Counter
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from auren.sandbox import oura, whoop
from auren.sandbox.announce import Announcement, Announcer, Verb
from auren.sandbox.faults import Scripted, Shares
from auren.sandbox.oauth import LEGACY, PORTAL, WHOOP
from auren.sandbox.physiology import zone_of
from auren.sandbox.revise import delete, find, revise
from auren.sandbox.state import Sandbox, VendorError, VendorState, answer, body_of

VERBS: tuple[Verb, ...] = ("create", "update", "delete")
ACTIONS = ("status", "hang", "lose_reply")


class Control:
    def __init__(self, sandbox: Sandbox, announcer: Announcer) -> None:
        self.sandbox = sandbox
        self.announcer = announcer

    async def health(self, request: Request) -> Response:
        del request
        return answer({"status": "ok"})

    async def people(self, request: Request) -> Response:
        del request
        users = [f"user_{number}" for number in range(1, self.sandbox.config.people + 1)]
        vendors = (self.sandbox.oura, self.sandbox.whoop)
        return answer(
            [
                {
                    "user_id": user,
                    "zone": zone_of(user),
                    "granted": [vendor.name for vendor in vendors if vendor.grants.granted(user)],
                }
                for user in users
            ]
        )

    async def clock(self, request: Request) -> Response:
        """POST `{"now": "<time with offset>"}` stands the clock still, `{"now": null}` lets it run again."""
        if request.method == "POST":
            text = (await body_of(request)).get("now")
            self.sandbox.clock.fixed = aware(text) if text is not None else None
        fixed = self.sandbox.clock.fixed is not None
        return answer({"now": self.sandbox.clock.now().isoformat(), "fixed": fixed})

    async def settings(self, request: Request) -> Response:
        """One vendor's knobs, and how WHOOP scores; a POST changes those it names."""
        body = await body_of(request) if request.method == "POST" else {}
        if body:
            self._turn(body)
        shown = {
            vendor.name: asdict(vendor.knobs) | {"rate_limit": vendor.rate_limit}
            for vendor in (self.sandbox.oura, self.sandbox.whoop)
        }
        return answer(shown | {"scoring": asdict(self.sandbox.scoring)})

    def _turn(self, body: dict[str, Any]) -> None:
        for name in {"pending_share", "pending_minutes"} & set(body):
            setattr(self.sandbox.scoring, name, figure(name, body[name]))
        knobs = {"latency_ms", "access_token_seconds", "rate_limit"} & set(body)
        if not knobs:
            return
        vendor = self.sandbox.vendor(body.get("vendor"))
        for name in knobs - {"rate_limit"}:
            setattr(vendor.knobs, name, figure(name, body[name]))
        if "rate_limit" in knobs:
            try:
                vendor.limit_calls(str(body["rate_limit"]))
            except ValueError as error:
                raise VendorError(422, str(error)) from None

    async def faults(self, request: Request) -> Response:
        """GET shows both vendors' faults, POST sets one vendor's shares, DELETE ends them all."""
        vendors = (self.sandbox.oura, self.sandbox.whoop)
        if request.method == "DELETE":
            for vendor in vendors:
                vendor.faults.clear()
        if request.method == "POST":
            body = await body_of(request)
            shares = self.sandbox.vendor(body.pop("vendor", None)).faults.shares
            for name, value in body.items():
                if name not in {each.name for each in fields(Shares)}:
                    raise VendorError(422, f"{name} is no share; there are error, timeout, not_found, drop_webhook.")
                setattr(shares, name, figure(name, value))
        return answer({vendor.name: vendor.faults.as_json() for vendor in vendors})

    async def script(self, request: Request) -> Response:
        """The next calls of a path meet a fault: the fields are those of `faults.Scripted`, and `vendor`."""
        body = await body_of(request)
        vendor = self.sandbox.vendor(body.pop("vendor", None))
        unknown = set(body) - {each.name for each in fields(Scripted)}
        if unknown or "path" not in body or body.get("action", "status") not in ACTIONS:
            raise VendorError(
                422, "A scripted fault has path, action (status, hang, lose_reply), count, method, status."
            )
        vendor.faults.scripted.append(Scripted(**body))
        return answer(vendor.faults.as_json(), 201)

    async def documents(self, request: Request) -> Response:
        """GET: the newest documents of a person and kind as they stand. POST: serve this document from now on."""
        if request.method == "GET":
            vendor, user, kind = self._target(dict(request.query_params))
            return answer(self._standing(vendor, user, kind, request.query_params.get("record", "")))
        body = await body_of(request)
        vendor, user, kind = self._target(body)
        if not isinstance(body.get("document"), dict):
            raise VendorError(422, "document must be an object.")
        try:
            record = vendor.shelf.put(user, kind, body["document"])
        except (KeyError, ValueError, TypeError) as error:
            raise VendorError(422, f"The document lacks its id, or its day or time: {error!r}.") from None
        return answer({"record": record, "announced": self._told(body, vendor, user, kind, record, "create")}, 201)

    def _standing(self, vendor: VendorState, user: str, kind: str, record: str) -> list[dict[str, Any]]:
        if record:
            return [find(self.sandbox, vendor.name, user, kind, record)]
        now, since = self.sandbox.clock.now(), self.sandbox.since()
        earliest = datetime(1970, 1, 2, tzinfo=UTC).date()
        days = vendor.shelf.days(user, kind, earliest, datetime(9999, 1, 1, tzinfo=UTC).date(), since, now)
        return [document for _, document in vendor.shelf.each(user, kind, days, since, now, newest_first=False)]

    async def edit(self, request: Request) -> Response:
        """A new revision of a document, the newest where no `record` is named; `changes` are merged into it."""
        body = await body_of(request)
        vendor, user, kind = self._target(body)
        document = revise(self.sandbox, vendor.name, user, kind, str(body.get("record", "")), body.get("changes"))
        record = vendor.shelf.making.record_of(kind, document)
        return answer({"document": document, "announced": self._told(body, vendor, user, kind, record, "update")})

    async def remove(self, request: Request) -> Response:
        body = await body_of(request)
        vendor, user, kind = self._target(body)
        record = delete(self.sandbox, vendor.name, user, kind, str(body.get("record", "")))
        return answer({"record": record, "announced": self._told(body, vendor, user, kind, record, "delete")})

    def _target(self, body: dict[str, Any]) -> tuple[VendorState, str, str]:
        vendor = self.sandbox.vendor(body.get("vendor"))
        user, kind = body.get("user"), body.get("kind")
        kinds = oura.SCOPES if vendor.name == "oura" else whoop.SCOPES
        if not isinstance(user, str) or not user:
            raise VendorError(422, "user is missing.")
        if kind not in kinds:
            raise VendorError(422, f"kind must be one of {', '.join(kinds)}.")
        return vendor, user, str(kind)

    def _told(
        self, body: dict[str, Any], vendor: VendorState, user: str, kind: str, record: str, verb: Verb
    ) -> list[dict[str, Any]]:
        """Announce what was just done, where the request says `"announce": true`."""
        return self._announce(vendor, user, kind, verb, record) if body.get("announce") is True else []

    def _announce(self, vendor: VendorState, user: str, kind: str, verb: Verb, record: str) -> list[dict[str, Any]]:
        """Also what the vendor says of its own accord: a WHOOP sleep speaks for its recovery too."""
        kinds = (kind, "recovery") if vendor.name == "whoop" and kind == "sleep" else (kind,)
        told = [self.announcer.announce(vendor.name, user, each, verb, record) for each in kinds]
        return [one.as_json() for one in told if isinstance(one, Announcement)]

    async def announce(self, request: Request) -> Response:
        """Announce a document, the newest where no `record` is named; 409 when nobody may or wants to hear of it."""
        body = await body_of(request)
        vendor, user, kind = self._target(body)
        verb = body.get("verb", "update")
        if verb not in VERBS:
            raise VendorError(422, f"verb must be one of {', '.join(VERBS)}.")
        record = str(body.get("record", ""))
        if not record:
            record = vendor.shelf.making.record_of(kind, find(self.sandbox, vendor.name, user, kind))
        one = self.announcer.announce(vendor.name, user, kind, verb, record)
        if one is None:
            raise VendorError(409, f"{user} has not granted access at {vendor.name}, or there is nowhere to send it.")
        if body.get("wait") is True:
            await self.announcer.settle()
        return answer(one.as_json(), 201)

    async def announcements(self, request: Request) -> Response:
        """What was announced, oldest first; with `?wait=1` once every try was made."""
        if request.query_params.get("wait") == "1":
            await self.announcer.settle()
        sent = list(self.announcer.sent)
        counts = Counter(one.outcome for one in sent)
        return answer({"outcomes": counts, "announcements": [one.as_json() for one in sent]})

    async def calls(self, request: Request) -> Response:
        """The requests that match `vendor`, `method`, `path` (a prefix), `user` and `status`; DELETE forgets them."""
        book = self.sandbox.calls
        if request.method == "DELETE":
            book.clear()
        wanted = {name: request.query_params[name] for name in ("vendor", "method", "path", "user", "status")
                  if name in request.query_params}  # fmt: skip
        found = book.matching(wanted)
        totals = {f"{vendor} {status}": number for (vendor, status), number in book.totals.items()}
        return answer({"count": len(found), "calls": [call._asdict() for call in found], "totals": totals})

    async def grants(self, request: Request) -> Response:
        """GET: who has granted. POST: tokens at once, for `user` or each of `users`. DELETE: the person withdraws."""
        if request.method == "GET":
            return answer({vendor.name: vendor.grants.users() for vendor in (self.sandbox.oura, self.sandbox.whoop)})
        body = await body_of(request)
        vendor = self.sandbox.vendor(body.get("vendor"))
        users = body["users"] if "users" in body else [body.get("user")]
        if not (isinstance(users, list) and users and all(isinstance(user, str) and user for user in users)):
            raise VendorError(422, "user, or a list of users, is missing.")
        if request.method == "DELETE":
            return answer({"revoked": sum(vendor.grants.kill_all_of(user) for user in users)})
        tokens = self._minted(vendor, users, body)
        return answer(tokens if "users" in body else tokens[0], 201)

    def _minted(self, vendor: VendorState, users: list[str], body: dict[str, Any]) -> list[dict[str, Any]]:
        every = oura.ALL_SCOPES if vendor.name == "oura" else whoop.ALL_SCOPES
        issuer = WHOOP if vendor.name == "whoop" else PORTAL if body.get("issuer") == PORTAL else LEGACY
        seconds = int(figure("expires_in", body.get("expires_in", vendor.knobs.access_token_seconds)))
        scopes = tuple(body.get("scopes", every))
        minted = vendor.grants.grant_many(users, scopes, issuer, seconds, self.sandbox.clock.seconds())
        return [asdict(tokens) for tokens in minted]

    async def reset(self, request: Request) -> Response:
        del request
        self.announcer.forget()
        self.sandbox.reset()
        return Response(status_code=204)


def figure(name: str, value: object) -> float:
    """A number of a body that is not negative. Raises VendorError 422."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise VendorError(422, f"{name} must be a number, 0 or more.")
    return value


def aware(text: object) -> datetime:
    """A time of a body, which must say its offset. Raises VendorError 422."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        raise VendorError(422, f"{text!r} is no time in ISO 8601.") from None
    if at.tzinfo is None:
        raise VendorError(422, f"{text!r} has no offset: add Z or +hh:mm.")
    return at.astimezone(UTC)


def routes(sandbox: Sandbox, announcer: Announcer) -> list[Route]:
    control = Control(sandbox, announcer)
    return [
        Route("/health", control.health),
        Route("/people", control.people),
        Route("/clock", control.clock, methods=["GET", "POST"]),
        Route("/settings", control.settings, methods=["GET", "POST"]),
        Route("/faults", control.faults, methods=["GET", "POST", "DELETE"]),
        Route("/faults/script", control.script, methods=["POST"]),
        Route("/documents", control.documents, methods=["GET", "POST"]),
        Route("/documents/edit", control.edit, methods=["POST"]),
        Route("/documents/delete", control.remove, methods=["POST"]),
        Route("/announce", control.announce, methods=["POST"]),
        Route("/announcements", control.announcements),
        Route("/calls", control.calls, methods=["GET", "DELETE"]),
        Route("/grants", control.grants, methods=["GET", "POST", "DELETE"]),
        Route("/reset", control.reset, methods=["POST"]),
    ]
