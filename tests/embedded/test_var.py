import json
import os
from pathlib import Path

import pytest

from auren.embedded.server import StartError
from auren.embedded.var import Var, without_up


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_secrets_are_made_once_and_kept_for_the_owner_only(var: Path) -> None:
    first = Var(var).keep_secrets()
    assert Var(var).keep_secrets() == first
    assert mode(var / "secrets.json") == 0o600
    assert len(first["SECRET_KEY"]) >= 48


def test_a_secret_that_is_missing_is_made_and_the_others_stay(var: Path) -> None:
    kept = Var(var).keep_secrets()
    lacking = {name: value for name, value in kept.items() if name != "OURA_VERIFICATION_TOKEN"}
    (var / "secrets.json").write_text(json.dumps(lacking))
    again = Var(var).keep_secrets()
    assert lacking.items() <= again.items()
    assert again["OURA_VERIFICATION_TOKEN"]


def test_what_a_run_tells_is_for_the_owner_only_and_forgotten_at_its_end(var: Path) -> None:
    told = Var(var)
    told.write_run({"http": "http://127.0.0.1:8000"})
    told.write_environment({"B": "2", "A": "1"})
    assert (mode(told.run_file), mode(told.environment_file)) == (0o600, 0o600)
    assert told.environment_file.read_text() == "A=1\nB=2\n"
    told.forget_run()
    assert not told.run_file.exists()
    assert not told.environment_file.exists()


def test_a_folder_is_claimed_once_and_free_again_afterwards(var: Path) -> None:
    with Var(var).claim(), pytest.raises(StartError, match=f"Already running in .* as process {os.getpid()}"):
        Var(var).claim().__enter__()
    with Var(var).claim():
        assert (var / "lock").read_text() == f"{os.getpid()}\n"


def test_metrics_of_an_earlier_run_are_thrown_away(var: Path) -> None:
    (var / "metrics").mkdir()
    (var / "metrics" / "counter_1.db").write_text("old")
    Var(var).empty_metrics()
    assert list((var / "metrics").iterdir()) == []


def test_addresses_of_a_killed_run_leave_the_environment_but_what_was_given_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://left")
    monkeypatch.setenv("REDIS_URL", "redis://given")
    left = without_up({"REDIS_URL": "redis://given"}, "DATABASE_URL=postgresql://left\nREDIS_URL=redis://left\n")
    assert "DATABASE_URL" not in left
    assert left["REDIS_URL"] == "redis://given"


def test_pids_of_a_killed_run_are_ended_only_in_its_folder(var: Path) -> None:
    Var(var).write_run({"pids": {"web": [os.getpid()]}})
    Var(var).end_leftovers()
