"""Connections that are kept, of which a dead one is given to nobody, and arrays that are written in one go."""

import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

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
            assert isinstance(connection, postgres.Kept)
            seen.add(connection.good_at)
    assert len(seen) == 1
    assert seen != {float("-inf")}


Take = Callable[[], AbstractAsyncContextManager[postgres.Connection]]


@pytest.fixture(params=["line", "pool"])
async def take(database: str, request: pytest.FixtureRequest) -> AsyncIterator[Take]:
    """Gives out a connection, the same each time."""
    limits = {"plan_cache_mode": "force_generic_plan"}
    if request.param == "pool":
        async with postgres.pool("of a test", 1, **limits) as opened:
            yield opened.connection
    else:
        line = postgres.Line("of a test", **limits)
        await line.open()
        yield line.use
        await line.close()


@pytest.mark.parametrize(("every", "plan"), [(1_000.0, "Seq Scan"), (0.0, "Index Scan")])
async def test_a_plan_made_for_an_empty_table_is_soon_made_anew(
    take: Take, monkeypatch: pytest.MonkeyPatch, every: float, plan: str
) -> None:
    """A temporary table, for which autovacuum never comes."""
    monkeypatch.setattr(postgres, "REPLAN_EVERY", every)
    async with take() as connection:
        await connection.execute("CREATE TEMPORARY TABLE filling (id bigint, open boolean)")
        await connection.execute("CREATE INDEX ON filling (id) WHERE open")
        await connection.execute("ANALYZE filling")
        await connection.execute("PREPARE find (bigint) AS SELECT * FROM filling WHERE id = $1 AND open")
        assert "Seq Scan" in await explained(connection)
        await connection.execute("INSERT INTO filling SELECT n, true FROM generate_series(1, 20000) n")
    async with take() as connection:
        assert plan in await explained(connection)


async def explained(connection: postgres.Connection) -> str:
    rows = await (await connection.execute("EXPLAIN EXECUTE find (1)")).fetchall()
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("bigint[]", [1, None, -(2**63), 2**63 - 1]),
        ("smallint[]", []),
        ("boolean[]", [True, None, False]),
        ("double precision[]", [0.1, -1e300, None, 72.0]),
        ("uuid[]", [uuid.UUID(int=0), None, uuid.UUID("7a52bb6f-dc43-4bb5-9a9e-6b1e5f3b0f1c")]),
        ("timestamptz[]", [datetime(2026, 11, 25, 6, 31, 4, 123456, UTC), None, datetime(1970, 1, 1, tzinfo=UTC)]),
        ("text[]", ["watch,phone", None, "NULL", "", 'say "{x}"', "back\\slash", "\u00e9\U0001f600"]),
        ("timestamptz[]", [datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=5, minutes=45)))]),
    ],
)
async def test_an_array_written_in_one_go_is_what_it_was_made_of(
    connections: Pool, kind: str, values: list[Any]
) -> None:
    async with connections.connection() as connection:
        cursor = await connection.execute(f"SELECT %s::{kind}", [postgres.array(values)])
        assert await cursor.fetchone() == (values,)
