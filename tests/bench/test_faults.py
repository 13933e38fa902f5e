from collections.abc import Sequence
from dataclasses import replace

import pytest

from bench.breaking import Moments
from bench.faults import AWAY, FAULTS, Fault, Outcome, lines, missed, outcome_of
from bench.verifying import Answer, Verdict
from tests.bench.test_report import seen

GONE, BACK = 100.0, 100.0 + AWAY
MOMENTS = Moments(gone=GONE, back=BACK, noticed=GONE + 0.4, well=BACK + 0.6)
POSTGRESQL, REDIS, KAFKA, NODE = (
    next(each for each in FAULTS if each.name == name) for name in ("postgresql", "redis", "kafka", "node")
)


def answers(start: float, end: float, *, ms: float = 10, status: int = 202) -> list[Answer]:
    """Ten posts a second."""
    moments = (start + tenth / 10 for tenth in range(round(10 * (end - start))))
    return [Answer(at, "oura", status, ms, f"{at}", 0, 100, 1) for at in moments]


def outcome(fault: Fault, given: Sequence[Answer], moments: Moments = MOMENTS) -> Outcome:
    return outcome_of(fault, moments, given, seen("fault", 10))


def test_an_outage_that_was_refused_quickly_and_was_over_at_once_misses_nothing() -> None:
    refused = answers(GONE, BACK, ms=400, status=503)
    found = outcome(POSTGRESQL, answers(80, GONE) + refused + answers(BACK + 0.2, 120))
    assert found.refused == {"503": 10 * AWAY}
    assert (found.noticed, found.first_refusal, found.first_accepted, found.well) == pytest.approx(
        (0.4, 0.4, 0.21, 0.6), abs=0.001
    )
    assert missed(POSTGRESQL, found) == []


def test_an_answer_of_more_than_a_second_misses_the_target() -> None:
    slow = [replace_ms(each, 1_200) for each in answers(GONE, BACK, status=503)[:1]]
    found = outcome(POSTGRESQL, answers(80, GONE) + slow + answers(BACK, 120))
    assert missed(POSTGRESQL, found) == ["an answer took 1200 ms"]


def test_posts_that_are_refused_for_long_after_it_is_back_miss_the_target() -> None:
    found = outcome(POSTGRESQL, answers(80, GONE) + answers(GONE, BACK + 3, status=503) + answers(BACK + 3, 120))
    assert missed(POSTGRESQL, found) == ["back after more than 1 s"]


@pytest.mark.parametrize("fault", [REDIS, KAFKA])
def test_nothing_may_be_refused_while_redis_or_kafka_is_away(fault: Fault) -> None:
    one = answers(GONE, GONE + 0.1, status=503)
    found = outcome(fault, answers(80, GONE) + one + answers(GONE + 0.1, 120))
    assert missed(fault, found) == ["1 refused"]


def test_without_redis_answers_may_be_a_little_slower_and_no_more() -> None:
    def without(ms: float) -> Outcome:
        return outcome(REDIS, answers(80, GONE) + answers(GONE, BACK, ms=ms) + answers(BACK, 120))

    assert missed(REDIS, without(10.4)) == []
    assert missed(REDIS, without(11)) == ["10 % slower"]


def test_what_a_killed_node_had_in_its_hands_may_fail_and_nothing_two_seconds_later() -> None:
    in_its_hands = answers(GONE, GONE + 0.1, status=502)
    assert missed(NODE, outcome(NODE, answers(80, GONE) + in_its_hands + answers(GONE + 0.1, 160))) == []
    late = answers(GONE + 2.4, GONE + 2.5, status=502)
    found = outcome(NODE, answers(80, GONE + 2.4) + late + answers(GONE + 2.5, 160))
    assert missed(NODE, found) == ["posts failed for 2.4 s"]


@pytest.mark.parametrize("noticed", [0, GONE + 2.5])
def test_a_dead_node_that_stays_in_the_balancer_misses_the_target(noticed: float) -> None:
    found = outcome(NODE, answers(80, 160), Moments(gone=GONE, back=GONE + 40, noticed=noticed))
    assert missed(NODE, found) == ["in the balancer for more than 2 s"]


def test_leases_that_others_took_over_are_counted_from_the_kill() -> None:
    moments = replace(MOMENTS, taken_over={"shards": GONE + 4.2, "deliveries": GONE + 29.9})
    text = "\n".join(lines({}, [(NODE, outcome(NODE, answers(80, 160), moments))]))
    assert "| deliveries 29.9 s, shards 4.2 s |" in text


def test_a_broken_promise_is_missed_whatever_else_went_well() -> None:
    lost = replace(seen("fault", 10), verdict=Verdict(10, 1, 0, 0, 0, 0, 0, 0, {}))
    found = replace(outcome(KAFKA, answers(80, 120)), seen=lost)
    assert missed(KAFKA, found) == ["a promise was broken"]


def test_what_was_never_noticed_is_said_so_and_missed_targets_stand_at_the_top() -> None:
    found = outcome(KAFKA, answers(80, 120, status=503), Moments(gone=GONE))
    text = "\n".join(lines({}, [(KAFKA, found)]))
    assert text.index("**Missed: kafka: 400 refused.**") < text.index("| Away |")
    assert "| kafka | 503 after 12 s | 0 refused, 0 lost | never |" in text


def replace_ms(answer: Answer, ms: float) -> Answer:
    return Answer(answer.at, answer.vendor, answer.status, ms, answer.key, 0, 100)
