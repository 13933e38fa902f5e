import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import faults, report, table
from bench.goals import Goal, keep
from bench.readme import BEGIN, END, PICTURE, write
from bench.verifying import Verdict
from tests.bench.test_faults import BACK, GONE, MOMENTS, POSTGRESQL, answers
from tests.bench.test_report import seen

ABOUT = {"processor": "2 cores", "memory": "8 GiB", "commit": "abc123"}
PAGE = f"# The bridge\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A spike within its target, a stress beyond it, and PostgreSQL away, as the two commands write them."""
    folder = tmp_path / "results"
    report.write(folder, "2026-03-01-load", ABOUT, [seen("spike", 140, recovery=0.5), seen("stress", 200)])
    away = answers(80, GONE) + answers(GONE, BACK, ms=400, status=503) + answers(BACK + 0.2, 120)
    outcome = faults.outcome_of(POSTGRESQL, MOMENTS, away, seen("postgresql", 30))
    faults.write(folder, "2026-03-02-faults", ABOUT, [(POSTGRESQL, outcome)])
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(PAGE)
    return tmp_path


def row(root: Path, what: str) -> str:
    return next(line for line in (root / "README.md").read_text().splitlines() if line.startswith(f"| {what}"))


def test_the_table_shows_the_old_figure_the_target_ours_and_whether_it_is_met(results: Path, root: Path) -> None:
    write(results, root)
    assert row(root, "spike: answered, P99") == "| spike: answered, P99 | 3,421 ms | < 150 ms | 140 ms | met |"
    assert row(root, "stress: answered, P99") == "| stress: answered, P99 | 2,341 ms | < 100 ms | 200 ms | **missed** |"
    assert row(root, "PostgreSQL is away").endswith(
        "| 0 lost, 150 not accepted, slowest answer 400 ms, median 10.0 ms before and 400.0 ms meanwhile, "
        "noticed after 0.4 s | met |"
    )
    page = (root / "README.md").read_text()
    assert "5 of 6 targets met on one machine that carried everything, the load too (2 cores, 8 GiB)." in page
    assert "Load: 2026-03-01, commit abc123, faults: 2026-03-02, commit abc123." in page


def test_an_outage_that_only_we_were_put_through_has_a_row_where_it_missed_its_target(
    results: Path, root: Path
) -> None:
    hangs = next(each for each in faults.FAULTS if each.name == "node-hangs")
    broken = seen("node-hangs", 30, verdict=Verdict(100, 0, 0, 0, 0, 1, 0, 0, {"published": 99, "unlinked": 1}))
    outcome = faults.outcome_of(hangs, MOMENTS, answers(80, 160), broken)
    faults.write(results, "2026-03-04-faults", ABOUT, [(POSTGRESQL, outcome), (hangs, outcome)])
    write(results, root)
    assert row(root, "one of three nodes hangs").endswith("| **missed**: a promise was broken |")


def test_what_is_measured_by_itself_follows_the_load_test(results: Path, root: Path) -> None:
    ratio = Goal("ingest", "beside a bare ASGI reply", "", "x", 0.25, at_least=True)
    keep(results, "ingest", [ratio.row([0.2, 0.31, 0.27])])
    write(results, root)
    assert row(root, "ingest: beside") == "| ingest: beside a bare ASGI reply |  | ≥ 0.25 x | 0.27 x | met |"
    assert "6 of 7 targets met" in (root / "README.md").read_text()


def test_the_table_of_everything_says_what_was_missed_and_what_was_not_measured(results: Path) -> None:
    drawn = Goal("a patient's page", "a day drawn", "", "ms", 1_000)
    keep(results, "pages", [drawn.row([1_200, 1_150, 1_300])])
    text = table.write(results, "2026-03-03").read_text()
    assert "5 of 7 met. **Missed: stress: answered, P99; a patient's page: a day drawn.**" in text
    assert "| a patient's page: a day drawn |  | < 1,000 ms | 1,200 ms | 1,150 ms to 1,300 ms | **missed** |" in text
    assert "Not measured: batches, ingest, claims, calls, storing, settling, reading, searching." in text
    assert "| [load](2026-03-01-load.md) | `python -m bench.load` | 2026-03-01 | abc123 |" in text
    kept = json.loads((results / "2026-03-03.json").read_text())
    assert [(each["part"], each["met"]) for each in kept][-1] == ("pages", False)


def test_only_what_stands_between_the_markers_is_replaced_however_often(results: Path, root: Path) -> None:
    write(results, root)
    once = (root / "README.md").read_text()
    write(results, root)
    assert (root / "README.md").read_text() == once
    assert once.startswith(f"# The bridge\n\nBefore.\n\n{BEGIN}\n")
    assert once.endswith(f"{END}\n\nAfter.\n")
    assert "old" not in once


def test_the_picture_has_the_spike_and_the_outage_one_above_the_other(results: Path, root: Path) -> None:
    write(results, root)
    drawn = ElementTree.fromstring((root / PICTURE).read_text())
    words = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    titles = ["Answers through a spike", "Answers while PostgreSQL is away"]
    assert [word for word in words if word in titles] == titles
    assert drawn.attrib["viewBox"] == "0 0 900 600"


def test_the_newest_results_count(results: Path, root: Path) -> None:
    report.write(results, "2026-02-27-load", ABOUT, [seen("spike", 3_000, recovery=9)])
    shutil.copy(results / "2026-03-01-load.json", results / "notes-load.json")
    write(results, root)
    assert row(root, "spike: answered, P99").endswith("| 140 ms | met |")


def test_a_readme_without_markers_is_left_alone_and_that_is_said(results: Path, root: Path) -> None:
    (root / "README.md").write_text("# The bridge\n")
    with pytest.raises(SystemExit, match=f"lacks the lines {BEGIN} and {END}"):
        write(results, root)
    assert (root / "README.md").read_text() == "# The bridge\n"
    assert not (root / PICTURE).exists()


def test_results_that_are_missing_are_named_with_the_command_that_makes_them(results: Path, root: Path) -> None:
    (results / "2026-03-02-faults.json").unlink()
    with pytest.raises(SystemExit, match="run `make bench-faults` first"):
        write(results, root)
    assert (root / "README.md").read_text() == PAGE


def test_a_run_without_a_spike_has_no_picture_and_says_what_to_run(results: Path, root: Path) -> None:
    report.write(results, "2026-03-03-load", ABOUT, [seen("stress", 90)])
    with pytest.raises(SystemExit, match="needs a spike"):
        write(results, root)
    assert (root / "README.md").read_text() == PAGE
