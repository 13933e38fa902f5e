"""The end of a link: at the vendor, as far as it can be reached, and here in any case."""

from enum import Enum

import psycopg
from django.db import transaction
from django.db.models import Case, F, When
from django.db.models.functions import Now
from django.utils import timezone

from auren.postgres import pool
from devices import oauth
from devices.connection import Client, open_client
from devices.models import Link, Token
from devices.oauth import Revocation
from devices.tokens import Tokens, unseal
from devices.vendors.client import ApiError

REFRESH_GRACE_SECONDS = 5.0


class Ending(Enum):
    """What became of a link; only `UNASKED` leaves something to do."""

    DONE = "the vendor has ended its grant"
    BEFORE = "the vendor had ended its grant before"
    NOTHING = "no token was stored, so there was nothing to ask the vendor"
    UNASKED = "the vendor could not be asked to end its grant"
    RECONNECTED = "the patient connected it again at the same moment, so it stays"


def disconnect(link: Link) -> Ending:
    """End a link of a vendor that has grants. The vendor goes first: were it second, a crash would lose the token."""
    token = Token.objects.filter(link=link).first()
    ending = oauth.run(end_grant(link, token)) if token else Ending.NOTHING
    return ending if forget(link) else Ending.RECONNECTED


def forget(link: Link) -> bool:
    """Delete the token and mark the link, unless a patient connected it again since `link` was read."""
    since = Case(When(status="revoked", then=F("status_since")), default=Now())
    with transaction.atomic():
        Token.objects.filter(link=link).delete()
        read = Link.objects.filter(pk=link.pk, connected_at=link.connected_at)
        kept = read.update(status="revoked", status_since=since)
        transaction.set_rollback(not kept)
    return bool(kept)


async def end_grant(link: Link, token: Token) -> Ending:
    """Ask with a token that is good, refreshed where it was about to end; a 401 then says that the grant is gone."""
    async with open_client(connections=1) as client:
        fresh = await fresh_token(link, client)
        try:
            access_token = fresh or unseal(token.access_token)
        except ApiError:
            return Ending.UNASKED
        revocation = await oauth.ask_to_revoke(client, link.vendor, access_token, token.issued_by)
    if revocation is Revocation.BEFORE and not fresh and token.expires_at <= timezone.now():
        return Ending.UNASKED  # a token whose time is over is refused, whatever has become of the grant
    return {
        Revocation.DONE: Ending.DONE,
        Revocation.BEFORE: Ending.BEFORE,
        Revocation.FAILED: Ending.UNASKED,
    }[revocation]


async def fresh_token(link: Link, client: Client) -> str:
    """The link's token as a worker would get it, "" when there is none to be had."""
    async with pool("disconnect", 1) as connections:
        tokens = Tokens(connections, client)
        try:
            return await tokens.current(link.pk)
        except (ApiError, psycopg.Error):
            return ""
        finally:
            await tokens.close(REFRESH_GRACE_SECONDS)
