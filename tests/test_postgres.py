"""Connections that are kept: a dead one is given to nobody."""

import os
from collections.abc import AsyncIterator

import psycopg
import pytest

from auren import postgres
from devices.tokens import Pool


@pytest.fixture
async def connections(database: str) -> AsyncIterator[Pool]:
    async with postgres.pool("of a test", 1) as opened:
        yield opened


async def test_a_pools_connection_that_died_while_it_was_idle_is_replaced_before_it_is_given_out(
    connections: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "CHECK_EVERY", 0.0)
    async with connections.connection() as first:
        backend = first.info.backend_pid
    with psycopg.connect(os.environ["DATABASE_URL"]) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
    async with connections.connection() as second:
        assert await (await second.execute("SELECT 1")).fetchone() == (1,)
        assert second.info.backend_pid != backend


async def test_a_connection_in_use_all_the_time_is_looked_at_now_and_then_only(
    connections: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "CHECK_EVERY", 1_000.0)
    seen = set()
    for _ in range(5):
        async with connections.connection() as connection:
            assert isinstance(connection, postgres.Pooled)
            seen.add(connection.good_at)
    assert len(seen) == 1
    assert seen != {postgres.Pooled.good_at}
