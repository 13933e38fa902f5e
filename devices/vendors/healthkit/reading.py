"""What all envelopes share: reading one sample's fields, each of which may be anything JSON can hold."""

from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from devices.vendors.documents import Span, Unusable
from devices.vendors.normalised import Document
from devices.vendors.times import parse_offset, quoted, read
from devices.vendors.webhook import MAX_FIELD, Refused, clean, digest

MISSING: Final = object()  # a field that is not there, where null would mean something else
LONGEST_TIME = 64  # characters


def first(item: Document, *names: str) -> Any:
    """The first value under any of `names` that is not null; null if there was only that, else MISSING."""
    found: Any = MISSING
    for name in names:
        value = item.get(name, MISSING)
        if value is not None and value is not MISSING:
            return value
        found = None if value is None else found
    return found


def is_stated(unit: object) -> bool:
    return unit is not None and unit != ""


def text(name: str, value: str) -> str:
    """A text that may be stored. Raises Unusable for NUL, a lone surrogate or more than 255 characters."""
    if value.isascii() and len(value) <= MAX_FIELD and "\0" not in value:
        return value
    try:
        return clean(name, value)
    except Refused as refused:
        raise Unusable(refused.detail) from None


def moment(value: object) -> tuple[datetime, int | None]:
    """The instant and the offset written. Raises ValueError where it is no timestamp; anything long is none."""
    if not isinstance(value, str) or len(value) > LONGEST_TIME:
        raise Unusable(f"{quoted(value)} is not a timestamp")
    return read(value)


def span(start: object, end: object, zone_offset: object = None) -> Span:
    """The time between two timestamps; without an end, the point at `start`.

    `zone_offset` is Open Wearables' `zoneOffset`. Raises ValueError for an unusable timestamp, one without a zone,
    and an end before the start.
    """
    start_at, offset = moment(start)
    if zone_offset is not None:
        offset = said_offset(zone_offset, offset)
    if end is None or end == start:
        return Span(start_at, start_at, offset)
    end_at, _ = moment(end)
    if end_at < start_at:
        raise Unusable(f"it ends ({quoted(end)}) before it starts ({quoted(start)})")
    return Span(start_at, end_at, offset)


def said_offset(zone_offset: object, written: int | None) -> int | None:
    """The minutes of `+02:00`; `Z` is 0, as it says something of the place here.

    Anything else leaves the timestamp's own offset standing. A bare number too: no uploader sends one, and whether
    it meant minutes or seconds would be a guess, which is worse than not knowing.
    """
    if not isinstance(zone_offset, str) or len(zone_offset) > LONGEST_TIME:
        return written
    try:
        return remembered_offset(zone_offset)
    except ValueError:
        return written


remembered_offset = lru_cache(maxsize=256)(parse_offset)


def record_of(item: Document, name: str, source: str, when: Span) -> str:
    """The sample's identity: its `uuid` or `id`, else a digest of type or name, source, start and end."""
    written = written_record(item)
    if written:
        return written
    # One part, kept apart by NUL, which none of them can hold: each part of a digest costs a microsecond.
    return digest(f"{name}\0{source}\0{when.start_at.isoformat()}\0{when.end_at.isoformat()}")


def written_record(item: Document) -> str:
    """The `uuid` or `id`, empty where there is none. Raises Unusable where it cannot be one."""
    value = item.get("uuid")
    if value is None or value == "":
        value = item.get("id")
    if isinstance(value, str):
        return text("uuid", value)
    if value is None:
        return ""
    if type(value) is not int:
        raise Unusable(f"the uuid must be a text, not {quoted(value)}")
    return text("uuid", str(value))
