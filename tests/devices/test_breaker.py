import pytest
from prometheus_client import REGISTRY

from devices.breaker import Breaker, State
from devices.vendors.client import Postponed


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def breaker(time: Time) -> Breaker:
    return Breaker("oura", time)


def state_of(breaker: Breaker) -> State:
    return breaker.state


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        with breaker.admitted():
            breaker.failed()


def answer(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        with breaker.admitted():
            breaker.answered()


def refusal(breaker: Breaker) -> Postponed:
    with pytest.raises(Postponed) as refused, breaker.admitted():
        pass
    return refused.value


def test_nine_failures_leave_it_closed_and_the_tenth_opens_it(breaker: Breaker) -> None:
    fail(breaker, 9)
    assert state_of(breaker) is State.CLOSED
    fail(breaker, 1)
    assert state_of(breaker) is State.OPEN


def test_only_the_last_twenty_calls_count(breaker: Breaker) -> None:
    fail(breaker, 9)
    answer(breaker, 19)
    fail(breaker, 1)
    assert state_of(breaker) is State.CLOSED


def test_failures_of_more_than_thirty_seconds_ago_do_not_count(breaker: Breaker, time: Time) -> None:
    fail(breaker, 9)
    time.now += 30
    fail(breaker, 9)
    assert state_of(breaker) is State.CLOSED


def test_half_of_the_calls_failing_is_enough(breaker: Breaker) -> None:
    for _ in range(9):
        answer(breaker)
        fail(breaker, 1)
    fail(breaker, 1)
    assert state_of(breaker) is State.OPEN


def test_an_open_one_says_how_long_it_stays_open(breaker: Breaker, time: Time) -> None:
    fail(breaker, 10)
    time.now += 5
    assert refusal(breaker).seconds == pytest.approx(10)


def test_after_fifteen_seconds_one_call_is_let_through_and_others_wait(breaker: Breaker, time: Time) -> None:
    fail(breaker, 10)
    time.now += 15
    with breaker.admitted():
        assert state_of(breaker) is State.HALF_OPEN
        assert refusal(breaker).seconds == pytest.approx(1)


def test_an_answer_to_the_one_call_closes_it_and_forgets_the_failures(breaker: Breaker, time: Time) -> None:
    fail(breaker, 10)
    time.now += 15
    answer(breaker)
    fail(breaker, 9)
    assert state_of(breaker) is State.CLOSED


def test_a_failure_of_the_one_call_opens_it_for_another_fifteen_seconds(breaker: Breaker, time: Time) -> None:
    fail(breaker, 10)
    time.now += 15
    fail(breaker, 1)
    assert state_of(breaker) is State.OPEN
    assert refusal(breaker).seconds == pytest.approx(15)


def test_a_call_that_ended_without_a_verdict_lets_the_next_one_try(breaker: Breaker, time: Time) -> None:
    fail(breaker, 10)
    time.now += 15
    with pytest.raises(KeyboardInterrupt), breaker.admitted():
        raise KeyboardInterrupt
    assert state_of(breaker) is State.HALF_OPEN
    answer(breaker)
    assert state_of(breaker) is State.CLOSED


def test_a_late_answer_to_a_call_from_before_does_not_close_it(breaker: Breaker) -> None:
    with breaker.admitted():
        fail(breaker, 10)
        breaker.answered()
    assert state_of(breaker) is State.OPEN


def test_the_gauge_shows_the_state(breaker: Breaker, time: Time) -> None:
    def shown() -> float | None:
        return REGISTRY.get_sample_value("auren_vendor_breaker", {"vendor": "oura"})

    assert shown() == 0
    fail(breaker, 10)
    assert shown() == 2
    time.now += 15
    with breaker.admitted():
        assert shown() == 1
