"""Where loss hides between a webhook and its row: each trap of the group commit, by name."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest
from pytest_django import Settings

from auren import settings as defaults
from tests.webhooks.entry import (
    JSON,
    LONG_SECONDS,
    Json,
    all_queued,
    come_again,
    compact,
    counted,
    gauge,
    in_sandbox,
    locked,
    opened,
    promised,
    raw,
    refused,
    rows,
    served,
    somebody,
    somebody_waits,
    taken_again,
    until,
)
from tests.webhooks.webhook_cases import fresh
from tests.webhooks.wire import Wire, wire
from webhooks.inbox import BATCH_BYTES, BATCH_ROWS, LOOK_EVERY, Inbox, Receipt, Row, Unavailable, Unstorable

INSERT = """
INSERT INTO webhooks_delivery (vendor, dedup_key, event_type, vendor_user_id) VALUES ('oura', %s, 'sleep.update', 'u')
RETURNING id
"""
SESSIONS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'auren %'
"""
COUNTING = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'auren backlog' AND state = 'active'"
TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE %s
"""


def row(key: str = "", user: str = "user_7", body: bytes = b"{}") -> Row:
    return Row("oura", key or fresh(), "sleep.update", user, "", None, body, None)


@asynccontextmanager
async def inbox(*, limit: float = LONG_SECONDS, committers: int = 1) -> AsyncIterator[Inbox]:
    taking = Inbox(max_rows=10_000, max_bytes=BATCH_BYTES * 4, limit=limit, committers=committers)
    try:
        await taking.open()
        yield taking
    finally:
        await taking.close()


async def put_all(taking: Inbox, wanted: Sequence[Row]) -> list[Receipt]:
    return await asyncio.gather(*(taking.put(each) for each in wanted))


class Posting:
    """The same unsigned announcement under a name of its own, as often as it is sent."""

    def __init__(self, user: str = "user_7", size: int = 0) -> None:
        self.body = compact({"type": "sleep.updated", "user_id": user, "trace_id": fresh()}).ljust(size)

    async def __call__(self, web: httpx.AsyncClient) -> httpx.Response:
        return await web.post("/webhooks/whoop", content=self.body, headers=JSON)


@pytest.fixture(autouse=True)
def in_the_sandbox(settings: Settings) -> None:
    in_sandbox(settings)


# The commit


async def test_overlapping_unsorted_batches_of_two_inboxes_do_not_deadlock(database: str) -> None:
    wanted = [row(f"key-{number:03}") for number in range(200)]
    async with inbox() as one, inbox() as other, somebody() as holder:
        async with holder.transaction(force_rollback=True):
            # Whoever inserts in the order given comes up to this key from one side and holds what the other needs.
            await holder.execute(INSERT, ["key-100"])
            both = asyncio.gather(put_all(one, wanted), put_all(other, wanted[::-1]))
            await somebody_waits(holder, sessions=2)
        first, second = await both
    assert [receipt.id for receipt in first] == [receipt.id for receipt in second[::-1]]
    assert sorted(receipt.duplicate for receipt in first + second) == [False] * 200 + [True] * 200


async def test_doubles_within_one_batch_are_merged(database: str) -> None:
    wanted = [row(key) for key in ("double", "other", "double", "double")]
    commits = counted("auren_webhook_commits_total")
    async with inbox() as taking:
        receipts = await put_all(taking, wanted)
    assert counted("auren_webhook_commits_total") == commits + 1
    assert [receipt.duplicate for receipt in receipts] == [False, False, True, True]
    assert len({receipts[place].id for place in (0, 2, 3)}) == 1
    assert [stored["dedup_key"] for stored in rows()] == ["double", "other"]


async def test_a_key_that_another_session_is_committing_at_this_moment_has_that_sessions_id(database: str) -> None:
    async with inbox() as taking, somebody() as other:
        async with other.transaction():
            [theirs] = await (await other.execute(INSERT, ["double"])).fetchone() or [0]
            receipts = asyncio.gather(*(taking.put(row(key)) for key in ("before", "double", "other")))
            await somebody_waits(other)
        before, double, after = await receipts
    assert double == Receipt(theirs, duplicate=True)
    assert not before.duplicate
    assert not after.duplicate


async def test_a_key_that_another_session_takes_back_is_new(database: str) -> None:
    async with inbox() as taking, somebody() as other:
        async with other.transaction(force_rollback=True):
            await other.execute(INSERT, ["double"])
            receipt = asyncio.create_task(taking.put(row("double")))
            await somebody_waits(other)
        assert not (await receipt).duplicate


@pytest.mark.parametrize("user", ["a\0b", "a\ud83d", "x" * 256], ids=["NUL", "lone surrogate", "too long"])
@pytest.mark.parametrize("places", [{0}, {6}, {12}, {0, 1, 5, 12}, set(range(13))], ids=repr)
async def test_rows_that_the_database_refuses_do_not_fail_their_neighbours(
    database: str, user: str, places: set[int]
) -> None:
    wanted = [row(user=user if place in places else "user_7") for place in range(13)]
    async with inbox() as taking:
        results = await asyncio.gather(*(taking.put(each) for each in wanted), return_exceptions=True)
        assert (taking.rows, taking.bytes) == (0, 0)
    assert {place for place, result in enumerate(results) if isinstance(result, Unstorable)} == places
    assert {place for place, result in enumerate(results) if isinstance(result, Receipt)} == set(range(13)) - places
    assert len(rows()) == 13 - len(places)


async def test_a_webhook_that_the_database_refuses_is_told_so_and_its_neighbours_are_taken(
    database: str, settings: Settings
) -> None:
    async with opened() as web, refusing("user_6"):
        async with asyncio.TaskGroup() as posting, locked() as holder:
            posting.create_task(Posting()(web))
            await somebody_waits(holder)
            batch = [posting.create_task(Posting(f"user_{number}")(web)) for number in range(10)]
            await all_queued(web, 11)
        answers = [task.result() for task in batch]
    refused(answers.pop(6), 400, "unstorable")
    assert len({promised(answer)["delivery"] for answer in answers}) == 9


@asynccontextmanager
async def refusing(user: str) -> AsyncIterator[None]:
    """A rule of the database's own."""
    async with somebody() as owner:
        await owner.execute(f"ALTER TABLE webhooks_delivery ADD CONSTRAINT refusing CHECK (vendor_user_id <> '{user}')")
        try:
            yield
        finally:
            await owner.execute("ALTER TABLE webhooks_delivery DROP CONSTRAINT refusing")


