"""Who is asking: a program by its token, or a person by the session of the pages (then with CSRF)."""

from django.contrib.auth.models import User
from rest_framework.authentication import BaseAuthentication, SessionAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from auren.console.models import AccessToken

REALM = 'Bearer realm="AUREN"'
LONGEST = 200


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer auren_…` (RFC 6750)."""

    def authenticate(self, request: Request) -> tuple[User, AccessToken] | None:
        scheme, _, text = get_authorization_header(request).strip().partition(b" ")
        if not scheme:
            return None
        if scheme.lower() != b"bearer":
            raise AuthenticationFailed("Send the token as `Authorization: Bearer …`: no other scheme is known.")
        token = AccessToken.of_text(text.strip().decode("latin-1")) if len(text) <= LONGEST else None
        if token is None:
            raise AuthenticationFailed("The token is unknown, expired or revoked, or its user may not sign in.")
        token.note_use()
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        wrong = bool(get_authorization_header(request))
        return REALM + (', error="invalid_token"' if wrong else "")


class PageSession(SessionAuthentication):
    """DRF's own, under a name of ours so that the schema can describe it: unsafe methods need the CSRF token."""
