import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from bench.measuring import Seen
from bench.report import write
from bench.verifying import Verdict
from bench.watching import Figures

KEPT = Verdict(1_000, 0, 0, 0, 0, 0, 0, 0, {"published": 990, "ignored": 10})


def times(p99: float) -> Figures:
    return {"count": 100, "mean": p99 / 3, "p50": p99 / 4, "p95": p99 / 2, "p99": p99, "max": p99}


def seen(phase: str, p99: float, **changed: object) -> Seen:
    answered = {name: times(p99) for name in ("all", "oura", "whoop", "healthkit")}
    process = {"worker": {"mean": 50.0, "peak": 90.0}}
    every = Seen(
        phase=phase,
        steps=((50, 10), (300, 10), (50, 10)),
        load_average=0.5,
        seconds=60,
        rate=40,
        failed=0,
        statuses={"202": 2_400},
        problems={},
        duplicates=70,
        answered=answered,
        stored={"oura": times(200)},
        published={"oura": times(50)},
        batch={"mean": 125, "p95": 190},
        counts={},
        left=3,
        drained=0.5,
        verdict=KEPT,
        cpu=process,
        memory=process,
        growth={"worker": 0.4},
        connections={"Redis": {"mean": 8, "peak": 9}},
        machine={"mean": 40, "peak": 70},
        loopback=12,
        received=3e6,
        redis_memory=4,
        recovery=None,
        line=[[0, 40, 3, 9], [1, 40, 4, p99]],
    )
    return replace(every, **changed)  # type: ignore[arg-type]


def page(folder: Path, *rounds: Seen) -> str:
    return write(folder, "2026-03-01-load", {"processor": "two"}, rounds).read_text()


def row(text: str, what: str) -> str:
    return next(line for line in text.splitlines() if what in line)


def test_a_target_that_was_missed_is_said_at_the_top_and_in_its_row(tmp_path: Path) -> None:
    text = page(tmp_path, seen("stress", 140))
    assert "1 of 2 met. **Missed: stress: answered, P99.**" in text.split("|", 1)[0]
    assert row(text, "| stress | answered, P99") == (
        "| stress | answered, P99 | 2,341 ms | < 100 ms | 140 | one round | **missed** |"
    )


def test_the_median_of_the_rounds_decides_and_their_spread_is_shown(tmp_path: Path) -> None:
    text = page(tmp_path, seen("stress", 60), seen("stress", 400), seen("stress", 80))
    assert row(text, "| stress | answered, P99").endswith("| 80 | 60, 400 | met |")


def test_a_single_refusal_in_one_round_of_three_misses_the_target_of_none(tmp_path: Path) -> None:
    refused = seen("baseline", 10, failed=1, statuses={"202": 2_399, "503": 1})
    text = page(tmp_path, seen("baseline", 10), refused, seen("baseline", 10))
    assert row(text, "| baseline | failed").endswith("| **missed** |")


def test_a_broken_promise_is_said_at_the_top(tmp_path: Path) -> None:
    broken = seen("spike", 50, recovery=0.5, verdict=Verdict(1_000, 1, 0, 0, 0, 0, 0, 0, {"published": 999}))
    text = page(tmp_path, broken)
    assert "**Promises broken in spike**" in text.split("|", 1)[0]
    assert row(text, "| spike | lost").endswith("| **missed** |")


def test_promises_that_were_kept_are_counted(tmp_path: Path) -> None:
    assert "All 2,000 deliveries that were acknowledged" in page(tmp_path, seen("stress", 9), seen("stress", 9))


def test_phases_that_were_not_run_have_no_row(tmp_path: Path) -> None:
    assert "| soak |" not in page(tmp_path, seen("stress", 9))


def test_programs_find_the_same_as_json(tmp_path: Path) -> None:
    page(tmp_path, seen("stress", 140))
    kept = json.loads((tmp_path / "2026-03-01-load.json").read_text())
    assert [(target["what"], target["met"]) for target in kept["targets"]] == [
        ("answered, P99", False),
        ("failed", True),
    ]
    assert kept["rounds"][0]["verdict"]["kept"] is True


def test_a_spike_is_drawn_with_its_peak_behind_it(tmp_path: Path) -> None:
    text = page(tmp_path, seen("spike", 140, recovery=0.5))
    drawn = ElementTree.fromstring((tmp_path / "2026-03-01-load-spike.svg").read_text())
    words = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"50 users, then 300", "median", "P99", "1 ms", "1,000 ms"} <= set(words)
    assert "](2026-03-01-load-spike.svg)" in text


def test_slow_seconds_are_listed_in_their_order_beside_what_the_host_did(tmp_path: Path) -> None:
    slow = [
        {"second": 187.0, "p99": 1_021.0, "stolen": 60.0, "waited": 950.0, "written": 140.0, "checkpointed": 12.0},
        {"second": 544.0, "p99": 1_400.0},  # of a kernel, and a PostgreSQL, that do not tell
    ]
    text = page(tmp_path, seen("soak", 30, slow=slow))
    assert "In 2 seconds the P99 was above 200 ms" in text
    assert row(text, "| 187 |") == "| 187 | 1021 | 60 | 950 | 140 | 12 |"
    assert text.index("| 187 |") < text.index("| 544 | 1400 |  |  |  |  |")


def test_a_phase_without_a_slow_second_has_no_list_of_them(tmp_path: Path) -> None:
    assert "Waited for a disk" not in page(tmp_path, seen("soak", 30))
