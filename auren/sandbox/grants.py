"""Who has granted what: authorizations with their access and refresh tokens, under the vendors' rotation rules."""

import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Vendor = Literal["oura", "whoop"]
CODE_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Rules:
    """How one vendor treats tokens. `error` is what it says of a refresh token that is spent or unknown."""

    error: str
    refresh_kills_access: bool
    offline_scope: bool  # a refresh token is only given to who asks for the scope `offline`


RULES: dict[Vendor, Rules] = {
    "oura": Rules(error="invalid_request", refresh_kills_access=False, offline_scope=False),
    "whoop": Rules(error="invalid_grant", refresh_kills_access=True, offline_scope=True),
}


@dataclass(frozen=True, slots=True)
class Code:
    user_id: str
    redirect_uri: str
    scopes: tuple[str, ...]
    challenge: str
    issuer: str


@dataclass(frozen=True, slots=True)
class Grant:
    """A live access token's authorization."""

    id: int
    user_id: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tokens:
    access_token: str
    refresh_token: str | None
    expires_in: int
    scopes: tuple[str, ...]
    user_id: str


class GrantError(Exception):
    """A code or a refresh token that is not taken. `error` is the OAuth error code."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description


class Grants:
    """One vendor's authorizations. `issuer` tells its generations of token address apart."""

    def __init__(self, vendor: Vendor, database: sqlite3.Connection) -> None:
        self.vendor = vendor
        self.rules = RULES[vendor]
        self._database = database

    def _rows(self, sql: str, *values: object) -> list[Any]:
        return self._database.execute(sql, values).fetchall()

    def new_code(self, code: Code, now: float) -> str:
        text = secrets.token_urlsafe(24)
        scopes = " ".join(code.scopes)
        values = (text, self.vendor, code.user_id, code.redirect_uri, scopes, code.challenge, code.issuer)
        with self._database:
            self._database.execute("INSERT INTO code VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*values, now + CODE_SECONDS))
        return text

    def take_code(self, text: str, issuer: str, now: float) -> Code:
        """The code, which is gone from then on, even when it is refused here."""
        wanted = "SELECT user_id, redirect_uri, scopes, challenge, issuer, expires_at FROM code"
        rows = self._rows(f"{wanted} WHERE code = ? AND vendor = ?", text, self.vendor)
        with self._database:
            self._database.execute("DELETE FROM code WHERE code = ? AND vendor = ?", (text, self.vendor))
        if not rows:
            raise GrantError("invalid_grant", "The authorization code is unknown or was used before.")
        user_id, redirect_uri, scopes, challenge, issued_by, expires_at = rows[0]
        if expires_at <= now:
            raise GrantError("invalid_grant", "The authorization code has expired.")
        if issued_by != issuer:
            raise GrantError("invalid_grant", "The authorization code belongs to the other token address.")
        return Code(user_id, redirect_uri, tuple(scopes.split()), challenge, issued_by)

    def grant(self, user_id: str, scopes: Iterable[str], issuer: str, expires_in: int, now: float) -> Tokens:
        """A new authorization beside any the person gave before."""
        with self._database:
            return self._grant(user_id, tuple(scopes), issuer, expires_in, now)

    def grant_many(
        self, user_ids: Iterable[str], scopes: tuple[str, ...], issuer: str, expires_in: int, now: float
    ) -> list[Tokens]:
        with self._database:
            return [self._grant(user_id, scopes, issuer, expires_in, now) for user_id in user_ids]

    def _grant(self, user_id: str, scopes: tuple[str, ...], issuer: str, expires_in: int, now: float) -> Tokens:
        values = (self.vendor, user_id, " ".join(scopes), issuer)
        stored = "INSERT INTO authorization (vendor, user_id, scopes, issuer) VALUES (?, ?, ?, ?)"
        identity = self._database.execute(stored, values).lastrowid or 0
        lasting = not self.rules.offline_scope or "offline" in scopes
        return self._issue(Grant(identity, user_id, scopes), expires_in, now, lasting=lasting)

    def _issue(self, grant: Grant, expires_in: int, now: float, *, lasting: bool) -> Tokens:
        access, refresh = secrets.token_urlsafe(32), secrets.token_urlsafe(32) if lasting else None
        self._database.execute("INSERT INTO access VALUES (?, ?, ?)", (access, grant.id, now + expires_in))
        if refresh:
            self._database.execute("INSERT INTO refresh VALUES (?, ?, 0)", (refresh, grant.id))
        return Tokens(access, refresh, expires_in, grant.scopes, grant.user_id)

    def refresh(self, token: str, issuer: str, scopes: tuple[str, ...], expires_in: int, now: float) -> Tokens:
        """New tokens for a refresh token, which is spent from then on. A spent one kills its authorization."""
        wanted = "SELECT a.id, a.user_id, a.scopes, a.issuer, r.spent FROM refresh r JOIN authorization a"
        rows = self._rows(
            f"{wanted} ON a.id = r.authorization_id WHERE r.token = ? AND a.vendor = ?", token, self.vendor
        )
        if not rows:
            raise GrantError(self.rules.error, "The refresh token is unknown or its authorization was revoked.")
        identity, user_id, granted, issued_by, spent = rows[0]
        if issued_by != issuer:
            raise GrantError(self.rules.error, "The refresh token belongs to the other token address.")
        if spent:
            self.kill(identity)
            raise GrantError(self.rules.error, "The refresh token was used before: its authorization is revoked.")
        grant = Grant(identity, user_id, tuple(granted.split()))
        return self._rotate(grant, token, scopes, expires_in, now)

    def _rotate(self, grant: Grant, token: str, scopes: tuple[str, ...], expires_in: int, now: float) -> Tokens:
        with self._database:
            self._database.execute("UPDATE refresh SET spent = 1 WHERE token = ?", (token,))
            if self.rules.refresh_kills_access:
                self._database.execute("DELETE FROM access WHERE authorization_id = ?", (grant.id,))
            else:
                gone = "DELETE FROM access WHERE authorization_id = ? AND expires_at <= ?"
                self._database.execute(gone, (grant.id, now))
            lasting = not self.rules.offline_scope or "offline" in scopes
            return self._issue(grant, expires_in, now, lasting=lasting)

    def by_access_token(self, token: str, now: float) -> Grant | None:
        wanted = "SELECT a.id, a.user_id, a.scopes FROM access t JOIN authorization a ON a.id = t.authorization_id"
        live = f"{wanted} WHERE t.token = ? AND t.expires_at > ? AND a.vendor = ?"
        rows = self._rows(live, token, now, self.vendor)
        return Grant(rows[0][0], rows[0][1], tuple(rows[0][2].split())) if rows else None

    def by_any_token(self, token: str) -> int | None:
        """The authorization a token belongs to, expired or spent ones included."""
        for table in ("access", "refresh"):
            wanted = f"SELECT a.id FROM {table} t JOIN authorization a ON a.id = t.authorization_id"  # noqa: S608
            if rows := self._rows(f"{wanted} WHERE t.token = ? AND a.vendor = ?", token, self.vendor):
                return int(rows[0][0])
        return None

    def kill(self, identity: int) -> None:
        """End an authorization: none of its tokens works any more."""
        with self._database:
            for table in ("access", "refresh"):
                self._database.execute(f"DELETE FROM {table} WHERE authorization_id = ?", (identity,))  # noqa: S608
            self._database.execute("DELETE FROM authorization WHERE id = ?", (identity,))

    def kill_all_of(self, user_id: str) -> int:
        wanted = "SELECT id FROM authorization WHERE vendor = ? AND user_id = ?"
        identities = [identity for (identity,) in self._rows(wanted, self.vendor, user_id)]
        for identity in identities:
            self.kill(identity)
        return len(identities)

    def granted(self, user_id: str) -> bool:
        wanted = "SELECT 1 FROM authorization WHERE vendor = ? AND user_id = ? LIMIT 1"
        return bool(self._rows(wanted, self.vendor, user_id))

    def users(self) -> list[str]:
        wanted = "SELECT DISTINCT user_id FROM authorization WHERE vendor = ? ORDER BY id"
        return [user_id for (user_id,) in self._rows(wanted, self.vendor)]

    def forget(self) -> None:
        """Drop every code, authorization and token of the vendor."""
        mine = "SELECT id FROM authorization WHERE vendor = ?"
        with self._database:
            for table in ("access", "refresh"):
                self._database.execute(f"DELETE FROM {table} WHERE authorization_id IN ({mine})", (self.vendor,))  # noqa: S608
            self._database.execute("DELETE FROM authorization WHERE vendor = ?", (self.vendor,))
            self._database.execute("DELETE FROM code WHERE vendor = ?", (self.vendor,))
