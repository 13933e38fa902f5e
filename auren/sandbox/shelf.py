"""All documents of one vendor as they stand now: those a person's days yield, under what was put, edited or deleted."""

import base64
import binascii
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any

from auren.sandbox.physiology import Person, person

Document = dict[str, Any]
Key = tuple[str, ...]  # what a list is ordered by; unique within it


@dataclass(frozen=True)
class Making:
    """How a vendor makes and names its documents; the functions of `oura.py` and `whoop.py`."""

    build: Callable[[str, Person, date, datetime], list[Document]]
    record_of: Callable[[str, Document], str]
    day_of: Callable[[str, Document, Person], date]
    order_of: Callable[[str, Document], Key]
    may_be: Callable[[str, Person, str, date], bool]


@dataclass(slots=True)
class Changes:
    """What was done by hand to one person's documents of one kind: by record, the document, or None once deleted."""

    documents: dict[str, Document | None] = field(default_factory=dict)
    by_day: dict[date, dict[str, Document]] = field(default_factory=dict)

    def put(self, record: str, day: date, document: Document) -> None:
        self.delete(record)
        self.documents[record] = document
        self.by_day.setdefault(day, {})[record] = document

    def delete(self, record: str) -> None:
        self.documents[record] = None
        for documents in self.by_day.values():
            documents.pop(record, None)


UNCHANGED = Changes()


class Shelf:
    """One vendor's documents. Changes made by hand are kept in the sandbox's own database."""

    def __init__(self, vendor: str, making: Making, database: sqlite3.Connection, seed: int) -> None:
        self.vendor = vendor
        self.making = making
        self.seed = seed
        self._database = database
        self._changes: dict[tuple[str, str], Changes] = {}
        self._load()

    def _load(self) -> None:
        stored = "SELECT user_id, kind, record, document FROM change WHERE vendor = ?"
        for user_id, kind, record, text in self._database.execute(stored, (self.vendor,)):
            self._apply(user_id, kind, record, json.loads(text) if text else None)

    def _apply(self, user_id: str, kind: str, record: str, document: Document | None) -> None:
        changes = self._changes.setdefault((user_id, kind), Changes())
        if document is None:
            changes.delete(record)
        else:
            changes.put(record, self.making.day_of(kind, document, self.person(user_id)), document)

    def _change(self, user_id: str, kind: str, record: str, document: Document | None) -> None:
        self._apply(user_id, kind, record, document)
        text = None if document is None else json.dumps(document)
        with self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO change VALUES (?, ?, ?, ?, ?)", (self.vendor, user_id, kind, record, text)
            )

    def person(self, user_id: str) -> Person:
        return person(user_id, self.seed)

    def put(self, user_id: str, kind: str, document: Document) -> str:
        """Have `document` served as it is, and return its record. KeyError or ValueError: it lacks id or time."""
        record = self.making.record_of(kind, document)
        self._change(user_id, kind, record, document)
        return record

    def delete(self, user_id: str, kind: str, record: str) -> None:
        self._change(user_id, kind, record, None)

    def forget_changes(self) -> None:
        self._changes.clear()
        with self._database:
            self._database.execute("DELETE FROM change WHERE vendor = ?", (self.vendor,))

    def on_day(self, user_id: str, kind: str, day: date, since: date, now: datetime) -> list[Document]:
        """The day's documents in the order of lists; made ones begin with `since`."""
        made = self.making.build(kind, self.person(user_id), day, now) if day >= since else []
        changes = self._changes.get((user_id, kind), UNCHANGED)
        if changes.documents:
            made = [each for each in made if self.making.record_of(kind, each) not in changes.documents]
            made += changes.by_day.get(day, {}).values()
        return sorted(made, key=lambda document: self.making.order_of(kind, document))

    def days(self, user_id: str, kind: str, first: date, last: date, since: date, now: datetime) -> list[date]:
        """The days between `first` and `last` that may hold documents, ascending; made ones begin with `since`."""
        newest = min(last, self.person(user_id).local_day(now))
        made_from = max(first, since)
        made = {made_from + timedelta(days=index) for index in range((newest - made_from).days + 1)}
        changes = self._changes.get((user_id, kind), UNCHANGED)
        return sorted(made | {day for day in changes.by_day if first <= day <= last})

    def each(
        self, user_id: str, kind: str, days: Iterable[date], since: date, now: datetime, *, newest_first: bool
    ) -> "Keyed":
        """Documents of `days` (in the order they shall come in) with the key each is listed by."""
        for day in days:
            found = self.on_day(user_id, kind, day, since, now)
            for document in reversed(found) if newest_first else found:
                yield (day.isoformat(), *self.making.order_of(kind, document)), document

    def find(self, user_id: str, kind: str, record: str, since: date, now: datetime) -> Document | None:
        """The document of that record, None where there is none (any more, or yet)."""
        changes = self._changes.get((user_id, kind), UNCHANGED)
        if record in changes.documents:
            return changes.documents[record]
        who = self.person(user_id)
        day = day_of_record(self.making, kind, who, record, since, who.local_day(now))
        made = self.making.build(kind, who, day, now) if day else []
        return next((each for each in made if self.making.record_of(kind, each) == record), None)

    def single(self, user_id: str, kind: str) -> Document | None:
        """What was put for a kind of which a person has just one, with no id and no day."""
        return self._changes.get((user_id, kind), UNCHANGED).documents.get("")

    def put_by_hand(self, user_id: str, kind: str) -> list[Document]:
        changes = self._changes.get((user_id, kind), UNCHANGED)
        return [document for document in changes.documents.values() if document is not None]

    def newest(self, user_id: str, kind: str, since: date, now: datetime) -> Document | None:
        days = self.days(user_id, kind, since, date.max, since, now)
        keyed = self.each(user_id, kind, reversed(days), since, now, newest_first=True)
        return next((document for _, document in keyed), None)

    def edited(self, user_id: str, kind: str, document: Document, changes: Document) -> Document:
        """Put and return a copy of `document` with `changes` merged into it, nested objects member by member."""
        copy = merge(deepcopy(document), changes)
        self.put(user_id, kind, copy)
        return copy


Keyed = Iterator[tuple[Key, Document]]


@lru_cache(maxsize=16_384)
def day_of_record(making: Making, kind: str, who: Person, record: str, since: date, today: date) -> date | None:
    """The day whose document goes by `record`: ids cannot be read backwards, so days are tried, newest first."""
    tried = (today - timedelta(days=back) for back in range((today - since).days + 1))
    return next((day for day in tried if making.may_be(kind, who, record, day)), None)


def merge(document: Document, changes: Document) -> Document:
    for name, value in changes.items():
        old = document.get(name)
        document[name] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return document


def page(keyed: Keyed, after: Key | None, size: int, *, newest_first: bool) -> tuple[list[Document], str | None]:
    """At most `size` documents beyond the key `after`, and the token of the next page, None on the last one.

    A token names the last document given, not a count of them, so what appears meanwhile shifts nothing.
    """
    documents: list[Document] = []
    last: Key = ()
    for key, document in keyed:
        if after is not None and (key >= after if newest_first else key <= after):
            continue
        if len(documents) == size:
            return documents, token_of(last)
        documents.append(document)
        last = key
    return documents, None


def token_of(key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def key_of(token: str) -> Key:
    """The key in a page token. Raises ValueError for a token that is not ours."""
    try:
        parts = json.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("no page token of ours") from error
    if not (isinstance(parts, list) and len(parts) == 3 and all(isinstance(part, str) for part in parts)):
        raise ValueError("no page token of ours")
    return tuple(parts)
