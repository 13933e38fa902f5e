import asyncio
import os
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
import pytest
from prometheus_client import CONTENT_TYPE_LATEST
from psycopg import sql
from pytest_django import Settings

from auren import health
from tests.webhooks.entry import ELSEWHERE, Json, in_sandbox, opened, somebody
from tests.webhooks.wire import Wire, wire

NOWHERE = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def in_the_sandbox(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    in_sandbox(settings)
    settings.REDIS_URL = settings.KAFKA_BOOTSTRAP_SERVERS = ""
    monkeypatch.setattr(health, "REMEMBER", 0)


@pytest.fixture
async def web(database: str) -> AsyncIterator[httpx.AsyncClient]:
    async with opened() as asking:
        yield asking


@pytest.fixture
async def wired(settings: Settings) -> AsyncIterator[Wire]:
    """The way that the web process takes to PostgreSQL."""
    async with wire() as postgresql:
        settings.DATABASE_URL = postgresql.address
        yield postgresql


async def ready(web: httpx.AsyncClient) -> tuple[int, Json]:
    answer = await web.get("/health/ready")
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, answer.json()


# /health


async def test_a_process_that_runs_is_live_whatever_is_away(database: str, wired: Wire) -> None:
    async with opened() as web:
        wired.cut()
        answer = await web.get("/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_ready_names_all_that_the_process_stands_on(
    database: str, redis: str, kafka: str, settings: Settings
) -> None:
    settings.REDIS_URL, settings.KAFKA_BOOTSTRAP_SERVERS = redis, kafka
    async with opened() as web:
        assert await ready(web) == (200, {"postgresql": "ok", "redis": "ok", "kafka": "ok"})


@pytest.mark.parametrize("address", ["", f"redis://{NOWHERE}/0", "redis://:wrong@{server}/0"])
async def test_without_redis_there_is_a_fallback(database: str, redis: str, settings: Settings, address: str) -> None:
    settings.REDIS_URL = address.format(server=urlsplit(redis).netloc.rpartition("@")[2])
    async with opened() as web:
        assert await ready(web) == (200, {"postgresql": "ok", "redis": "fallback", "kafka": "down"})


@pytest.mark.parametrize(
    "servers", ["", NOWHERE, f"{NOWHERE},127.0.0.1:2", "127.0.0.1", "127.0.0.1:kafka", "[::1", ","]
)
async def test_without_kafka_it_stays_ready(web: httpx.AsyncClient, settings: Settings, servers: str) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = servers
    assert await ready(web) == (200, {"postgresql": "ok", "redis": "fallback", "kafka": "down"})


async def test_one_kafka_server_of_several_is_enough(web: httpx.AsyncClient, settings: Settings, kafka: str) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = f"{NOWHERE}, {kafka}"
    assert (await ready(web))[1]["kafka"] == "ok"


async def test_without_postgresql_it_is_not_ready_until_it_is_back(database: str, wired: Wire) -> None:
    async with opened() as web:
        assert (await ready(web))[0] == 200
        wired.cut()
        for _ in range(3):
            assert await ready(web) == (503, {"postgresql": "down", "redis": "fallback", "kafka": "down"})
        wired.mend()
        async with asyncio.timeout(10):
            while (await ready(web))[0] != 200:
                await asyncio.sleep(0)


async def test_a_postgresql_that_says_nothing_any_more_is_down_in_under_a_second(database: str, wired: Wire) -> None:
    async with opened() as web:
        wired.fall_silent()
        asked_at = time.monotonic()
        status, parts = await ready(web)
        assert time.monotonic() - asked_at < 1
        wired.mend()
    assert (status, parts["postgresql"]) == (503, "down")


async def test_a_database_behind_this_release_is_not_migrated(web: httpx.AsyncClient) -> None:
    async with somebody() as operator:
        migration = "WHERE app = 'webhooks' AND name = '0001_initial'"
        taken = await operator.execute(f"DELETE FROM django_migrations {migration} RETURNING *")
        [values] = await taken.fetchall()
        try:
            assert await ready(web) == (503, {"postgresql": "not migrated", "redis": "fallback", "kafka": "down"})
        finally:
            await operator.execute("INSERT INTO django_migrations VALUES (%s, %s, %s, %s)", values)
    assert (await ready(web))[0] == 200


async def test_a_database_ahead_of_this_release_is_ready(web: httpx.AsyncClient) -> None:
    async with somebody() as operator:
        await operator.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('later', '0001', now())")
        try:
            assert (await ready(web))[0] == 200
        finally:
            await operator.execute("DELETE FROM django_migrations WHERE app = 'later'")


async def test_an_empty_database_is_not_migrated(database: str, settings: Settings) -> None:
    name = f"auren_empty_{os.getpid()}"
    settings.DATABASE_URL = urlunsplit(urlsplit(database)._replace(path=f"/{name}"))
    with psycopg.connect(database, autocommit=True) as operator:
        operator.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            async with opened() as web:
                assert (await ready(web))[1]["postgresql"] == "not migrated"
        finally:
            operator.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


async def test_many_probes_at_once_cost_one_question(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "REMEMBER", 60)
    async with opened() as web, somebody() as operator:
        assert (await ready(web))[0] == 200
        await operator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", ["auren health"]
        )
        assert (await ready(web))[0] == 200


async def test_another_question_about_health_is_not_found(web: httpx.AsyncClient) -> None:
    assert (await web.get("/health/perfect")).status_code == 404


# /metrics


async def test_metrics_are_ours_and_djangos(web: httpx.AsyncClient) -> None:
    await web.get("/no-such-page")
    answer = await web.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == CONTENT_TYPE_LATEST
    for name in ("auren_webhooks_answered_total", "auren_webhooks_queued", "django_http_requests_before_middlewares"):
        assert f"\n# TYPE {name.removesuffix('_total')}" in answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.parametrize(
    ("peer", "token", "shown", "status"),
    [
        ("127.0.0.1", "", "", 200),
        ("::1", "", "", 200),
        ("127.0.0.1", "a-token", "", 200),
        (ELSEWHERE, "", "", 403),
        (ELSEWHERE, "", "Bearer ", 403),
        (ELSEWHERE, "", "Bearer", 403),
        (ELSEWHERE, "a-token", "", 403),
        (ELSEWHERE, "a-token", "a-token", 403),
        (ELSEWHERE, "a-token", "Bearer another", 403),
        (ELSEWHERE, "a-token", "Bearer a-token-and-more", 403),
        (ELSEWHERE, "a-token", "Bearer \u00e4", 403),
        (ELSEWHERE, "a-token", "Bearer a-token", 200),
    ],
)
async def test_metrics_are_shown_to_this_machine_or_for_the_token(
    database: str, settings: Settings, peer: str, token: str, shown: str, status: int
) -> None:
    settings.METRICS_TOKEN = token
    async with opened(peer) as web:
        answer = await web.get("/metrics", headers={b"authorization": shown.encode()} if shown else None)
    assert answer.status_code == status
    assert ("auren_" in answer.text) == (status == 200)
