import json
from pathlib import Path

import pytest

from bench.ratios import FILE, KINDS, Ratios, judge, kind_of, record

EXPECTED = {"ingest: a": 0.3, "claims: b": 12.0, "claims: c": 3.0}


def nothing_more(kinds: list[str]) -> Ratios:
    raise AssertionError(f"{kinds} were measured once more")


def judged(seen: Ratios, second: Ratios) -> str:
    """What is said of it on the way out with 1."""
    with pytest.raises(SystemExit) as left:
        judge(EXPECTED, seen, lambda _: second)
    assert isinstance(left.value.code, str), "a text is printed, and the exit code is 1"
    return left.value.code


def test_ratios_that_lost_less_than_a_third_pass_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    judge(EXPECTED, {"ingest: a": 0.21, "claims: b": 8.1, "claims: c": 3.4}, nothing_more)
    assert "claims: b" in capsys.readouterr().out


def test_a_ratio_that_has_fallen_by_more_than_a_third_fails_and_is_named() -> None:
    said = judged(EXPECTED | {"claims: b": 7.9}, {"claims: b": 7.5, "claims: c": 3.0})
    assert "claims: b: 7.90, and 12.00 are expected. Twice it lost more than a third, which would be 8.00." in said
    assert "--record" in said
    assert "claims: c" not in said


def test_only_kinds_with_a_fallen_ratio_are_measured_once_more_each_once() -> None:
    asked = []

    def again(kinds: list[str]) -> Ratios:
        asked.append(kinds)
        return {"claims: b": 12.0, "claims: c": 3.0}

    judge(EXPECTED, EXPECTED | {"claims: b": 1.0, "claims: c": 1.0}, again)
    assert asked == [["claims"]]


def test_a_ratio_that_was_well_the_second_time_passes(capsys: pytest.CaptureFixture[str]) -> None:
    judge(EXPECTED, EXPECTED | {"ingest: a": 0.1}, lambda _: {"ingest: a": 0.28})
    assert "0.28" in capsys.readouterr().out


def test_a_second_measurement_does_not_make_worse_what_was_well() -> None:
    said = judged(EXPECTED | {"claims: b": 1.0}, {"claims: b": 2.0, "claims: c": 0.1})
    assert "claims: b: 2.00" in said
    assert "claims: c" not in said


def test_a_ratio_that_nothing_measured_fails() -> None:
    assert "claims: c: expected, and nothing measured it." in judged({"ingest: a": 0.3, "claims: b": 12}, {})


def test_a_ratio_of_which_nothing_is_expected_fails() -> None:
    assert "store: d: ratios.json does not say what to expect." in judged(EXPECTED | {"store: d": 9.0}, {})


def test_a_ratio_far_above_what_is_expected_passes_and_asks_to_be_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    judge(EXPECTED, EXPECTED | {"claims: b": 19.0}, nothing_more)
    assert "19.00  has risen: record it" in capsys.readouterr().out


def test_recording_one_kind_leaves_what_is_expected_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "ratios.json"
    path.write_text(json.dumps(EXPECTED))
    record(path, ["claims"], {"claims: b": 13.246})
    assert json.loads(path.read_text()) == {"ingest: a": 0.3, "claims: b": 13.25}


def test_every_kind_that_is_measured_has_a_ratio_to_keep() -> None:
    assert {kind_of(name) for name in json.loads(FILE.read_text())} == set(KINDS)
