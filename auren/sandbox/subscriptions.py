"""Oura's webhook subscriptions: one a pair of event and data type, each for about 90 days."""

import sqlite3
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

LIFE_SECONDS = 90 * 86_400
COLUMNS = "id, callback_url, event_type, data_type, verification_token, expires_at"

CHOSEN = ("callback_url", "event_type", "data_type", "verification_token")  # by the application


@dataclass(frozen=True, slots=True)
class Subscription:
    id: str
    callback_url: str
    event_type: str
    data_type: str
    verification_token: str
    expires_at: float

    def as_json(self) -> dict[str, str]:
        """As Oura shows it: the expiry without a zone, in UTC."""
        expires = datetime.fromtimestamp(self.expires_at, UTC).replace(tzinfo=None)
        return {
            "id": self.id,
            "callback_url": self.callback_url,
            "event_type": self.event_type,
            "data_type": self.data_type,
            "expiration_time": expires.isoformat(timespec="microseconds"),
        }


class Subscriptions:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def _where(self, condition: str, *values: object) -> list[Subscription]:
        rows = self._database.execute(f"SELECT {COLUMNS} FROM subscription WHERE {condition}", values)  # noqa: S608
        return [Subscription(*row) for row in rows]

    def all(self) -> list[Subscription]:
        return self._where("true")

    def get(self, identity: str) -> Subscription | None:
        return next(iter(self._where("id = ?", identity)), None)

    def of_pair(self, event_type: str, data_type: str) -> Subscription | None:
        return next(iter(self._where("event_type = ? AND data_type = ?", event_type, data_type)), None)

    def add(self, wanted: dict[str, Any], now: float) -> Subscription:
        chosen = {name: str(wanted[name]) for name in CHOSEN}
        return self._save(Subscription(id=str(uuid4()), expires_at=now + LIFE_SECONDS, **chosen))

    def change(self, old: Subscription, wanted: dict[str, Any]) -> Subscription:
        changed = {name: str(wanted[name]) for name in CHOSEN if name in wanted}
        return self._save(Subscription(**(asdict(old) | changed)))

    def renew(self, old: Subscription, now: float) -> Subscription:
        return self._save(replace(old, expires_at=now + LIFE_SECONDS))

    def remove(self, identity: str) -> None:
        with self._database:
            self._database.execute("DELETE FROM subscription WHERE id = ?", (identity,))

    def _save(self, one: Subscription) -> Subscription:
        values = (one.id, one.callback_url, one.event_type, one.data_type, one.verification_token, one.expires_at)
        with self._database:
            self._database.execute("INSERT OR REPLACE INTO subscription VALUES (?, ?, ?, ?, ?, ?)", values)
        return one
