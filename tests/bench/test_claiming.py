from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from bench.parts.claiming import ClaimsAlone, OneEach, Side, SimpleQueue, TheWorker, rate
from bench.parts.waiting import SAMPLES, Announcements, Batches, keeping, make_people

SECONDS = 0.5
LEFT = """
SELECT d.state, d.error, d.attempts, d.link_id, d.patient_id, a.number, a.stage, a.outcome, a.message
FROM webhooks_delivery d JOIN webhooks_attempt a ON a.delivery_id = d.id
"""


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        make_people(connection)
        yield connection


@pytest.mark.parametrize(
    "side",
    [
        TheWorker(Announcements()),
        OneEach(Announcements()),
        SimpleQueue(Announcements()),
        TheWorker(Batches()),
        OneEach(Batches()),
        ClaimsAlone(120),
        ClaimsAlone(1),
    ],
)
def test_a_side_leaves_nothing_half_done_and_counts_what_it_did(
    side: Side, connection: psycopg.Connection[Any]
) -> None:
    side.file(connection, 30)
    side.work(SECONDS)
    assert 0 < side.finished(connection) <= 30


def test_the_worker_and_those_beside_it_leave_the_same_rows(connection: psycopg.Connection[Any]) -> None:
    left = []
    sides: list[Side] = [side(Announcements()) for side in (TheWorker, OneEach, SimpleQueue)]
    for side in sides:
        side.file(connection, 1)
        side.work(SECONDS)
        left += connection.execute(LEFT).fetchall()
    assert len(left) == 3
    assert len(set(left)) == 1


def test_a_side_that_ran_out_of_work_is_no_measurement(connection: psycopg.Connection[Any]) -> None:
    side = OneEach(Announcements())
    side.waiting.most = 10
    with pytest.raises(AssertionError, match="raise `most`"):
        rate(side, connection, 0.2)


async def test_a_job_stores_the_batch_it_is_told_of(connection: psycopg.Connection[Any]) -> None:
    async with keeping() as take:
        for job in Batches().jobs(3):
            await take(**job)
    assert connection.execute("SELECT count(*), count(DISTINCT patient_id) FROM biometrics_sample").fetchone() == (
        3 * SAMPLES,
        3,
    )
