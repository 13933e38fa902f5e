"""Life going on: phones post what they recorded, vendors announce what is new or has changed, one thing at a time."""

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, count, cycle

import httpx
import msgspec

from auren.sandbox import phone
from auren.sandbox.announce import Announcer, Verb, announced_kinds
from auren.sandbox.grants import Vendor
from auren.sandbox.physiology import number, person
from auren.sandbox.revise import revise
from auren.sandbox.state import Sandbox

logger = logging.getLogger(__name__)

# Both vendors in turn, each kind as often as the vendors' number of kinds lets it.
ROUND: tuple[tuple[Vendor, str], ...] = tuple(
    chain.from_iterable(
        (("oura", ours), ("whoop", theirs))
        for ours, theirs in zip(announced_kinds("oura"), cycle(announced_kinds("whoop")), strict=False)
    )
)
PHONE_DAYS = 7  # of history in a phone's first series, one batch a day
PHONE_EVERY = 3  # announcements for one batch
REVISED_EVERY = 11  # of announcements that had nothing new to say, one comes with an edit made by hand


@dataclass(frozen=True, slots=True)
class Event:
    vendor: Vendor
    user: str
    kind: str
    verb: Verb
    record: str


# What of one person's newest documents was announced: by kind, the record and a digest of what it said.
Seen = dict[tuple[Vendor, str], tuple[str, bytes]]


class Trickle:
    """One announcement every `trickle_seconds` over all people, and a phone's batch now and then."""

    def __init__(self, sandbox: Sandbox, announcer: Announcer) -> None:
        self.sandbox = sandbox
        self.announcer = announcer
        self.users = [f"user_{number}" for number in range(1, sandbox.config.people + 1)]
        self._posted_until: dict[str, datetime] = {}
        self._seen: dict[str, Seen] = {}
        self._due: deque[Event] = deque()
        self._repeats = 0

    async def run(self) -> None:
        """Until cancelled; phones wait for a bridge that is away, vendors do not."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._phones())
            group.create_task(self._vendors())

    async def _vendors(self) -> None:
        """A fault in one step is logged and does not end the rest."""
        for step in count():
            await asyncio.sleep(self.sandbox.config.trickle_seconds)
            try:
                self.announce_one(step)
            except Exception:
                logger.exception("An announcement of the sandbox failed; the next one goes on.")

    async def _phones(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            await self._post_histories(client)
            for user in cycle(self.users):
                await asyncio.sleep(self.sandbox.config.trickle_seconds * PHONE_EVERY)
                await self._post(client, user, self.sandbox.clock.now())

    async def _post_histories(self, client: httpx.AsyncClient) -> None:
        """The last days of everyone's phone, a day a batch."""
        now = self.sandbox.clock.now()
        for days_ago in range(min(PHONE_DAYS, self.sandbox.config.days), 0, -1):
            for user in self.users:
                self._posted_until.setdefault(user, now - timedelta(days=days_ago))
                await self._post(client, user, now - timedelta(days=days_ago - 1))

    async def _post(self, client: httpx.AsyncClient, user: str, until: datetime) -> None:
        """What was recorded since the last batch that the bridge took."""
        config = self.sandbox.config
        made = phone.batch(person(user, config.seed), self._posted_until[user], until, config.api_key)
        if made is None:
            return
        status = await phone.post(client, f"{config.bridge_url.rstrip('/')}/webhooks/healthkit", made)
        if httpx.codes.is_success(status):
            self._posted_until[user] = until
        else:
            logger.warning("The bridge answered %s to a HealthKit batch of %s.", status, user)

    def announce_one(self, step: int) -> None:
        """Look whether the next person has anything new, and announce the oldest thing due, else repeat something."""
        self._due.extend(self._news_of(self.users[step % len(self.users)]))
        event = self._due.popleft() if self._due else self._repeat()
        if event is not None:
            self.announcer.announce(event.vendor, event.user, event.kind, event.verb, event.record)

    def _news_of(self, user: str) -> Iterator[Event]:
        """Documents that appeared or changed since this person was last looked at; at first sight, none."""
        first_sight = user not in self._seen
        seen = self._seen.setdefault(user, {})
        for vendor, kind in ROUND:
            if not self.sandbox.vendor(vendor).grants.granted(user):
                continue
            before, after = seen.get((vendor, kind)), self._newest(vendor, user, kind)
            if after is None or after == before:
                continue
            seen[vendor, kind] = after
            verb: Verb = "update" if before and before[0] == after[0] else "create"
            if not first_sight:
                yield Event(vendor, user, kind, verb, after[0])

    def _newest(self, vendor: Vendor, user: str, kind: str) -> tuple[str, bytes] | None:
        """The record of the newest document, and a digest of what it says."""
        shelf = self.sandbox.vendor(vendor).shelf
        document = shelf.newest(user, kind, self.sandbox.since(), self.sandbox.clock.now())
        if document is None:
            return None
        digest = hashlib.blake2b(msgspec.json.encode(document), digest_size=16).digest()
        return shelf.making.record_of(kind, document), digest

    def _repeat(self) -> Event | None:
        """The next of an endless round over kinds and people, now and then after a real edit of its document."""
        for _ in ROUND:
            self._repeats += 1
            vendor, kind = ROUND[self._repeats % len(ROUND)]
            state = self.sandbox.vendor(vendor)
            users = [user for user in self.users if state.grants.granted(user)]
            user = users[number("repeat", self._repeats) % len(users)] if users else ""
            newest = self._newest(vendor, user, kind) if user else None
            if newest is None:
                continue
            if self._repeats % REVISED_EVERY == 0:
                revise(self.sandbox, vendor, user, kind, newest[0])
            return Event(vendor, user, kind, "update", newest[0])
        return None
