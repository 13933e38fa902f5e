"""Oura's webhooks: the handshake, the signature and what an event says. https://cloud.ouraring.com/v2/docs"""

import hmac
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import ClassVar
from uuid import uuid4

from devices.vendors import times
from devices.vendors.signature import TimestampSignedWebhook, as_bytes
from devices.vendors.webhook import Announcement, bad_body, clean, digest, field, missing, parse_object, unauthorised

# Types that carry a metric of the catalogue. Heart rate carries one too, but Oura never announces it.
MEASURED = (
    "daily_activity",
    "daily_cardiovascular_age",
    "daily_readiness",
    "daily_sleep",
    "daily_spo2",
    "daily_stress",
    "sleep",
    "vo2_max",
    "workout",
)
UNMEASURED = (
    "daily_cycle_phases",
    "daily_resilience",
    "enhanced_tag",
    "meal",
    "rest_mode_period",
    "ring_configuration",
    "session",
    "sleep_time",
    "tag",
)
VERBS = ("create", "update", "delete")
PAST_TENSE = {"created": "create", "updated": "update", "deleted": "delete"}


class OuraWebhook(TimestampSignedWebhook):
    """Signed in hex, with a timestamp in seconds.

    Oura's own example re-serialises the parsed body; what it really
    signs are the bytes it sends (both open-source integrations in production verify those, 2026-08).
    """

    vendor: ClassVar[str] = "oura"
    signature_header: ClassVar[str] = "x-oura-signature"
    timestamp_header: ClassVar[str] = "x-oura-timestamp"
    signature_headers: ClassVar[tuple[str, ...]] = (signature_header, timestamp_header)
    ticks: ClassVar[int] = 1
    KNOWN: ClassVar[frozenset[str]] = frozenset(f"{kind}.{verb}" for kind in MEASURED for verb in VERBS)
    IGNORED: ClassVar[frozenset[str]] = frozenset(f"{kind}.{verb}" for kind in UNMEASURED for verb in VERBS)

    def encode(self, signed: bytes) -> bytes:
        return signed.hex().encode()

    def canonical(self, signature: str) -> str:
        return signature.lower()

    def read(self, headers: Mapping[str, str], body: bytes) -> Announcement:
        del headers  # all that counts is in the body
        event = parse_object(body)
        said = field("event_type", event.get("event_type"))
        named = field("data_type", event.get("data_type"), required=False)
        event_type = event_type_of(said, named)
        kind, verb = kind_and_verb(event_type)
        user = field("user_id", event.get("user_id"))
        object_id = field("object_id", event.get("object_id"), required=False)
        told_at = field("event_time", event.get("event_time"), required=False)
        return Announcement(
            event_type=event_type,
            vendor_user_id=user,
            object_id=object_id,
            dedup_key=digest(user, kind, object_id, verb, told_at) if told_at else uuid4().hex,
            interest=self.interest_in(event_type),
            event_time=instant_of(told_at) if told_at else None,
        )

    def handshake(self, query: Mapping[str, str], verification_token: str) -> str:
        """The challenge that Oura wants echoed while a subscription is made.

        Raises `Refused` (401) unless the query has both parameters and its token is ours. No token of ours
        means that nobody's is right.
        """
        token, challenge = query.get("verification_token"), query.get("challenge")
        if not token or not challenge or not verification_token:
            raise unauthorised("verification_token and challenge are both required.")
        if not hmac.compare_digest(as_bytes(token), as_bytes(verification_token)):
            raise unauthorised("verification_token is not the one this subscription was asked for with.")
        return challenge


@lru_cache(maxsize=1024)  # a few dozen come again and again
def event_type_of(said: str, named: str) -> str:
    """The event as `<data type>.<verb>`, from Oura's two fields or from one that already says both.

    Raises `Refused` (400) where either half is missing, or where the two contradict each other.
    """
    kind, _, verb = said.rpartition(".")
    if not kind and not named:
        raise missing("data_type")
    if not verb or (kind and named and canonical_kind(kind) != canonical_kind(named)):
        raise bad_body("event_type and data_type do not name one type and one verb.")
    return clean("event_type", f"{canonical_kind(named or kind)}.{PAST_TENSE.get(verb, verb)}")


def canonical_kind(kind: str) -> str:
    """Webhooks write `vo2_max` where the REST path says `vO2_max`: the one type of two spellings."""
    return "vo2_max" if kind == "vO2_max" else kind


def instant_of(event_time: str) -> datetime:
    try:
        return times.parse(event_time).at
    except ValueError as error:
        raise bad_body(f"event_time: {error}.") from None


def kind_and_verb(event_type: str) -> tuple[str, str]:
    """`sleep.update` as `("sleep", "update")`."""
    kind, _, verb = event_type.rpartition(".")
    return kind, verb


def withdrawn_by(event_type: str, object_id: str) -> list[str]:
    """The records that this event says are gone."""
    return [object_id] if object_id and event_type.endswith(".delete") else []


WEBHOOK = OuraWebhook()
