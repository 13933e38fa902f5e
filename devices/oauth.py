"""OAuth 2.0 as a patient connects and disconnects a device: the consent page's address, the code, the account, the end.

Refreshes are `devices.tokens`' business. Nothing here is logged but statuses: addresses and forms hold secrets.
"""

import asyncio
import base64
import hashlib
import logging
import secrets
from collections.abc import Coroutine
from enum import Enum
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec
from django.conf import settings

from devices.connection import Client, NoReply, Reply, exchange, open_client
from devices.token_endpoint import Grant
from devices.vendors.oauth import OAuth
from devices.vendors.oura.oauth import OAUTH as OURA
from devices.vendors.whoop.oauth import OAUTH as WHOOP

VENDORS: dict[str, OAuth] = {"oura": OURA, "whoop": WHOOP}
TRIES = 2  # of what may be asked twice
LONGEST_ACCOUNT_ID = 255
RESULT = TypeVar("RESULT")

logger = logging.getLogger(__name__)


class Fault(Enum):
    """Why a patient who said yes is not connected."""

    CODE = "the vendor does not take the code (any more)"
    LOST = "the code was sent and no answer came back: it may be used up"
    AWAY = "the vendor cannot be reached, or answers with errors"
    BRIEF = "the grant cannot be renewed"
    ACCOUNT = "the grant does not let us see whose account it is"
    OURS = "our own client id, secret or addresses are wrong"


class ConnectFailed(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


class Granted(Grant, frozen=True):
    """The answer to a code. `scope` is None where the vendor does not say: then it is what was asked for."""

    scope: str | None = None


class Connected(NamedTuple):
    granted: Granted
    vendor_user_id: str


class Revocation(Enum):
    """What came of asking a vendor to end a grant."""

    DONE = "revoked"
    BEFORE = "revoked before"
    FAILED = "not revoked"


class Pkce(NamedTuple):
    """RFC 7636, method S256."""

    verifier: str

    @property
    def challenge(self) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def setting(vendor: str, name: str) -> str:
    value: str = getattr(settings, f"{vendor.upper()}_{name}")
    return value


def is_set_up(vendor: str) -> bool:
    return all(setting(vendor, name) for name in ("CLIENT_ID", "CLIENT_SECRET", "AUTHORIZE_URL", "TOKEN_URL"))


def new_state(vendor: str) -> str:
    length = VENDORS[vendor].state_length
    return secrets.token_urlsafe(length)[:length]


def new_verifier(vendor: str) -> str:
    return secrets.token_urlsafe(48) if VENDORS[vendor].pkce else ""


def authorize_url(vendor: str, *, redirect_uri: str, state: str, verifier: str) -> str:
    """The vendor's consent page, for a browser to go to."""
    query = {
        "response_type": "code",
        "client_id": setting(vendor, "CLIENT_ID"),
        "redirect_uri": redirect_uri,
        "scope": " ".join(scope.name for scope in VENDORS[vendor].scopes),
        "state": state,
    }
    if verifier:
        query |= {"code_challenge": Pkce(verifier).challenge, "code_challenge_method": "S256"}
    address = setting(vendor, "AUTHORIZE_URL")
    return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(query)}"


def run(work: Coroutine[Any, Any, RESULT]) -> RESULT:
    """For Django's views, which run in threads without a loop of their own."""
    return asyncio.run(work)


async def connect(vendor: str, *, code: str, verifier: str, redirect_uri: str, token_url: str) -> Connected:
    """Trade the code and look up whose account it is. Raises `ConnectFailed`.

    A grant of an account that stays unknown is forgotten, not given back: it may be one that a link stands on, whose
    webhooks WHOOP would stop.
    """
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
    async with open_client(connections=1) as client:
        granted = await trade(client, vendor, token_url, form | ({"code_verifier": verifier} if verifier else {}))
        return Connected(granted, await account_of(client, vendor, granted))


async def trade(client: Client, vendor: str, url: str, form: dict[str, str]) -> Granted:
    """The grant for a code, which works once: only "I do not know you", said before the code is looked at, lets us
    try the older secret. Raises `ConnectFailed`."""
    for secret in getattr(settings, f"{vendor.upper()}_CLIENT_SECRETS")[:2]:
        credentials = {"client_id": setting(vendor, "CLIENT_ID"), "client_secret": secret}
        reply = await _post(client, url, form | credentials)
        if _error_code(reply) != "invalid_client":
            return _granted(vendor, reply)
    logger.error("%s does not know our client id and secret: nobody can connect", vendor)
    raise ConnectFailed(Fault.OURS)


