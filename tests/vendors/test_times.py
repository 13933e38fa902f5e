from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.vendors.times import local_day, parse, parse_offset, quoted, to_text
from tests.vendors.recorded import patient


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("text", "at", "offset"),
    [
        ("2024-01-15T07:30:00Z", utc(2024, 1, 15, 7, 30), None),
        ("2024-01-15t07:30:00z", utc(2024, 1, 15, 7, 30), None),
        ("2024-01-15T07:30:00+00:00", utc(2024, 1, 15, 7, 30), 0),
        ("2024-01-15T07:30:00+05:30", utc(2024, 1, 15, 2, 0), 330),
        ("2024-01-15T07:30:00-0930", utc(2024, 1, 15, 17, 0), -570),
        ("2024-01-15T07:30:00+02", utc(2024, 1, 15, 5, 30), 120),
        ("2024-01-15 07:30:00 -0400", utc(2024, 1, 15, 11, 30), -240),
        ("2024-01-15 07:30:00 +0000", utc(2024, 1, 15, 7, 30), 0),
        ("2024-01-15T07:30Z", utc(2024, 1, 15, 7, 30), None),
        ("2024-01-15T07:30:00.5Z", utc(2024, 1, 15, 7, 30, 0, 500_000), None),
        ("2024-01-15T07:30:00.1234569999Z", utc(2024, 1, 15, 7, 30, 0, 123_456), None),
        ("2024-02-29T23:59:59.999999-00:01", utc(2024, 3, 1, 0, 0, 59, 999_999), -1),
    ],
)
def test_a_timestamp_becomes_utc_and_keeps_the_offset_it_was_written_with(
    text: str, at: datetime, offset: int | None
) -> None:
    assert parse(text) == (at, offset)
    assert parse(text).at.tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2024-01-15T07:30:00", "has no time zone"),
        ("2024-01-15 07:30:00.123", "has no time zone"),
        ("2024-01-15", "is not a timestamp"),
        ("2024-W03-1T07:30:00Z", "is not a timestamp"),
        ("20240115T073000Z", "is not a timestamp"),
        (" 2024-01-15T07:30:00Z", "is not a timestamp"),
        ("2024-01-15T07:30:00Z\n", "is not a timestamp"),
        ("\uff12024-01-15T07:30:00Z", "is not a timestamp"),
        ("2024-01-15T07:30:00 Europe/Berlin", "is not a timestamp"),
        ("2023-02-29T07:30:00Z", "day is out of range"),
        ("2024-01-15T24:00:00Z", "hour must be in"),
        ("2024-01-15T07:30:00+24:00", "beyond 23:59"),
        ("2024-01-15T07:30:00+02:60", "beyond 23:59"),
        ("0000-01-15T07:30:00Z", "between the years 1970 and 2100"),
        ("9999-12-31T23:59:59-12:00", "between the years 1970 and 2100"),
        (1705303800, "1705303800 is not a timestamp"),
        (None, "null is not a timestamp"),
        (True, "true is not a timestamp"),
        ({"at": 1}, "an object is not a timestamp"),
        (["2024-01-15T07:30:00Z"], "a list is not a timestamp"),
    ],
)
def test_what_is_no_timestamp_is_refused_with_the_reason(text: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(text)


@patient
@given(st.timedeltas(timedelta(days=1), timedelta(days=47_000)), st.integers(-14 * 60, 14 * 60))
def test_any_instant_survives_being_written_at_any_offset(age: timedelta, offset: int) -> None:
    clock = utc(1970, 1, 1) + age
    sign, (hours, minutes) = "-" if offset < 0 else "+", divmod(abs(offset), 60)
    moment = parse(f"{clock.replace(tzinfo=None).isoformat()}{sign}{hours:02}:{minutes:02}")
    assert moment.at == clock - timedelta(minutes=offset)
    assert parse(to_text(moment.at)) == (moment.at, None)


@patient
@given(st.text(max_size=40))
def test_any_text_is_a_moment_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert parse(text).at.tzinfo is UTC


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (utc(2024, 1, 15, 2, 30), "2024-01-15T02:30:00Z"),
        (utc(2024, 1, 15, 2, 30, 0, 500_000), "2024-01-15T02:30:00.500Z"),
        (utc(2024, 1, 15, 2, 30, 0, 1), "2024-01-15T02:30:00.000001Z"),
    ],
)
def test_an_instant_is_written_with_the_decimals_it_needs(at: datetime, text: str) -> None:
    assert to_text(at) == text


@pytest.mark.parametrize(
    ("day", "zone", "start_at", "hours", "offset"),
    [
        ("2024-01-15", "UTC", utc(2024, 1, 15), 24, 0),
        ("2024-03-31", "Europe/Berlin", utc(2024, 3, 30, 23), 23, 60),
        ("2024-10-27", "Europe/Berlin", utc(2024, 10, 26, 22), 25, 120),
        ("2024-01-15", "Asia/Kathmandu", utc(2024, 1, 14, 18, 15), 24, 345),
        ("2024-04-07", "Australia/Lord_Howe", utc(2024, 4, 6, 13), 24.5, 660),
        # Midnight itself is skipped in Cairo, and comes twice in Havana.
        ("2024-04-26", "Africa/Cairo", utc(2024, 4, 25, 22), 23, 120),
        ("2024-11-03", "America/Havana", utc(2024, 11, 3, 4), 25, -240),
        # Samoa crossed the date line and never had this day.
        ("2011-12-30", "Pacific/Apia", utc(2011, 12, 30, 10), 0, -600),
    ],
)
def test_a_local_day_runs_from_midnight_to_midnight_through_clock_changes(
    day: str, zone: str, start_at: datetime, hours: float, offset: int
) -> None:
    found = local_day(day, zone)
    assert found == (start_at, start_at + timedelta(hours=hours), offset)
    assert local_day(date.fromisoformat(day), zone) == found


@pytest.mark.parametrize(
    "day", ["2024-02-30", "2024-1-5", "20240105", "", "2024-01-05T00:00:00", "9999-12-31", None, 5]
)
def test_what_is_no_day_is_refused(day: str) -> None:
    with pytest.raises(ValueError, match=r"day|years"):
        local_day(day, "UTC")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "America", "../UTC", "/etc/passwd", "a\0b", "\ud800", None, 5])
def test_a_zone_that_does_not_exist_is_refused_by_name(zone: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone like Europe/Berlin"):
        local_day("2024-01-15", zone)


@pytest.mark.parametrize("text", ["", "2", "+2", "+2:00", "02:00", "+02:00:00", "UTC", None, 120])
def test_what_is_no_offset_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not an offset"):
        parse_offset(text)


@pytest.mark.parametrize("value", ["x" * 10_000, "\0\ud800é", [[[]]] * 9_999, {"a": "b" * 9_999}, 10**4_000, -1.5])
def test_a_quoted_value_is_short_and_plain(value: object) -> None:
    assert len(quoted(value)) <= 62
    assert quoted(value).isascii()
    assert quoted(value).isprintable()
