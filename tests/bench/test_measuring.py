import re
from pathlib import Path

import pytest

from bench.measuring import Phase, changes, deadlocks_told, machine, percentile, recovery, slow, spread, total
from bench.verifying import Answer
from bench.watching import Look

SPIKE = Phase("spike", ((50, 10), (300, 10), (50, 10)))


def answered(at: float, ms: float) -> Answer:
    return Answer(at, "oura", 202, ms, f"{at}", 0, 100, 1)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_a_value_that_occurred(share: float, value: float) -> None:
    assert percentile(list(range(1, 101)), share) == value


def test_of_one_value_every_percentile_is_that_value() -> None:
    assert spread([7.0]) == {"count": 1, "mean": 7, "p50": 7, "p95": 7, "p99": 7, "max": 7}


def test_a_metric_is_added_up_over_the_labels_that_are_not_named() -> None:
    page = {
        "calls_total{outcome=ok,vendor=oura}": 3.0,
        "calls_total{outcome=error,vendor=oura}": 2.0,
        "calls_totals{}": 9,
    }
    assert (total(page, "calls_total"), total(page, "calls_total{outcome=ok")) == (5, 3)


def test_what_was_not_there_before_counts_from_nought() -> None:
    assert changes({"a{}": 1.0, "b{}": 2.0}, {"a{}": 4.0, "b{}": 2.0, "c{}": 5.0}) == {"a{}": 3, "c{}": 5}


def test_a_spike_is_over_when_answers_are_as_fast_as_before_it() -> None:
    times = [tenth / 10 for tenth in range(300)]
    slow = [answered(at, 400 if 10 <= at < 23 else 5) for at in times]
    assert recovery(slow, SPIKE, 0.0) == pytest.approx(3, abs=0.2)


def test_a_spike_that_left_no_trace_is_over_at_once() -> None:
    assert recovery([answered(tenth / 10, 5) for tenth in range(300)], SPIKE, 0.0) == 0


def test_a_spike_that_is_not_over_at_the_end_lasts_to_the_end() -> None:
    never = [answered(tenth / 10, 5 if tenth < 100 else 400) for tenth in range(300)]
    assert recovery(never, SPIKE, 0.0) == 10


def test_a_phase_without_a_spike_has_no_recovery() -> None:
    assert recovery([answered(0, 5)], Phase("baseline", ((50, 10),)), 0.0) is None


def test_a_deadlock_is_told_as_postgresql_logs_it(tmp_path: Path) -> None:
    log = tmp_path / "postgresql.log"
    assert deadlocks_told(log) == ""
    log.write_text("LOG:  ready\nERROR:  deadlock detected\nDETAIL:  Process 1 waits\n\tProcess 1: UPDATE a\n")
    assert deadlocks_told(log) == "ERROR:  deadlock detected\nDETAIL:  Process 1 waits\n\tProcess 1: UPDATE a"


def test_a_slow_second_is_told_with_the_most_that_the_host_did_meanwhile() -> None:
    line = [[0, 90, 3, 9], [1, 90, 3, 1_021], [2, 90, 3, 9]]
    waits = [4.0, 20.0, 950.0, 7.0]  # each look tells of the second that ends with it
    looks = [Look(100 + second, host={"waited": wait}) for second, wait in enumerate(waits)]
    assert slow(line, looks, 100.0) == [{"second": 1, "p99": 1_021, "waited": 950}]


@pytest.mark.parametrize("what", ["additions", "system calls"])
def test_a_machine_is_told_with_how_quick_it_is_at_this_moment(what: str) -> None:
    told = re.fullmatch(r"(\d+) ms \((\d+) to (\d+)\)", machine()[f"a million {what}"])
    assert told
    middle, low, high = map(int, told.groups())
    assert 1 <= low <= middle <= high
