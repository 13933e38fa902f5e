"""WHOOP's v2 webhooks: the signature and what an event says. https://developer.whoop.com/docs/developing/webhooks"""

import base64
from collections.abc import Mapping
from typing import ClassVar

from devices.vendors.signature import TimestampSignedWebhook
from devices.vendors.webhook import Announcement, digest, field, parse_object


class WhoopWebhook(TimestampSignedWebhook):
    """Signed in base64, with a timestamp in milliseconds. A recovery is announced under the id of its sleep."""

    vendor: ClassVar[str] = "whoop"
    signature_header: ClassVar[str] = "x-whoop-signature"
    timestamp_header: ClassVar[str] = "x-whoop-signature-timestamp"
    signature_headers: ClassVar[tuple[str, ...]] = (signature_header, timestamp_header)
    ticks: ClassVar[int] = 1000
    KNOWN: ClassVar[frozenset[str]] = frozenset(
        f"{kind}.{verb}" for kind in ("sleep", "recovery", "workout") for verb in ("updated", "deleted")
    )
    # WHOOP announces nothing else: cycles and body measurements have to be asked for.
    IGNORED: ClassVar[frozenset[str]] = frozenset()

    def encode(self, signed: bytes) -> bytes:
        return base64.b64encode(signed)

    def read(self, headers: Mapping[str, str], body: bytes) -> Announcement:
        del headers  # all that counts is in the body
        event = parse_object(body)
        event_type = field("type", event.get("type"))
        user = field("user_id", event.get("user_id"))
        object_id = field("id", event.get("id"), required=False)
        trace_id = field("trace_id", event.get("trace_id"), required=False)
        return Announcement(
            event_type=event_type,
            vendor_user_id=user,
            object_id=object_id,
            dedup_key=digest(user, event_type, object_id, trace_id) if trace_id else digest(body),
            interest=self.interest_in(event_type),
        )


def kind_and_verb(event_type: str) -> tuple[str, str]:
    """`sleep.updated` as `("sleep", "updated")`."""
    kind, _, verb = event_type.rpartition(".")
    return kind, verb


def withdrawn_by(event_type: str, object_id: str) -> list[str]:
    """The records that this event says are gone: a recovery goes with its sleep, and is named by that sleep's id."""
    if not object_id:
        return []
    recovery = f"recovery:{object_id}"
    gone = {"sleep.deleted": [object_id, recovery], "recovery.deleted": [recovery], "workout.deleted": [object_id]}
    return gone.get(event_type, [])


WEBHOOK = WhoopWebhook()
