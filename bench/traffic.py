"""What vendors and phones send under load: signed as they sign, about documents that the sandbox has.

No Django and nothing outside the standard library, so that Locust can run it in an environment of its own.
"""

import base64
import hashlib
import hmac
import json
import random
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from auren.sandbox import observed, oura, whoop
from auren.sandbox.physiology import person

Device = Literal["oura", "whoop"]

# Of Oura's kinds those that every day has on which the ring was worn.
OURA_KINDS = ("daily_activity", "daily_readiness", "daily_sleep", "sleep")
WHOOP_KINDS = ("sleep", "sleep", "recovery")
DAYS_BACK = (2, 6)  # the documents' days: whole, scored, and within the sandbox's history
SMALLEST_BATCH, LARGEST_BATCH = 50, 200  # samples of one phone's post
BEAT_SECONDS = 5
KEPT = 200  # posts of which one may be sent again


@dataclass(frozen=True)
class Post:
    """One webhook. Posts of one `key` are the same delivery; `samples` are those of a phone's batch."""

    vendor: str
    body: bytes
    key: str
    samples: int = 0


@dataclass(frozen=True)
class Secrets:
    oura: str = ""
    whoop: str = ""
    api_key: str = "test_api_key"

    def headers(self, post: Post) -> dict[str, str]:
        """Signed now, as the vendor does it; without a secret unsigned, which only the sandbox's own machine may."""
        proof = {"oura": self._oura, "whoop": self._whoop, "healthkit": self._healthkit}[post.vendor](post.body)
        return {"content-type": "application/json"} | proof

    def _oura(self, body: bytes) -> dict[str, str]:
        """Upper-case hex over seconds and body."""
        now = str(int(time.time()))
        if not self.oura:
            return {}
        return {"x-oura-timestamp": now, "x-oura-signature": sign(self.oura, now, body).hex().upper()}

    def _whoop(self, body: bytes) -> dict[str, str]:
        """Base64 over milliseconds and body."""
        now = str(int(time.time() * 1000))
        if not self.whoop:
            return {}
        signature = base64.b64encode(sign(self.whoop, now, body)).decode()
        return {"x-whoop-signature-timestamp": now, "x-whoop-signature": signature}

    def _healthkit(self, body: bytes) -> dict[str, str]:
        del body
        return {"authorization": f"Bearer {self.api_key}"}


def sign(secret: str, timestamp: str, body: bytes) -> bytes:
    return hmac.new(secret.encode(), timestamp.encode() + body, hashlib.sha256).digest()


@dataclass
class Traffic:
    """`repeats` is the share of posts that are sent a second time, as by a vendor who missed the answer; `bursts`
    that of announcements which come as two at once about one night: of one document, whose call they may share, or of
    two, one of which may have to wait for the other's token."""

    people: int = 50_000
    repeats: float = 0.03
    bursts: float = 0.1
    dice: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._sent: dict[str, deque[Post]] = {name: deque(maxlen=KEPT) for name in ("oura", "whoop", "healthkit")}

    def next(self, vendor: str) -> list[Post]:
        """What is posted at once: one post, or a burst of two."""
        sent = self._sent[vendor]
        if sent and self.dice.random() < self.repeats:
            return [self.dice.choice(sent)]
        posts = self._new(vendor)
        sent.extend(posts)
        return posts

    def _new(self, vendor: str) -> list[Post]:
        if vendor == "healthkit":
            return [self.batch()]
        announce = self.oura if vendor == "oura" else self.whoop
        return announce(2 if self.dice.random() < self.bursts else 1)

    def user(self) -> str:
        return f"user_{self.dice.randint(1, self.people)}"

    def oura(self, count: int = 1) -> list[Post]:
        """What was created, or updated since, of a day."""
        user, day = self._worn("oura")
        kinds = self._kinds(OURA_KINDS, count)
        abouts = [{"data_type": kind, "object_id": oura.record_id(kind, user, day)} for kind in kinds]
        events = [
            {"event_type": "update" if about in abouts[:place] else "create"} | about | {"user_id": user}
            for place, about in enumerate(abouts)
        ]
        return [self._post("oura", event | {"event_time": now_text()}) for event in events]

    def whoop(self, count: int = 1) -> list[Post]:
        """A recovery goes by the id of its sleep."""
        user, day = self._worn("whoop")
        about = {"user_id": user, "id": whoop.record_id("sleep", user, day)}
        events = [about | {"type": f"{kind}.updated"} for kind in self._kinds(WHOOP_KINDS, count)]
        return [self._post("whoop", event | {"trace_id": self._uuid()}) for event in events]

    def _kinds(self, known: tuple[str, ...], count: int) -> list[str]:
        """As often one kind over again as any."""
        first = self.dice.choice(known)
        return [first, *(self.dice.choice((first, self.dice.choice(known))) for _ in range(count - 1))]

    def _worn(self, device: Device) -> tuple[str, date]:
        """Somebody, and one of their last days on which they wore it."""
        while True:
            user, day = self.user(), datetime.now(UTC).date() - timedelta(days=self.dice.randint(*DAYS_BACK))
            if observed.wears(person(user), device, day):
                return user, day

    def batch(self, size: int = 0) -> Post:
        """The last minutes of a watch's heart rate, and of steps by watch and phone: `size` samples, or as it comes."""
        user, size = self.user(), size or self.dice.randint(SMALLEST_BATCH, LARGEST_BATCH)
        now = datetime.now(UTC) - timedelta(seconds=self.dice.randrange(6 * 3600))
        steps = size // 10
        beats = (now - timedelta(seconds=BEAT_SECONDS * number) for number in range(size - 2 * steps))
        samples = [self._sample("HeartRate", "count/min", at, timedelta(), "Apple Watch", 55) for at in beats]
        for source, most in (("Apple Watch", 60), ("iPhone", 20)):
            minutes = (now - timedelta(minutes=1 + number) for number in range(steps))
            samples += [self._sample("StepCount", "count", at, timedelta(minutes=1), source, most) for at in minutes]
        return self._post("healthkit", {"user_id": user, "samples": samples}, size)

    def _sample(self, kind: str, unit: str, at: datetime, length: timedelta, source: str, least: int) -> dict[str, Any]:
        return {
            "type": f"HKQuantityTypeIdentifier{kind}",
            "value": least + self.dice.randrange(40),
            "unit": unit,
            "startDate": at.isoformat(),
            "endDate": (at + length).isoformat(),
            "uuid": self._uuid(),
            "source": source,
        }

    def _post(self, vendor: str, content: dict[str, Any], samples: int = 0) -> Post:
        return Post(vendor, json.dumps(content).encode(), self._uuid(), samples)

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self.dice.getrandbits(128), version=4))


def now_text() -> str:
    return datetime.now(UTC).isoformat()