async def _post(client: Client, url: str, form: dict[str, str]) -> Reply:
    try:
        return await exchange(client, "POST", url, form=form)
    except NoReply as error:
        logger.warning("authorization code: %s", error)
        raise ConnectFailed(Fault.LOST if error.sent else Fault.AWAY) from None


def _granted(vendor: str, reply: Reply) -> Granted:
    if reply.status >= 300:
        logger.warning("%s answered %s to an authorization code", vendor, reply.status)
        raise ConnectFailed(_fault_of(reply.status))
    try:
        granted = msgspec.json.decode(reply.body, type=Granted, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError):
        granted = Granted("")
    if not (granted.access_token and (granted.access_token + granted.refresh_token).isascii()):
        logger.warning("%s answered %s to an authorization code, but with no token", vendor, reply.status)
        raise ConnectFailed(Fault.LOST)
    return granted


def _fault_of(status: int) -> Fault:
    if status >= 500 or status == 408:
        return Fault.LOST
    if status == 429:
        return Fault.AWAY
    return Fault.CODE if status in {400, 401} else Fault.OURS


def _error_code(reply: Reply) -> str:
    if reply.status not in {400, 401}:
        return ""
    try:
        body = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return str(body.get("error", "")) if isinstance(body, dict) else ""


async def account_of(client: Client, vendor: str, granted: Granted) -> str:
    """The vendor's id of whoever gave a grant that lasts. Raises `ConnectFailed`."""
    if not granted.refresh_token:
        raise ConnectFailed(Fault.BRIEF)
    url = f"{setting(vendor, 'API_URL')}{VENDORS[vendor].account_path}"
    reply = await _ask(client, "GET", url, granted.access_token)
    if reply is not None and reply.status == 200:
        return _account_id(vendor, reply)
    logger.warning("%s answered %s when asked whose account it is", vendor, reply.status if reply else "nothing")
    raise ConnectFailed(Fault.ACCOUNT if reply is not None and reply.status == 403 else Fault.AWAY)


def _account_id(vendor: str, reply: Reply) -> str:
    try:
        body = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = None
    found = body.get(VENDORS[vendor].account_id) if isinstance(body, dict) else None
    account = str(found) if isinstance(found, str | int) and not isinstance(found, bool) else ""
    if not (account.isprintable() and 0 < len(account) <= LONGEST_ACCOUNT_ID):
        logger.warning("%s answered without an account's id", vendor)
        raise ConnectFailed(Fault.AWAY)
    return account


async def revoke(vendor: str, access_token: str, issued_by: str) -> Revocation:
    """Ask the vendor to end a grant; `issued_by` is the token address it came from."""
    async with open_client(connections=1) as client:
        return await ask_to_revoke(client, vendor, access_token, issued_by)


async def ask_to_revoke(client: Client, vendor: str, access_token: str, issued_by: str) -> Revocation:
    facts = VENDORS[vendor]
    params = {facts.revoke_parameter: access_token} if facts.revoke_parameter else None
    reply = await _ask(client, facts.revoke_method, revoke_url(vendor, issued_by), access_token, params)
    if reply is not None and reply.status in range(200, 300):
        return Revocation.DONE
    if reply is not None and reply.status == 401:
        return Revocation.BEFORE
    logger.warning("%s answered %s when asked to revoke a grant", vendor, reply.status if reply else "nothing")
    return Revocation.FAILED


def revoke_url(vendor: str, issued_by: str) -> str:
    """The settings' revoke address, or that of another generation where the grant came from there."""
    elsewhere = bool(issued_by) and issued_by != setting(vendor, "TOKEN_URL")
    if elsewhere and VENDORS[vendor].revoke_beside_token and issued_by.endswith("token"):
        return f"{issued_by.removesuffix('token')}revoke"
    return setting(vendor, "REVOKE_URL")


async def _ask(
    client: Client, method: str, url: str, access_token: str, params: dict[str, str] | None = None
) -> Reply | None:
    """What may be asked again, and is when there was no answer or a 5xx; the last answer, None where there was none."""
    headers = {"Authorization": f"Bearer {access_token}"}
    reply = None
    for _ in range(TRIES):
        try:
            reply = await exchange(client, method, url, params=params, headers=headers)
        except NoReply:
            continue
        if reply.status < 500:
            break
    return reply
