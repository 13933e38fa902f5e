from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from devices.retry_after import seconds_to_wait


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "17"}, 17),
        ({"retry-after": "2.5"}, 2.5),
        ({"x-ratelimit-reset": "42"}, 42),
        ({"retry-after": "17", "x-ratelimit-reset": "42"}, 17),
        ({"retry-after": "soon", "x-ratelimit-reset": "42"}, 42),
        ({}, 30),
        ({"retry-after": "nan"}, 30),
        ({"retry-after": "inf"}, 30),
        ({"retry-after": "-5"}, 1),
        ({"retry-after": "0"}, 1),
        ({"retry-after": "999999"}, 86_400),
    ],
)
def test_the_headers_say_how_many_seconds_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert seconds_to_wait(headers) == seconds


def test_an_http_date_is_the_time_until_then() -> None:
    assert seconds_to_wait({"retry-after": format_datetime(in_seconds(90), usegmt=True)}) == pytest.approx(90, abs=5)


def test_a_unix_time_in_the_reset_header_is_the_time_until_then() -> None:
    reset = str(int(in_seconds(90).timestamp()))
    assert seconds_to_wait({"x-ratelimit-reset": reset}) == pytest.approx(90, abs=5)


def test_a_time_that_has_passed_is_the_shortest_wait() -> None:
    assert seconds_to_wait({"x-ratelimit-reset": "1700000000"}) == 1
