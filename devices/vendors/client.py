"""What a worker asks of a vendor, and what it gets back. Each vendor's `client.py` answers an `Ask` over an `Api`."""

from datetime import datetime
from typing import Any, Protocol

import msgspec

from devices.vendors.normalised import Document


class Ask(msgspec.Struct, frozen=True):
    """One thing wanted of a vendor for one link.

    `kind` is the vendor's own document type. With `object_id`, that one document; without, the list between
    `start_at` and `end_at` (aware), from `page_token` on where one was stored. `pages` bounds how many pages one
    call may read: a backfill reads one at a time, a recent window all of them.
    """

    kind: str
    vendor_user_id: str
    object_id: str = ""
    start_at: datetime | None = None
    end_at: datetime | None = None
    page_token: str = ""
    pages: int = 1
    background: bool = False


class Answer(msgspec.Struct, frozen=True):
    """What the vendor said. `document` is ready for `normalise(kind, document)`; `next_page` continues a list."""

    kind: str
    document: Document
    next_page: str = ""


class Api(Protocol):
    """An authenticated, rate-limited connection to one vendor for one link; the link's token never leaves it."""

    async def get(self, path: str, params: dict[str, str] | None = None) -> Any:
        """GET `path` under the vendor's base address and return the parsed JSON, or raise an `ApiError`."""


class ApiError(Exception):
    """The vendor did not give what was asked for."""


class NotFound(ApiError):
    """404: the vendor has no such document (any more, or yet)."""


class Postponed(ApiError):
    """Nothing was tried: the rate limit or an open breaker says to wait `seconds`. Costs no attempt."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Failed(ApiError):
    """A passing fault: no answer in time, a broken connection, 401 twice, 408, 5xx. `retry_after` in seconds."""

    def __init__(self, reason: str, *, error_class: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.error_class = error_class
        self.retry_after = retry_after


class Rejected(ApiError):
    """A 4xx that another try will not mend."""

    def __init__(self, reason: str, *, error_class: str) -> None:
        super().__init__(reason)
        self.error_class = error_class


class LinkExpired(ApiError):
    """The stored refresh token was refused: only the patient can mend it, by connecting again."""
