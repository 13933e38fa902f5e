"""A vendor's OAuth token endpoint: one refresh, and what its answer says about the refresh token.

Refresh tokens are single use at Oura and WHOOP, so every failure says whether the token may have been used up.
"""

from enum import Enum
from typing import Any

import msgspec
from django.conf import settings

from devices.connection import Client, NoReply, Reply, exchange
from devices.retry_after import seconds_to_wait
from devices.vendors.client import ApiError, Failed, Postponed

LONGEST_LIFE = 366 * 86_400.0
# Oura says `invalid_request` of a refresh token that was used before, where RFC 6749 (5.2) has `invalid_grant`.
REFUSALS = frozenset({"invalid_grant", "invalid_request"})


class Grant(msgspec.Struct, frozen=True):
    """What the endpoint granted. `expires_in` is in seconds; a vendor that keeps the refresh token may leave it out.

    Without `expires_in` an hour is taken: a token that ends earlier is refreshed at its first 401.
    """

    access_token: str
    refresh_token: str = ""
    expires_in: float = 3600.0

    @property
    def life_seconds(self) -> float:
        return min(max(self.expires_in, 0.0), LONGEST_LIFE)


class Fate(Enum):
    """What a failed refresh means for the refresh token that was sent."""

    REFUSED = "refused"
    UNKNOWN = "unknown"  # it may be used up, and the new one lost
    UNTOUCHED = "untouched"


class RefreshFailed(Exception):
    """`cause` is what the delivery that needed the token is told."""

    def __init__(self, fate: Fate, cause: ApiError) -> None:
        super().__init__(str(cause))
        self.fate = fate
        self.cause = cause


async def refresh(client: Client, vendor: str, url: str, refresh_token: str) -> Grant:
    """Trade `refresh_token` for a new grant at `url`. While a secret rotates the older one is tried second.

    Raises `RefreshFailed`.
    """
    for secret in _secrets(vendor):
        reply = await _post(client, url, _form(vendor, refresh_token, secret))
        if _error_code(reply) != "invalid_client":
            return _read(vendor, reply)
    raise RefreshFailed(
        Fate.UNTOUCHED,
        Failed(
            f"{vendor} does not know our client id and secret: set {vendor.upper()}_CLIENT_ID and _CLIENT_SECRET",
            error_class="invalid_client",
        ),
    )


def _secrets(vendor: str) -> tuple[str, ...]:
    secrets: tuple[str, ...] = getattr(settings, f"{vendor.upper()}_CLIENT_SECRETS")
    return secrets[:2]


def _form(vendor: str, refresh_token: str, secret: str) -> dict[str, str]:
    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": getattr(settings, f"{vendor.upper()}_CLIENT_ID"),
        "client_secret": secret,
    }
    # Without it WHOOP may answer without a new refresh token (developer.whoop.com, OAuth, 2026-11).
    return form | {"scope": "offline"} if vendor == "whoop" else form


async def _post(client: Client, url: str, form: dict[str, str]) -> Reply:
    try:
        return await exchange(client, "POST", url, form=form)
    except NoReply as error:
        fate = Fate.UNKNOWN if error.sent else Fate.UNTOUCHED
        raise RefreshFailed(fate, Failed(f"token refresh: {error}", error_class=error.error_class)) from None


def _read(vendor: str, reply: Reply) -> Grant:
    if reply.status >= 500 or reply.status < 200 or reply.status == 408:
        raise _failed(Fate.UNKNOWN, vendor, reply)
    if reply.status == 429:
        wait = seconds_to_wait(reply.headers)
        raise RefreshFailed(Fate.UNTOUCHED, Postponed(f"{vendor}'s token endpoint says to wait {wait:g} s", wait))
    if reply.status >= 300:
        refused = reply.status in {400, 401} and _error_code(reply) in REFUSALS
        raise _failed(Fate.REFUSED if refused else Fate.UNTOUCHED, vendor, reply)
    return _grant(vendor, reply)


def _grant(vendor: str, reply: Reply) -> Grant:
    try:
        grant = msgspec.json.decode(reply.body, type=Grant, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError):
        grant = Grant("")
    if not (grant.access_token and (grant.access_token + grant.refresh_token).isascii()):
        # Whatever stood in it, the refresh token went into it. The body may hold tokens: it is not quoted.
        raise RefreshFailed(
            Fate.UNKNOWN, Failed(f"{vendor}'s token endpoint answered 200 without a token", error_class="bad_answer")
        )
    return grant


def _failed(fate: Fate, vendor: str, reply: Reply) -> RefreshFailed:
    said = _error_code(reply)
    reason = f"{vendor}'s token endpoint answered {reply.status}{f' {said}' if said else ''}"
    return RefreshFailed(fate, Failed(reason, error_class=f"token_http_{reply.status}"))


def _error_code(reply: Reply) -> str:
    """The `error` of RFC 6749, section 5.2, "" where there is none. Anything longer could be an echoed token."""
    if reply.status < 400:
        return ""
    try:
        body: Any = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    code = body.get("error") if isinstance(body, dict) else None
    return code if isinstance(code, str) and len(code) <= 40 and code.replace("_", "").isalpha() else ""