async def test_a_long_line_is_committed_in_batches_of_bounded_rows_and_bytes(database: str) -> None:
    commits = counted("auren_webhook_commits_total")
    async with inbox() as taking:
        await put_all(taking, [row() for _ in range(2 * BATCH_ROWS + 1)])
        assert counted("auren_webhook_commits_total") == commits + 3
        await put_all(taking, [row(body=bytes(BATCH_BYTES // 2)) for _ in range(4)])
        assert counted("auren_webhook_commits_total") == commits + 5


async def test_committers_side_by_side_promise_each_key_once(database: str) -> None:
    wanted = [row(f"key-{number % 700:03}") for number in range(1_400)]
    async with inbox(committers=3) as taking:
        receipts = await put_all(taking, wanted)
    assert len({receipt.id for receipt in receipts}) == len(rows()) == 700
    assert [receipt.duplicate for receipt in receipts].count(False) == 700


# Those who wait


async def test_a_waiter_that_left_is_skipped_and_the_others_are_answered(database: str) -> None:
    async with inbox() as taking:
        async with locked() as holder:
            ahead = asyncio.create_task(taking.put(row("ahead")))
            await somebody_waits(holder)
            stays, leaves, stays_too = (
                asyncio.create_task(taking.put(row(key))) for key in ("stays", "leaves", "stays too")
            )
            await until(lambda: taking.rows == 4)
            leaves.cancel()
            await asyncio.gather(leaves, return_exceptions=True)
            assert taking.rows == 3
        await asyncio.gather(ahead, stays, stays_too)
        assert (taking.rows, taking.bytes) == (0, 0)
    assert {stored["dedup_key"] for stored in rows()} == {"ahead", "stays", "stays too"}


async def test_a_waiter_that_leaves_during_the_commit_does_not_cancel_it_for_the_others(database: str) -> None:
    async with inbox() as taking:
        async with locked() as holder:
            leaves, stays = (asyncio.create_task(taking.put(row(key))) for key in ("leaves", "stays"))
            await somebody_waits(holder)
            leaves.cancel()
            await asyncio.gather(leaves, return_exceptions=True)
        assert not (await stays).duplicate
    assert {stored["dedup_key"] for stored in rows()} == {"leaves", "stays"}


async def test_what_waits_at_shutdown_is_still_answered(database: str, settings: Settings) -> None:
    async with AsyncExitStack() as process:
        web = await process.enter_async_context(opened())
        async with locked() as holder:
            posts = [asyncio.create_task(Posting()(web)) for _ in range(5)]
            await somebody_waits(holder)
            posts += [asyncio.create_task(Posting()(web)) for _ in range(5)]
            await all_queued(web, 10)
            stopping = asyncio.create_task(process.pop_all().aclose())
            await asyncio.sleep(0)
        answers = await asyncio.gather(*posts)
        await stopping
    assert sorted(promised(answer)["delivery"] for answer in answers) == [stored["id"] for stored in rows()]


async def test_what_cannot_be_committed_at_shutdown_is_told_so(database: str, settings: Settings) -> None:
    settings.COMMIT_TIMEOUT = 0.1
    async with AsyncExitStack() as process:
        web = await process.enter_async_context(opened())
        async with locked() as holder:
            posts = [asyncio.create_task(Posting()(web))]
            await somebody_waits(holder)
            posts += [asyncio.create_task(Posting()(web)) for _ in range(5)]
            await asyncio.gather(process.pop_all().aclose(), *posts)
    for post in posts:
        come_again(post.result())


# A PostgreSQL that fails


@pytest.fixture
def patience(settings: Settings) -> None:
    """Half as long as by default, which leaves a busy machine the rest of the second."""
    assert defaults.COMMIT_TIMEOUT + LOOK_EVERY < 1
    settings.COMMIT_TIMEOUT = 0.45


async def test_a_commit_that_takes_too_long_is_refused_in_under_a_second_and_its_retry_stored_once(
    database: str, patience: None
) -> None:
    posts = [Posting() for _ in range(3)]
    async with opened() as web:
        async with locked():
            asked_at = time.monotonic()
            for answer in await asyncio.gather(*(post(web) for post in posts)):
                come_again(answer)
            assert time.monotonic() - asked_at < 1
        for post in posts:
            await taken_again(lambda post=post: post(web))  # type: ignore[misc]
    assert sorted(bytes(stored["body"]) for stored in rows()) == sorted(post.body for post in posts)


async def test_a_commit_whose_answer_was_lost_is_refused_and_its_retry_is_a_duplicate(
    database: str, wired: Wire
) -> None:
    post = Posting()
    async with opened() as web:
        for _ in range(3):  # from then on psycopg has the statement prepared, and its first answer is the commit's
            promised(await Posting()(web))
        wired.lose_answers()
        come_again(await post(web))
        [kept] = [stored for stored in rows() if bytes(stored["body"]) == post.body]
        wired.mend()
        assert await taken_again(lambda: post(web)) == {"delivery": kept["id"], "duplicate": True}


async def test_what_waits_on_a_session_that_is_terminated_is_committed_by_the_next(
    database: str, settings: Settings
) -> None:
    post = Posting()
    async with opened() as web:
        async with locked() as holder:
            posting = asyncio.create_task(post(web))
            await somebody_waits(holder)
            await holder.execute(TERMINATE, ["auren inbox _"])
        assert promised(await posting)["duplicate"] is False
    assert [bytes(stored["body"]) for stored in rows()] == [post.body]


@pytest.mark.parametrize("committers", [1, 3])
async def test_connections_that_broke_while_nothing_came_are_no_reason_to_refuse(
    database: str, committers: int
) -> None:
    first, *others = [row() for _ in range(20)]
    async with inbox(committers=committers) as taking, somebody() as admin:
        await admin.execute(TERMINATE, ["auren inbox _"])
        broken = asyncio.create_task(taking.put(first))
        receipts = await put_all(taking, others)
        receipts.append(await broken)
    assert len({receipt.id for receipt in receipts}) == len(rows()) == 20
    assert not any(receipt.duplicate for receipt in receipts)


async def test_a_commit_whose_answer_was_lost_is_found_by_the_next_try(database: str, wired: Wire) -> None:
    post = Posting()
    async with opened() as web:
        for _ in range(3):  # from then on psycopg has the statement prepared, and its first answer is the commit's
            promised(await Posting()(web))
        wired.lose_answers()
        posting = asyncio.create_task(post(web))
        await wired.lost.wait()
        wired.mend()
        promise = promised(await posting)
    assert promise["duplicate"] is True
    assert [stored["id"] for stored in rows() if bytes(stored["body"]) == post.body] == [promise["delivery"]]


async def test_a_server_that_says_nothing_any_more_is_refused_in_under_a_second(
    database: str, wired: Wire, patience: None
) -> None:
    post = Posting()
    async with opened() as web:
        wired.fall_silent()
        asked_at = time.monotonic()
        come_again(await post(web))
        assert time.monotonic() - asked_at < 1
        wired.mend()
        await taken_again(lambda: post(web))
    assert [bytes(stored["body"]) for stored in rows()] == [post.body]


async def test_while_postgresql_is_away_everything_is_refused_at_once_and_after_it_each_connection_is_there_once(
    database: str, wired: Wire
) -> None:
    async with opened() as web, somebody() as looking:
        promised(await Posting()(web))
        before = await sessions(looking)
        wired.cut()
        asked_at = time.monotonic()
        for _ in range(100):
            come_again(await Posting()(web))
        assert time.monotonic() - asked_at < 1
        wired.mend()
        back_at = time.monotonic()
        await taken_again(lambda: Posting()(web))
        assert time.monotonic() - back_at < 1.5
        async with asyncio.timeout(LONG_SECONDS):
            while await sessions(looking) < before:
                await web.get("/health/ready")
                await web.post("/webhooks/healthkit", content=b"{}", headers=JSON | {"x-api-key": fresh()})
                await asyncio.sleep(0)
        assert await sessions(looking) == before


async def sessions(looking: psycopg.AsyncConnection[Any]) -> int:
    [count] = await (await looking.execute(SESSIONS)).fetchone() or [0]
    return int(count)


@pytest.fixture
async def wired(settings: Settings) -> AsyncIterator[Wire]:
    """The way that the web process takes to PostgreSQL."""
    async with wire() as postgresql:
        settings.DATABASE_URL = postgresql.address
        yield postgresql


@pytest.mark.parametrize("allowed", range(5))
async def test_a_start_up_that_fails_half_way_leaves_nothing_open(database: str, wired: Wire, allowed: int) -> None:
    wired.allow(allowed)
    with pytest.raises(RuntimeError, match="OperationalError"):
        async with opened():
            pass
    await until(lambda: wired.connections == 0)


# The door


@pytest.mark.parametrize(("setting", "bound"), [("MAX_QUEUED_WEBHOOKS", 2), ("MAX_QUEUED_BYTES", 2_500)])
async def test_a_full_line_closes_the_door_until_it_is_committed(
    database: str, settings: Settings, setting: str, bound: int
) -> None:
    setattr(settings, setting, bound)
    third = Posting(size=1_000)
    async with opened() as web:
        async with asyncio.TaskGroup() as posting, locked() as holder:
            posts = [posting.create_task(Posting(size=1_000)(web)) for _ in range(2)]
            await somebody_waits(holder)
            assert "full" in come_again(await third(web))
            assert await gauge(web, "auren_webhooks_queued") == 2
            assert await gauge(web, "auren_webhooks_queued_bytes") == 2_000
        promises = [promised(post.result()) for post in posts]
        promises.append(promised(await third(web)))
        assert await gauge(web, "auren_webhooks_queued") == 0
    assert [promise["duplicate"] for promise in promises] == [False] * 3


async def test_a_long_backlog_closes_the_door_until_it_is_shorter(database: str, settings: Settings) -> None:
    settings.MAX_BACKLOG = 3
    async with somebody() as others:
        await leave(others, ("received", b""), ("retrying", b""), ("stored", b"outbox"))
        await leave(others, ("dead", b""), ("unlinked", b""), ("ignored", b""), ("published", b""))
        async with opened() as web:
            async with asyncio.timeout(LONG_SECONDS):
                while await gauge(web, "auren_deliveries_backlog") != 3:
                    await asyncio.sleep(0)
            assert "full" in come_again(await Posting()(web))
            await others.execute("DELETE FROM webhooks_delivery WHERE state = 'stored'")
            await taken_again(lambda: Posting()(web))


async def test_one_count_that_was_held_up_does_not_put_off_the_next(database: str) -> None:
    async with opened() as web, somebody() as others:
        async with locked() as holder:
            await somebody_waits(holder)  # who counts
            over_at = time.monotonic() + 0.6
            while time.monotonic() < over_at:
                await asyncio.sleep(0)
        async with asyncio.timeout(LONG_SECONDS):
            while await (await others.execute(COUNTING)).fetchone():
                await asyncio.sleep(0)
        await leave(others, ("received", b""))
        async with asyncio.timeout(5):
            while await gauge(web, "auren_deliveries_backlog") != 1:
                await asyncio.sleep(0)


async def leave(others: psycopg.AsyncConnection[Any], *deliveries: tuple[str, bytes]) -> None:
    for state, outbox in deliveries:
        await others.execute(INSERT, [f"{state}-{fresh()}"])
        await others.execute(
            "UPDATE webhooks_delivery SET state = %s, outbox = %s WHERE dedup_key LIKE %s",
            [state, outbox or None, f"{state}-%"],
        )


async def test_large_bodies_that_are_still_arriving_close_the_door_to_others_of_their_kind(
    database: str, settings: Settings
) -> None:
    settings.MAX_QUEUED_BYTES = 1_000
    finish = asyncio.Event()
    slow, third = [Posting(size=1_000).body for _ in range(2)], Posting(size=600)
    async with opened() as web:
        arriving = [asyncio.create_task(send_slowly(web, body[:900], body[900:], finish)) for body in slow]
        for _ in range(20):  # until both have been read as far as they go
            await asyncio.sleep(0)
        come_again(await third(web), "busy")
        finish.set()
        await asyncio.gather(*arriving)
        promised(await third(web))


async def send_slowly(web: httpx.AsyncClient, begin: bytes, end: bytes, finish: asyncio.Event) -> httpx.Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield begin
        await finish.wait()
        yield end

    return await web.post("/webhooks/whoop", content=pieces(), headers=JSON)


async def test_a_body_that_does_not_come_in_time_is_refused_and_its_connection_closed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhooks.http.BODY_TIMEOUT", 0.05)
    head = b"POST /webhooks/whoop HTTP/1.1\r\nhost: bridge\r\ncontent-type: application/json\r\n"
    async with served() as port:
        said = await raw(port, head + b"content-length: 100\r\n\r\n{", close=False)
    assert said.startswith(b"HTTP/1.1 408")
    assert b"urn:auren:problem:slow-body" in said
    assert not rows()


async def test_what_is_announced_and_never_sent_closes_nothing(database: str, settings: Settings) -> None:
    settings.MAX_QUEUED_BYTES = 1_000
    finish = asyncio.Event()
    async with opened() as web:
        announced = JSON | {"content-length": "1000000"}

        async def nothing() -> AsyncIterator[bytes]:
            await finish.wait()
            yield b""

        idle = [
            asyncio.create_task(web.post("/webhooks/whoop", content=nothing(), headers=announced)) for _ in range(10)
        ]
        await asyncio.sleep(0)
        promised(await Posting(size=1_000)(web))
        finish.set()
        for answer in await asyncio.gather(*idle):
            refused(answer, 400)


# The bell


async def test_a_listener_hears_of_a_webhook_once_it_is_committed(database: str) -> None:
    async with opened() as web, somebody() as worker:
        await worker.execute("LISTEN deliveries")
        async with asyncio.TaskGroup() as posting, locked() as holder:
            post = posting.create_task(Posting()(web))
            await somebody_waits(holder)
            assert [heard async for heard in worker.notifies(timeout=0)] == []
        promised(post.result())
        assert await heard_by(worker)


async def test_the_bell_rings_again_after_its_session_was_terminated(database: str) -> None:
    async with opened() as web, somebody() as worker:
        await worker.execute("LISTEN deliveries")
        promised(await Posting()(web))
        assert await heard_by(worker)
        await worker.execute(TERMINATE, ["auren inbox bell"])
        async with asyncio.timeout(LONG_SECONDS):
            while not [heard async for heard in worker.notifies(timeout=0.05)]:
                promised(await Posting()(web))


async def heard_by(worker: psycopg.AsyncConnection[Any]) -> Json:
    return {heard.channel: heard async for heard in worker.notifies(timeout=LONG_SECONDS, stop_after=1)}


async def test_an_inbox_that_was_closed_promises_nothing(database: str) -> None:
    async with inbox() as taking:
        pass
    with pytest.raises(Unavailable):
        await taking.put(row())
