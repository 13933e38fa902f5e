import socket

import pytest
from django.conf import settings as django_settings
from django_redis.cache import RedisCache
from pytest_django import Settings

from auren.console.api import throttles
from auren.embedded.server import free_port
from tests.console.api.conftest import Caller, problem


@pytest.fixture
def two_a_minute(settings: Settings) -> None:
    settings.API_RATE_LIMIT = "2/60"


@pytest.mark.usefixtures("redis", "two_a_minute")
def test_whoever_asks_too_often_is_told_when_to_come_back(sam: Caller) -> None:
    assert [sam.get("/metrics").status_code for _ in range(2)] == [200, 200]
    answer = sam.get("/metrics")
    assert problem(answer) == (429, "throttled")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


@pytest.mark.usefixtures("redis", "two_a_minute")
def test_each_token_has_a_count_of_its_own(sam: Caller) -> None:
    other = Caller(sam.user)
    for _ in range(3):
        sam.get("/metrics")
    assert other.get("/metrics").status_code == 200


@pytest.mark.usefixtures("redis")
def test_what_reads_much_is_counted_on_top(sam: Caller, settings: Settings) -> None:
    settings.API_COSTLY_RATE_LIMIT = "1/60"
    assert problem(sam.get("/samples")) == (400, "bad-query")
    assert problem(sam.get("/samples")) == (429, "throttled")
    assert sam.get("/metrics").status_code == 200


def test_zero_is_no_limit(sam: Caller, settings: Settings) -> None:
    settings.API_RATE_LIMIT = "0"
    assert {sam.get("/metrics").status_code for _ in range(5)} == {200}


def redis_at(port: int) -> RedisCache:
    return RedisCache(f"redis://127.0.0.1:{port}/0", {"OPTIONS": django_settings.CACHES["default"]["OPTIONS"]})


@pytest.mark.usefixtures("two_a_minute")
def test_with_redis_away_nobody_is_counted_and_nothing_fails(sam: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttles.Every, "cache", redis_at(free_port()))
    assert {sam.get("/metrics").status_code for _ in range(4)} == {200}


@pytest.mark.usefixtures("two_a_minute")
def test_a_redis_that_does_not_answer_is_left_alone_for_a_while(sam: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(throttles.Every, "cache", redis_at(silent.getsockname()[1]))
        monkeypatch.setattr(throttles, "SLOW_SECONDS", 0.4)
        assert {sam.get("/metrics").status_code for _ in range(4)} == {200}
        assert throttles.Every.not_asked_until > 0
