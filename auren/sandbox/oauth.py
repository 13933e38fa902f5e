"""OAuth 2 as Oura and WHOOP speak it: consent, authorization code with PKCE, single-use refresh tokens, revocation.

Oura has two generations of addresses. Each authorization belongs to the one it was made at; the other's token address
refuses it, and burns an authorization code that is tried there.
"""

import base64
import hashlib
import hmac
from html import escape
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from auren.sandbox import oura, whoop
from auren.sandbox.grants import Code, GrantError, Tokens
from auren.sandbox.state import Clock, VendorError, VendorState, answer

LEGACY, PORTAL, WHOOP = "legacy", "portal", "whoop"
SHORTEST_STATE = 8  # WHOOP's; Oura takes any
PORTAL_PREFIX = "extapi:"  # how Oura's newer identity provider writes scopes

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{vendor} sandbox: allow access?</title></head>
<body><h1>{vendor} sandbox</h1>
<p>Allow this application to read your data?</p>
<form method="get">{hidden}
<p><label>Your user id <input name="login_hint" value="{user}" required></label></p>
<p><label>Scopes to allow <input name="scope_granted" value="{scopes}" size="80"></label></p>
<p><button name="auto" value="1">Allow</button> <button name="deny" value="1">Deny</button></p>
</form></body></html>
"""
PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}


class OAuth:
    """The authorize, token and revoke addresses of one vendor's generation (`issuer`)."""

    def __init__(self, vendor: VendorState, clock: Clock, issuer: str) -> None:
        self.vendor = vendor
        self.clock = clock
        self.issuer = issuer
        self.scopes = oura.ALL_SCOPES if vendor.name == "oura" else whoop.ALL_SCOPES

    async def authorize(self, request: Request) -> Response:
        """The consent page; with `auto=1` or `deny=1` the person's answer, as a redirect."""
        query = dict(request.query_params)
        redirect_uri = self._checked_redirect(query)
        if error := self._error_in(query):
            return self._back(redirect_uri, query, {"error": error})
        if query.get("deny") == "1":
            return self._back(redirect_uri, query, {"error": "access_denied"})
        if query.get("auto") == "1" and query.get("login_hint"):
            return self._allow(redirect_uri, query)
        return HTMLResponse(self._page(query), headers=PAGE_HEADERS)

    def _checked_redirect(self, query: dict[str, str]) -> str:
        """Where to send the person back. Raises VendorError 400 where that cannot be trusted."""
        if query.get("client_id") != self.vendor.config.client_id:
            raise VendorError(400, {"error": "invalid_client", "error_description": "Unknown client_id."})
        target = urlsplit(query.get("redirect_uri", ""))
        if target.scheme not in {"http", "https"} or not target.netloc:
            raise VendorError(400, {"error": "invalid_request", "error_description": "redirect_uri must be absolute."})
        return target.geturl()

    def _error_in(self, query: dict[str, str]) -> str:
        if query.get("response_type") != "code":
            return "unsupported_response_type"
        if "code_challenge" in query and query.get("code_challenge_method") != "S256":
            return "invalid_request"
        if self.issuer == WHOOP and len(query.get("state", "")) < SHORTEST_STATE:
            return "invalid_state"
        return "invalid_scope" if set(self._asked(query)) - set(self.scopes) else ""

    def _asked(self, query: dict[str, str]) -> tuple[str, ...]:
        return plain_scopes(query.get("scope", "")) or self.scopes

    def _allow(self, redirect_uri: str, query: dict[str, str]) -> Response:
        """Send a code for what was asked, or the part of it that `scope_granted` names."""
        asked = self._asked(query)
        kept = plain_scopes(query["scope_granted"]) if "scope_granted" in query else asked
        scopes = tuple(scope for scope in asked if scope in kept)
        challenge = query.get("code_challenge", "")
        code = Code(query["login_hint"], query["redirect_uri"], scopes, challenge, self.issuer)
        text = self.vendor.grants.new_code(code, self.clock.seconds())
        return self._back(redirect_uri, query, {"code": text, "scope": self._written(scopes)})

    def _back(self, redirect_uri: str, query: dict[str, str], result: dict[str, str]) -> Response:
        if "state" in query:
            result["state"] = query["state"]
        joined = "&" if urlsplit(redirect_uri).query else "?"
        return RedirectResponse(f"{redirect_uri}{joined}{urlencode(result)}", status_code=302)

    def _page(self, query: dict[str, str]) -> str:
        chosen = {"login_hint", "scope_granted", "auto", "deny"}
        hidden = "".join(
            f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
            for name, value in query.items()
            if name not in chosen
        )
        return PAGE.format(
            vendor=self.vendor.name.upper() if self.vendor.name == "whoop" else "Oura",
            hidden=hidden,
            user=escape(query.get("login_hint", "user_1")),
            scopes=escape(" ".join(self._asked(query))),
        )

    def _written(self, scopes: tuple[str, ...]) -> str:
        prefix = PORTAL_PREFIX if self.issuer == PORTAL else ""
        return " ".join(prefix + scope for scope in scopes)

    async def token(self, request: Request) -> Response:
        form = await form_of(request)
        self._check_client(request, form)
        try:
            tokens = self._exchange(form)
        except GrantError as error:
            raise VendorError(400, {"error": error.error, "error_description": error.description}) from None
        request.scope["state"]["user"] = tokens.user_id
        return answer(self._token_reply(tokens), headers={"Cache-Control": "no-store"})

    def _exchange(self, form: dict[str, str]) -> Tokens:
        now, seconds = self.clock.seconds(), self.vendor.knobs.access_token_seconds
        grants = self.vendor.grants
        if form.get("grant_type") == "authorization_code":
            code = grants.take_code(form.get("code", ""), self.issuer, now)
            if code.redirect_uri != form.get("redirect_uri"):
                raise GrantError("invalid_grant", "redirect_uri is not the one the code was sent to.")
            if not verifies(code.challenge, form.get("code_verifier", "")):
                raise GrantError("invalid_grant", "code_verifier does not fit the code's challenge.")
            return grants.grant(code.user_id, code.scopes, self.issuer, seconds, now)
        if form.get("grant_type") == "refresh_token":
            scopes = plain_scopes(form.get("scope", ""))
            return grants.refresh(form.get("refresh_token", ""), self.issuer, scopes, seconds, now)
        raise GrantError("unsupported_grant_type", "grant_type must be authorization_code or refresh_token.")

    def _token_reply(self, tokens: Tokens) -> dict[str, object]:
        reply: dict[str, object] = {
            "access_token": tokens.access_token,
            "token_type": "bearer",
            "expires_in": tokens.expires_in,
            "scope": self._written(tokens.scopes),
        }
        return reply | ({"refresh_token": tokens.refresh_token} if tokens.refresh_token else {})

    def _check_client(self, request: Request, form: dict[str, str]) -> None:
        """Form fields or HTTP Basic. Raises VendorError 401."""
        identity, secret = form.get("client_id", ""), form.get("client_secret", "")
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            identity, _, secret = basic_credentials(encoded)
        if not is_client(self.vendor, identity, secret):
            content = {"error": "invalid_client", "error_description": "Unknown client_id or wrong client_secret."}
            raise VendorError(401, content, {"WWW-Authenticate": "Basic"})

    async def revoke(self, request: Request) -> Response:
        """End the authorization of the token in the query, the form or the header. 401: it had ended already."""
        form = await form_of(request)
        _, _, bearer = request.headers.get("authorization", "").partition(" ")
        token = request.query_params.get("access_token") or form.get("token") or form.get("access_token") or bearer
        identity = self.vendor.grants.by_any_token(token)
        if identity is None:
            raise VendorError(401, {"error": "invalid_token"})
        self.vendor.grants.kill(identity)
        return answer({})


