"""Webhooks signed as Oura and WHOOP both do it: HMAC-SHA256 over a timestamp header followed at once by the body."""

import hmac
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar

from devices.vendors.webhook import SignedWebhook, check_timestamp, hmac_sha256, unauthorised

DIGITS = re.compile(r"[0-9]{1,18}")


class TimestampSignedWebhook(SignedWebhook):
    """The key is the application's client secret. Vendors differ in the headers' names, the clock and the encoding."""

    signature_header: ClassVar[str]
    timestamp_header: ClassVar[str]
    ticks: ClassVar[int]  # of the timestamp, in a second

    @abstractmethod
    def encode(self, signed: bytes) -> bytes:
        """The signature, 32 bytes, as the vendor writes it."""

    def canonical(self, signature: str) -> str:
        """The signature of a request, freed of what does not count in it."""
        return signature

    def verify(
        self, headers: Mapping[str, str], body: bytes, *, secrets: Iterable[str], max_age: float, now: float
    ) -> None:
        signature, timestamp = headers.get(self.signature_header), headers.get(self.timestamp_header)
        if not signature or not timestamp:
            raise unauthorised(f"{self.signature_header} and {self.timestamp_header} are both required.")
        if DIGITS.fullmatch(timestamp) is None:
            raise unauthorised(f"{self.timestamp_header} must be a plain number: {self.ticks} a second since 1970.")
        if not self.matches(signature, timestamp, body, secrets):
            raise unauthorised(f"{self.signature_header} does not match the body. Sign it with the client secret.")
        check_timestamp(int(timestamp) / self.ticks, max_age=max_age, now=now)

    def matches(self, signature: str, timestamp: str, body: bytes, secrets: Iterable[str]) -> bool:
        """Whether one of the secrets made this signature. All are tried, so that time does not tell which did."""
        given = as_bytes(self.canonical(signature))
        message = timestamp.encode() + body
        made = [self.encode(hmac_sha256(secret, message)) for secret in secrets if secret]
        return sum(hmac.compare_digest(given, expected) for expected in made) > 0


def as_bytes(text: str) -> bytes:
    """A header or parameter for `compare_digest`, which takes no text beyond ASCII."""
    return text.encode("utf-8", "replace")
