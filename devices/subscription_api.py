"""Oura's webhook subscription routes: list, create, update, renew, delete, with the application's own credentials.

https://cloud.ouraring.com/v2/docs, webhook subscription routes, 2026-11.
"""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import stamina
from django.conf import settings

from devices.connection import Client, NoReply, Reply, exchange
from devices.retry_after import seconds_to_wait
from devices.vendors.oura.webhook import canonical_kind

PATH = "/v2/webhook/subscription"
TRIES = 3
TRY_SECONDS = 12.0
LONGEST_PAUSE_SECONDS = 5.0
REASON_LENGTH = 200


class Pair(NamedTuple):
    event_type: str
    data_type: str

    def __str__(self) -> str:
        return f"{self.data_type} {self.event_type}"


class Standing(NamedTuple):
    """A subscription as Oura has it; `expires_at` is None where Oura's text could not be read."""

    id: str
    pair: Pair
    callback_url: str
    expires_at: datetime | None


class NotDone(Exception):
    """Oura did not do it. The text is for support, and holds no secret."""


class Unsure(NotDone):
    """It may have been done, or the world is not as it was listed: only another look at the list can tell."""


class Busy(Exception):
    """A passing fault that Oura itself reported."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"Oura answered {reply.status}")
        self.wait_seconds = seconds_to_wait(reply.headers) if "retry-after" in reply.headers else None


class SubscriptionApi:
    """Oura's subscription routes. Every method raises `NotDone`, or `Unsure` when only the list can tell."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def all(self) -> list[Standing]:
        return [standing_of(each) for each in _parsed(await self._repeated("GET", ""), list)]

    async def create(self, pair: Pair, address: str) -> Standing:
        """Not repeated: a reply that was lost, like a 409, is answered by the list."""
        form = {"event_type": pair.event_type, "data_type": pair.data_type, **_handshake(address)}
        try:
            reply = await self._send("POST", "", form)
        except NoReply as error:
            raise Unsure(str(error)) from None
        if reply.status == 409 or _is_passing(reply):
            raise Unsure(f"Oura answered {reply.status}")
        return standing_of(_parsed(reply, dict))

    async def move(self, standing: Standing, address: str) -> Standing:
        reply = await self._repeated("PUT", f"/{standing.id}", _handshake(address))
        return standing_of(_parsed(_still_there(reply), dict))

    async def renew(self, standing: Standing) -> Standing:
        reply = await self._repeated("PUT", f"/renew/{standing.id}")
        return standing_of(_parsed(_still_there(reply), dict))

    async def remove(self, standing: Standing) -> None:
        reply = await self._repeated("DELETE", f"/{standing.id}")
        if reply.status != 403:  # gone already
            _check(reply)

    async def _repeated(self, method: str, path: str, form: dict[str, str] | None = None) -> Reply:
        """A call that may be made twice, made again while what fails is passing."""
        try:
            async for attempt in stamina.retry_context(
                on=worth_repeating, attempts=TRIES, timeout=TRY_SECONDS, wait_max=LONGEST_PAUSE_SECONDS
            ):
                with attempt:
                    reply = _heard(await self._send(method, path, form))
        except (NoReply, Busy) as error:
            raise NotDone(f"{error}: Oura is away, the next check tries again") from None
        return reply

    async def _send(self, method: str, path: str, form: dict[str, str] | None = None) -> Reply:
        """While a secret rotates, the older one is shown second. Raises `NoReply`."""
        for secret in settings.OURA_CLIENT_SECRETS[:2]:
            headers = {"x-client-id": settings.OURA_CLIENT_ID, "x-client-secret": secret}
            reply = await exchange(self._client, method, PATH + path, json=form, headers=headers)
            if reply.status != 401:
                return reply
        raise NotDone("Oura does not know our client id and secret: set OURA_CLIENT_ID and OURA_CLIENT_SECRET")


def _heard(reply: Reply) -> Reply:
    if _is_passing(reply):
        raise Busy(reply)
    return reply


def _is_passing(reply: Reply) -> bool:
    return reply.status in {408, 429} or reply.status >= 500


def worth_repeating(error: Exception) -> bool | float:
    if isinstance(error, Busy) and error.wait_seconds is not None:
        return error.wait_seconds if error.wait_seconds <= LONGEST_PAUSE_SECONDS else False
    return isinstance(error, Busy | NoReply)


def _handshake(address: str) -> dict[str, str]:
    return {"callback_url": address, "verification_token": settings.OURA_VERIFICATION_TOKEN}


def _still_there(reply: Reply) -> Reply:
    """Oura says 403 where others say 404 (seen by Tidepool, vendors.md 1.1, 2026-08)."""
    if reply.status == 403:
        raise Unsure("Oura no longer knows this subscription")
    return reply


def _check(reply: Reply) -> None:
    if reply.status == 422:
        raise NotDone(f"Oura refused it (422: {_why(reply)}). Is our address the right one, and does it answer?")
    if not 200 <= reply.status < 300:
        raise NotDone(f"Oura refused it ({reply.status}: {_why(reply)})")


def _parsed(reply: Reply, shape: type[Any]) -> Any:
    _check(reply)
    try:
        return msgspec.json.decode(reply.body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Unsure(f"Oura answered {reply.status}, but not with what its documentation says") from None


def _why(reply: Reply) -> str:
    """Oura's own words, short, on one line, and without the secrets that a refusal may quote."""
    text = _detail(reply.body)
    for secret in (*settings.OURA_CLIENT_SECRETS, settings.OURA_VERIFICATION_TOKEN):
        text = text.replace(secret, "[secret]")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:REASON_LENGTH]


def _detail(body: bytes) -> str:
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        document = msgspec.json.decode(body)
        if isinstance(document, dict) and document.get("detail"):
            return str(document["detail"])
    return body.decode(errors="replace")


def standing_of(document: Any) -> Standing:
    """Raises `Unsure` for what is no subscription."""
    try:
        pair = Pair(str(document["event_type"]), canonical_kind(str(document["data_type"])))
        return Standing(str(document["id"]), pair, str(document["callback_url"]), expiry(document["expiration_time"]))
    except (KeyError, TypeError):
        raise Unsure("Oura's list holds something that is no subscription") from None


def expiry(text: object) -> datetime | None:
    """Oura writes no zone and means UTC (Tidepool reads it so in production, vendors.md 1.1)."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
