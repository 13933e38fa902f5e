"""Sealing every stored token anew with the newest of TOKEN_KEYS, beside workers that read and refresh them.

A row is written only as it was read, and not while a refresh holds it: that refresh may have to say that the vendor
refused this very refresh token, and its outcome is sealed with the newest key anyway.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.db import connection
from django.db.models import QuerySet

from devices.models import Token
from devices.tokens import TokenUnreadable, seal, unseal

BATCH = 500
LOOK_AGAIN_SECONDS = 0.2
PATIENCE_SECONDS = 10.0

# `updated_at` and the lease say things about the grant, which stays the same.
WRITE = """
UPDATE devices_token AS token SET access_token = given.new_access, refresh_token = given.new_refresh
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[])
    AS given (link_id, access, refresh, new_access, new_refresh)
WHERE token.link_id = given.link_id AND token.access_token = given.access AND token.refresh_token = given.refresh
  AND (token.refresh_token_lease IS NULL OR token.refresh_until <= clock_timestamp())
RETURNING token.link_id
"""


class Pair(NamedTuple):
    """A stored pair as it was read, still sealed."""

    link_id: int
    access_token: str
    refresh_token: str


@dataclass
class Rotation:
    """What became of the tokens: counts, the links whose tokens no key opens, and those another was busy with."""

    rotated: int = 0
    already: int = 0
    unreadable: list[int] = field(default_factory=list)
    busy: list[int] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return not self.unreadable and not self.busy

    def run(self) -> None:
        """All tokens, then again those that were being refreshed, until their refreshes have ended."""
        for batch in batches():
            self._rotate(batch)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.busy and time.monotonic() < deadline:
            time.sleep(LOOK_AGAIN_SECONDS)
            waiting, self.busy = self.busy, []
            for start in range(0, len(waiting), BATCH):
                self._rotate(read(waiting[start : start + BATCH]))

    def _rotate(self, batch: Sequence[Pair]) -> None:
        changes = []
        for pair in batch:
            if all(opens_with_newest(sealed) for sealed in pair[1:]):
                self.already += 1
            elif sealed_anew := self._sealed_anew(pair):
                changes.append((*pair, *sealed_anew))
        written = write(changes)
        self.rotated += len(written)
        self.busy += [change[0] for change in changes if change[0] not in written]

    def _sealed_anew(self, pair: Pair) -> tuple[str, str] | None:
        try:
            return seal(unseal(pair.access_token)), seal(unseal(pair.refresh_token))
        except TokenUnreadable:
            self.unreadable.append(pair.link_id)
            return None


def batches() -> Iterator[list[Pair]]:
    last = 0
    while batch := _pairs(Token.objects.filter(link_id__gt=last)):
        yield batch
        last = batch[-1].link_id


def read(link_ids: Sequence[int]) -> list[Pair]:
    return _pairs(Token.objects.filter(link_id__in=link_ids))


def _pairs(tokens: QuerySet[Token]) -> list[Pair]:
    rows = tokens.order_by("link_id").values_list("link_id", "access_token", "refresh_token")
    return [Pair(*row) for row in rows[:BATCH]]


def opens_with_newest(sealed: str) -> bool:
    try:
        Fernet(settings.TOKEN_KEYS[0]).decrypt(sealed.encode())
    except (InvalidToken, UnicodeError):
        return False
    return True


def write(changes: Sequence[tuple[int, str, str, str, str]]) -> set[int]:
    """The links whose tokens were still as read, and are sealed anew now."""
    if not changes:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(WRITE, [list(column) for column in zip(*changes, strict=True)])
        return {link_id for (link_id,) in cursor.fetchall()}