def is_client(vendor: VendorState, identity: str, secret: str) -> bool:
    """Whether these are the application's credentials; either secret will do while it rotates."""
    known = [hmac.compare_digest(secret.encode(), each.encode()) for each in vendor.config.client_secrets]
    return identity == vendor.config.client_id and any(known)


def plain_scopes(text: str) -> tuple[str, ...]:
    """The scopes of a space- or plus-separated text, without the newer provider's prefix."""
    return tuple(scope.removeprefix(PORTAL_PREFIX) for scope in text.replace("+", " ").split())


def verifies(challenge: str, verifier: str) -> bool:
    """RFC 7636, S256. Without a challenge there is nothing to verify."""
    if not challenge:
        return True
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
    return hmac.compare_digest(digest, challenge.encode())


def basic_credentials(encoded: str) -> tuple[str, str, str]:
    try:
        return base64.b64decode(encoded).decode().partition(":")
    except ValueError:  # covers what is neither base64 nor UTF-8
        return "", "", ""


async def form_of(request: Request) -> dict[str, str]:
    return dict(parse_qsl((await request.body()).decode(errors="replace")))


def oura_routes(vendor: VendorState, clock: Clock) -> list[Route]:
    legacy, portal = OAuth(vendor, clock, LEGACY), OAuth(vendor, clock, PORTAL)
    return [
        Route("/oauth/authorize", legacy.authorize),
        Route("/oauth/token", legacy.token, methods=["POST"]),
        Route("/oauth/revoke", legacy.revoke, methods=["POST"]),
        Route("/oauth/v2/ext/oauth-authorize", portal.authorize),
        Route("/oauth/v2/ext/oauth-token", portal.token, methods=["POST"]),
        Route("/oauth/v2/ext/oauth-revoke", portal.revoke, methods=["POST"]),
    ]


def whoop_routes(vendor: VendorState, clock: Clock) -> list[Route]:
    oauth = OAuth(vendor, clock, WHOOP)
    return [
        Route("/oauth/oauth2/auth", oauth.authorize),
        Route("/oauth/oauth2/token", oauth.token, methods=["POST"]),
    ]
