from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from bench.verifying import Answer, Verdict, verify

AT = datetime(2026, 3, 1, tzinfo=UTC)
DELIVERY = """
INSERT INTO webhooks_delivery (vendor, dedup_key, event_type, vendor_user_id, body, received_at, state, patient_id)
VALUES ('healthkit', gen_random_uuid()::text, 'batch.posted', 'user_1', '', now(), %s, %s) RETURNING id
"""
TRY = """
INSERT INTO webhooks_attempt (delivery_id, number, stage, started_at, duration_ms, outcome, error_class, message)
VALUES (%s, %s, 'store', now(), 1, %s, %s, 'in words')
"""
SAMPLE = """
INSERT INTO biometrics_sample (patient_id, metric, start_at, end_at, source_id, record, value, revised_at, delivery_id)
VALUES (%s, 1, %s, %s, 1, %s, 60, %s, %s)
"""


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def filed(connection: psycopg.Connection[Any], *, state: str = "published") -> int:
    row = connection.execute(DELIVERY, [state, 1]).fetchone()
    assert row
    return int(row[0])


def sample(connection: psycopg.Connection[Any], delivery: int, record: str, *, minute: int = 0) -> None:
    at = AT + timedelta(minutes=minute)
    connection.execute(SAMPLE, [1, at, at, record, at, delivery])


def answer(delivery: int, *, key: str = "", status: int = 202, samples: int = 0, duplicate: bool = False) -> Answer:
    return Answer(0, "healthkit", status, 1.0, key or f"key-{delivery}", samples, 100, delivery, duplicate)


def verified(connection: psycopg.Connection[Any], *answers: Answer, since: int = 0) -> Verdict:
    return verify(connection, answers, since=since)


def test_promises_that_were_kept_are_called_kept(connection: psycopg.Connection[Any]) -> None:
    first, second = filed(connection), filed(connection, state="ignored")
    sample(connection, first, "a")
    sample(connection, first, "b")
    verdict = verified(connection, answer(first, samples=2), answer(second))
    assert verdict.kept
    assert (verdict.acknowledged, verdict.states) == (2, {"published": 1, "ignored": 1})


def test_a_delivery_that_is_not_there_is_missing(connection: psycopg.Connection[Any]) -> None:
    verdict = verified(connection, answer(filed(connection)), answer(4_000_000))
    assert (verdict.missing, verdict.kept) == (1, False)


def test_one_post_that_became_two_deliveries_is_doubled(connection: psycopg.Connection[Any]) -> None:
    verdict = verified(connection, answer(filed(connection), key="k"), answer(filed(connection), key="k"))
    assert (verdict.doubled, verdict.kept) == (1, False)


def test_a_post_sent_again_that_was_told_its_own_delivery_is_well(connection: psycopg.Connection[Any]) -> None:
    number = filed(connection)
    verdict = verified(connection, answer(number, key="k"), answer(number, key="k", duplicate=True))
    assert (verdict.acknowledged, verdict.kept) == (1, True)


def test_a_delivery_that_two_tries_have_stored_breaks_the_promise(connection: psycopg.Connection[Any]) -> None:
    twice, again = filed(connection), filed(connection)
    for delivery, number, outcome in (
        (twice, 1, "stored"),
        (twice, 2, "stored"),
        (again, 1, "failed"),
        (again, 2, "stored"),
    ):
        connection.execute(TRY, [delivery, number, outcome, ""])
    verdict = verified(connection, answer(twice), answer(again))
    assert (verdict.stored_twice, verdict.kept) == (1, False)


def test_why_deliveries_waited_for_another_try_is_counted(connection: psycopg.Connection[Any]) -> None:
    delivery = filed(connection)
    for number, (outcome, error_class) in enumerate([("failed", "timeout"), ("pending", ""), ("failed", "timeout")], 1):
        connection.execute(TRY, [delivery, number, outcome, error_class])
    connection.execute(TRY, [delivery, 4, "stored", ""])
    verdict = verified(connection, answer(delivery))
    assert (verdict.tried_again, verdict.kept) == ({"timeout": 2, "in words": 1}, True)


def test_a_post_that_was_told_anothers_delivery_is_confused(connection: psycopg.Connection[Any]) -> None:
    number = filed(connection)
    verdict = verified(connection, answer(number, key="one"), answer(number, key="other"))
    assert (verdict.confused, verdict.kept) == (1, False)


def test_a_delivery_that_nobody_was_told_of_counts_unless_an_answer_was_lost(
    connection: psycopg.Connection[Any],
) -> None:
    before = filed(connection)
    told, _ = filed(connection), filed(connection)
    assert verified(connection, answer(told), since=before).unasked == 1
    assert verified(connection, answer(told), answer(0, key="lost", status=0), since=before).unasked == 0


@pytest.mark.parametrize("state", ["received", "retrying", "stored", "dead", "unlinked"])
def test_a_delivery_that_did_not_get_through_is_unfinished(connection: psycopg.Connection[Any], state: str) -> None:
    verdict = verified(connection, answer(filed(connection, state=state)))
    assert (verdict.unfinished, verdict.kept) == (1, False)


def test_samples_of_a_batch_that_are_not_there_are_missing(connection: psycopg.Connection[Any]) -> None:
    number = filed(connection)
    sample(connection, number, "a")
    assert verified(connection, answer(number, samples=3)).samples_missing == 2


def test_a_sample_that_is_there_twice_is_doubled(connection: psycopg.Connection[Any]) -> None:
    number = filed(connection)
    sample(connection, number, "a")
    sample(connection, number, "a", minute=1)
    verdict = verified(connection, answer(number, samples=1))
    assert (verdict.samples_doubled, verdict.samples_missing, verdict.kept) == (1, 0, False)


def test_posts_that_were_refused_promise_nothing(connection: psycopg.Connection[Any]) -> None:
    verdict = verified(connection, answer(0, key="refused", status=503))
    assert (verdict.acknowledged, verdict.kept) == (0, True)
