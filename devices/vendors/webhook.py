"""The shape of a vendor's webhook: verify the raw bytes first, read them second, never the other way round."""

import hashlib
import hmac
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Literal

import msgspec

MAX_FIELD = 255  # characters in a user, type, object id, trace id or Idempotency-Key
MIB = 1024 * 1024

Interest = Literal["known", "ignored", "unknown"]


class Refused(Exception):
    """A webhook that is not taken: the HTTP `status`, the `slug` of the problem's type, and what to do about it."""

    def __init__(self, status: int, slug: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail


class Announcement(msgspec.Struct, frozen=True):
    """What a verified webhook says, in the vendor's own words.

    `event_type` is `<document type>.<verb>`, `event_time` aware or None, `interest` which of the vendor's three
    lists the type is on. `dedup_key` is the same for every repeat of the same event. `headers` are those the
    worker will need beside the body.
    """

    event_type: str
    vendor_user_id: str
    object_id: str
    dedup_key: str
    interest: Interest
    event_time: datetime | None = None
    headers: dict[str, str] | None = None
    idempotency_key: bool = False


class Caller(msgspec.Struct, frozen=True):
    """Who holds an API key, and for whom it may post. `patients` are external ids; None of them with `sandbox`."""

    owner: str
    patients: frozenset[str]
    sandbox: bool = False

    def may_post_for(self, external_id: str) -> bool:
        if external_id in self.patients:
            return True
        number = external_id.removeprefix("user_")
        return self.sandbox and number != external_id and number.isascii() and number.isdigit()


class SignedWebhook(ABC):
    """A vendor that signs its webhooks with a shared secret: Oura and WHOOP.

    `signature_headers` are lower-case names. A request with none of them is unsigned; one with any of them is
    judged by it, in the sandbox too.
    """

    vendor: ClassVar[str]
    body_limit: ClassVar[int] = 1 * MIB
    signature_headers: ClassVar[tuple[str, ...]]
    KNOWN: ClassVar[frozenset[str]]
    IGNORED: ClassVar[frozenset[str]]

    @abstractmethod
    def verify(
        self, headers: Mapping[str, str], body: bytes, *, secrets: Iterable[str], max_age: float, now: float
    ) -> None:
        """Raise `Refused` (401) unless the signature over the raw `body` is right and fresh. `now` is epoch seconds."""

    @abstractmethod
    def read(self, headers: Mapping[str, str], body: bytes) -> Announcement:
        """Parse a verified body. Raises `Refused` (400) when it is not the vendor's JSON."""

    def is_unsigned(self, headers: Mapping[str, str]) -> bool:
        return not any(name in headers for name in self.signature_headers)

    @classmethod
    def interest_in(cls, event_type: str) -> Interest:
        if event_type in cls.KNOWN:
            return "known"
        return "ignored" if event_type in cls.IGNORED else "unknown"


def digest(*parts: str | bytes) -> str:
    """128 bits over length-prefixed parts, in hex, so that `("ab", "c")` and `("a", "bc")` differ."""
    pieces = []
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        pieces += [len(data).to_bytes(8, "big"), data]
    return hashlib.blake2b(b"".join(pieces), digest_size=16).hexdigest()


def hmac_sha256(secret: str, message: bytes) -> bytes:
    return hmac.digest(secret.encode(), message, "sha256")


def unauthorised(detail: str) -> Refused:
    return Refused(401, "unauthorised", detail)


def bad_body(detail: str) -> Refused:
    return Refused(400, "bad-body", detail)


def check_timestamp(seconds: float, *, max_age: float, now: float, ahead: float = 300) -> None:
    if now - seconds > max_age:
        raise unauthorised(f"The signature's timestamp is older than {max_age:g} s. Sign again with the current time.")
    if seconds - now > ahead:
        raise unauthorised(f"The signature's timestamp is more than {ahead:g} s ahead. Check the sender's clock.")


def missing(name: str) -> Refused:
    return bad_body(f"The body has no {name}.")


def parse_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises `Refused` (400) for anything else: not JSON, not UTF-8, too deep, NaN."""
    try:
        parsed = msgspec.json.decode(body)
    except RecursionError:
        raise bad_body("The body is JSON nested too deep to parse.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_body(f"The body is not JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise bad_body("The body is JSON, but not an object.")
    return parsed


def field(name: str, value: object, *, required: bool = True) -> str:
    """A short text or whole number of the body as text. Raises `Refused` (400) where it is missing or unusable."""
    if value is None or value == "":
        if required:
            raise missing(name)
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise bad_body(f"{name} must be a text or a whole number.")
    return clean(name, str(value))


def is_unicode(text: str) -> bool:
    """Whether a text can be written in UTF-8: JSON can spell half of a surrogate pair, which no encoding has."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def clean(name: str, text: str) -> str:
    if len(text) > MAX_FIELD:
        raise bad_body(f"{name} is longer than {MAX_FIELD} characters.")
    if "\0" in text or not (text.isascii() or is_unicode(text)):
        raise bad_body(f"{name} has a NUL or a lone surrogate in it.")
    return text
