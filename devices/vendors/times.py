"""Vendors' timestamps and days, read into UTC without losing the offset they were written with. Pure."""

import re
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

# Nothing a wearable measured lies outside these; it keeps every sum of times clear of datetime's own limits.
FIRST_YEAR = 1970
LAST_YEAR = 2100

TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]"
    r"([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?"
    r"(?: ?([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?))?"
)
OFFSET = re.compile(r"([+-])([0-9]{2})(?::?([0-9]{2}))?")
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
SEPARATORS = frozenset(("--T::", "-- ::"))  # characters 4, 7, 10, 13 and 16 of a timestamp
LONGEST_TAIL = 45  # characters after the seconds that are worth remembering
NOUGHT = "2000-01-01T00:00:00"
NOUGHT_AT = datetime(2000, 1, 1, tzinfo=UTC)
JSON_WORDS = {"None": "null", "True": "true", "False": "false"}


class Moment(NamedTuple):
    """An instant in UTC, and the offset it was written with, in minutes: None for `Z`, which tells no place."""

    at: datetime
    offset_minutes: int | None


class LocalDay(NamedTuple):
    """A day in a zone, from its midnight to the next (23, 24 or 25 hours), with the zone's offset at its midnight."""

    start_at: datetime
    end_at: datetime
    offset_minutes: int


def parse(text: object) -> Moment:
    """Read an RFC 3339 timestamp, or Health Auto Export's `2024-01-15 07:30:00 -0400`.

    Fractions of a second may have any length; what is finer than a microsecond is cut off. Raises ValueError
    with a message for people when there is no zone, when it is not a time, or when its year cannot be.
    """
    return Moment(*read(text))


def read(text: object) -> tuple[datetime, int | None]:
    """`parse` as a plain tuple, for batches of thousands; the usual forms take a fifth of what the pattern takes."""
    if isinstance(text, str) and text[4:17:3] in SEPARATORS and len(text) <= len(NOUGHT) + LONGEST_TAIL:
        try:
            at = datetime.fromisoformat(text[:19] + "Z")
            added, offset = _remainder(text[19:])
        except ValueError:
            return _read_by_pattern(text)  # for its message
        if FIRST_YEAR <= at.year <= LAST_YEAR:
            return at + added, offset
    return _read_by_pattern(text)


@lru_cache(maxsize=1024)
def _remainder(tail: str) -> tuple[timedelta, int | None]:
    """What the part of a timestamp after its seconds adds to it, as `.500+02:00` does, and the offset it says."""
    at, offset = _read_by_pattern(NOUGHT + tail)
    return at - NOUGHT_AT, offset


def _read_by_pattern(text: object) -> tuple[datetime, int | None]:
    found = TIMESTAMP.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{quoted(text)} is not a timestamp")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    if zone is None:
        raise ValueError(f"{quoted(text)} has no time zone")
    check_year(year, text)
    try:
        offset = None if zone in ("Z", "z") else parse_offset(zone)
        clock = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0), tzinfo=UTC)
    except ValueError as error:
        raise ValueError(f"{quoted(text)} is not a time: {error}") from None
    return clock + timedelta(minutes=-(offset or 0), microseconds=microseconds_of(fraction)), offset


def parse_offset(text: object) -> int:
    """Read `Z`, `+hh:mm`, `-hhmm` or `+hh` as minutes. Raises ValueError for anything else."""
    if text in ("Z", "z"):
        return 0
    found = OFFSET.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{quoted(text)} is not an offset like +02:00")
    sign, hours, minutes = found.group(1), int(found.group(2)), int(found.group(3) or 0)
    if hours > 23 or minutes > 59:
        raise ValueError(f"the offset {quoted(text)} is beyond 23:59")
    return -(hours * 60 + minutes) if sign == "-" else hours * 60 + minutes


def check_year(year: str, text: object) -> None:
    if not FIRST_YEAR <= int(year) <= LAST_YEAR:
        raise ValueError(f"{quoted(text)} is not between the years {FIRST_YEAR} and {LAST_YEAR}")


def microseconds_of(fraction: str | None) -> int:
    return int(fraction[:6].ljust(6, "0")) if fraction else 0


def to_text(at: datetime) -> str:
    """An aware instant as RFC 3339 in UTC with `Z`, with as many of 0, 3 or 6 decimals as it needs."""
    decimals = "microseconds" if at.microsecond % 1000 else "milliseconds" if at.microsecond else "seconds"
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=decimals) + "Z"


def local_day(day: date | str, zone: str) -> LocalDay:
    """The UTC bounds of a calendar day (`YYYY-MM-DD`) in an IANA zone; ValueError when either is unknown.

    A midnight that a clock change skips is the instant of the change; one that comes twice is the first.
    """
    wanted = day if isinstance(day, date) else parse_day(day)
    place = find_zone(zone)
    midnight = datetime.combine(wanted, time(), place)
    following = datetime.combine(wanted + timedelta(days=1), time(), place)
    offset = midnight.utcoffset() or timedelta()
    return LocalDay(midnight.astimezone(UTC), following.astimezone(UTC), int(offset.total_seconds() // 60))


def parse_day(text: object) -> date:
    """Read `YYYY-MM-DD`. Raises ValueError for anything else."""
    if not isinstance(text, str) or DAY.fullmatch(text) is None:
        raise ValueError(f"{quoted(text)} is not a day like 2024-01-15")
    check_year(text[:4], text)
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{quoted(text)} is not a day: {error}") from None


def find_zone(name: str) -> ZoneInfo:
    """The IANA zone of that name. Raises ValueError when there is none: zoneinfo itself raises six different errors."""
    try:
        return ZoneInfo(name)
    except (ValueError, LookupError, OSError, TypeError, AttributeError):
        raise ValueError(f"{quoted(name)} is not a time zone like Europe/Berlin") from None


def quoted(value: object) -> str:
    """A JSON value for an error message: short, and in ASCII, so that no NUL or lone surrogate travels on."""
    if isinstance(value, str):
        return ascii(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a huge number"
    return JSON_WORDS.get(str(value), str(value))
