"""HealthKit batches as posted: an API key instead of a signature, three envelopes, up to 16 MiB.

The web process only has to know whose batch it is and that it is JSON of an accepted shape, so the samples are checked
without being built (15 ms for 16 MB, where parsing them takes 140 ms). The worker builds them once, by `document_of`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Never

import msgspec

from devices.vendors.documents import Unusable
from devices.vendors.normalised import Document
from devices.vendors.webhook import (
    MAX_FIELD,
    MIB,
    Announcement,
    Caller,
    Interest,
    Refused,
    bad_body,
    clean,
    digest,
    field,
    unauthorised,
)

EVENT = "batch.posted"
SHAPES = (
    'Send an object with "samples" (a list), with "data" (an object, as Open Wearables and Health Auto Export '
    'send it), or with "deleted" (a list).'
)
LONGEST_INTEGER = 300  # digits; beyond a double anyway, and int() refuses from 4,300 on
LIST, OBJECT, NULL = b"[", b"{", b"n"
AGGREGATION = "automation_aggregation"


class Envelope(msgspec.Struct):
    """The top of a body. The big members stay bytes, their syntax checked."""

    user_id: str | int | None = None
    samples: msgspec.Raw = msgspec.Raw(b"null")
    data: msgspec.Raw = msgspec.Raw(b"null")
    deleted: msgspec.Raw = msgspec.Raw(b"null")


class Outline(msgspec.Struct, frozen=True):
    """What `read` needs of a body: the user as written, and the first byte of each member."""

    user_id: Any
    samples: bytes
    data: bytes
    deleted: bytes


ENVELOPES = msgspec.json.Decoder(Envelope)


class HealthKitWebhook:
    """Who may post, for whom, and what repeats what."""

    vendor: ClassVar[str] = "healthkit"
    body_limit: ClassVar[int] = 16 * MIB
    KNOWN: ClassVar[frozenset[str]] = frozenset((EVENT,))
    IGNORED: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def interest_in(cls, event_type: str) -> Interest:
        return "known" if event_type in cls.KNOWN else "unknown"

    def key_digest(self, headers: Mapping[str, str]) -> bytes:
        """SHA-256 of the key in `Authorization: Bearer` or `X-Api-Key`. Raises `Refused` (401) without a usable one."""
        key = presented_key(headers)
        if not key:
            raise unauthorised("Send the API key as `Authorization: Bearer <key>` or in `X-Api-Key`.")
        if len(key) > MAX_FIELD or not key.isascii() or not key.isprintable() or " " in key:
            raise unauthorised("The API key is not one of ours: they are short and plain ASCII without spaces.")
        return hashlib.sha256(key.encode()).digest()

    def read(self, headers: Mapping[str, str], body: bytes, caller: Caller) -> Announcement:
        """Whose batch this is. Raises `Refused`: 400 for the body or the user, 403 for a patient not the caller's."""
        outline = outline_of(body)
        check_shape(outline)
        user = user_of(outline, headers, caller)
        if not caller.may_post_for(user):
            raise Refused(403, "forbidden", "This API key may not post for that patient.")
        repeat = clean("Idempotency-Key", headers.get("idempotency-key", "").strip())
        aggregation = clean("automation-aggregation", headers.get("automation-aggregation", "").strip())
        return Announcement(
            event_type=EVENT,
            vendor_user_id=user,
            object_id="",
            dedup_key=digest("key", caller.owner, repeat) if repeat else digest("body", caller.owner, user, body),
            interest=self.interest_in(EVENT),
            headers={AGGREGATION: aggregation} if aggregation else None,
            idempotency_key=bool(repeat),
        )


def document_of(body: bytes, headers: Mapping[str, str] | None) -> Document:
    """A stored body, parsed for `normalise`, with what the worker kept of the headers.

    Raises ValueError for a body that `read` would not have let in.
    """
    document = parsed(body, msgspec.json.decode)
    if not isinstance(document, dict):
        raise Unusable("the body is not a JSON object")
    if headers and AGGREGATION in headers:
        document[AGGREGATION] = headers[AGGREGATION]
    return document


def presented_key(headers: Mapping[str, str]) -> str:
    scheme, _, credentials = headers.get("authorization", "").strip().partition(" ")
    if scheme.casefold() == "bearer" and credentials:
        return credentials.strip()
    return headers.get("x-api-key", "").strip()


def outline_of(body: bytes) -> Outline:
    """The top of a body. Raises `Refused` (400) when it is not a JSON object in UTF-8."""
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look at the bytes of what it skips
        top = parsed(body, ENVELOPES.decode)
    except ValueError as error:
        raise bad_body(f"The body is not JSON that can be read: {error}.") from None
    if isinstance(top, Envelope):
        return Outline(top.user_id, bytes(top.samples)[:1], bytes(top.data)[:1], bytes(top.deleted)[:1])
    if not isinstance(top, dict):
        raise bad_body(f"The body is JSON, but not an object. {SHAPES}")
    return Outline(top.get("user_id"), *(first_byte(top.get(name)) for name in ("samples", "data", "deleted")))


def parsed(body: bytes, decode: Callable[[bytes], Any]) -> Any:
    """`decode(body)`, or where msgspec refuses, what the standard library makes of it.

    The slower one takes what would otherwise sink a whole batch for one sample's sake: a lone surrogate in a text, a
    number beyond a double, a user of the wrong type. Raises ValueError for what is no JSON to either.
    """
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return by_standard_library(body)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def by_standard_library(body: bytes) -> Any:
    try:
        return json.loads(body.decode(), parse_constant=no_constant, parse_int=whole_number)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def no_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


def whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= LONGEST_INTEGER else float(digits)


def first_byte(value: object) -> bytes:
    if isinstance(value, list | dict):
        return LIST if isinstance(value, list) else OBJECT
    return NULL if value is None else b"?"


def check_shape(outline: Outline) -> None:
    """Raises `Refused` (400) unless one of the three members is there, and each that is there is of its type."""
    members = {"samples": (outline.samples, LIST), "data": (outline.data, OBJECT), "deleted": (outline.deleted, LIST)}
    for name, (found, wanted) in members.items():
        if found not in (wanted, NULL):
            raise bad_body(f'"{name}" must be {"a list" if wanted == LIST else "an object"}. {SHAPES}')
    if all(found == NULL for found, _ in members.values()):
        raise bad_body(f"The body is no HealthKit batch. {SHAPES}")


def user_of(outline: Outline, headers: Mapping[str, str], caller: Caller) -> str:
    """The patient's external id: the body's `user_id`, else `X-User-Id`, else the key's one patient."""
    said = field("user_id", outline.user_id, required=False)
    header = clean("X-User-Id", headers.get("x-user-id", "").strip())
    if said and header and said != header:
        raise bad_body("user_id and X-User-Id name two different patients. Send one, or the same in both.")
    if said or header:
        return said or header
    if len(caller.patients) != 1:
        raise bad_body("Neither user_id nor X-User-Id names the patient, and this key is not for one patient alone.")
    return next(iter(caller.patients))


WEBHOOK = HealthKitWebhook()
