import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import psycopg

from auren.embedded.server import BASE_DIR, free_port
from tests.embedded.conftest import Running, Watched
from tests.webhooks.living import until

LAST_LINE = "Ctrl-C stops everything."


def up(var: Path, port: int) -> Running:
    few = ("--people", "1", "--days", "1", "--trickle", "0")
    return Running(str(BASE_DIR / "manage.py"), "up", *few, AUREN_VAR=str(var), PORT=str(port))


def run_json(var: Path) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((var / "run.json").read_text())
    return written


def everybody(run: dict[str, Any]) -> Watched:
    return Watched(pid for pids in run["pids"].values() for pid in pids)


def people(run: dict[str, Any]) -> list[str]:
    with psycopg.connect(run["database_url"]) as connection:
        return [name for (name,) in connection.execute("SELECT external_id FROM devices_patient")]


def kafka_comes_back_where_it_was(running: Running, var: Path) -> None:
    """So nobody has to be started again: web would refuse webhooks meanwhile."""
    before = run_json(var)
    os.kill(before["pids"]["kafka"][0], signal.SIGKILL)
    running.until("kafka was ended by SIGKILL: starting it again in 0.5 s.")
    until(lambda: run_json(var)["pids"].get("kafka", []) not in ([], before["pids"]["kafka"]))
    after = run_json(var)
    assert after | {"pids": {}} == before | {"pids": {}}
    assert after["pids"] | {"kafka": []} == before["pids"] | {"kafka": []}
    until(lambda: httpx.get(f"{after['http']}/health/ready").json()["kafka"] == "ok")


def test_a_port_in_use_is_one_clear_line_and_nothing_is_started(var: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with up(var, port) as second:
            assert second.end() == 1
    assert second.said == (
        f"Port {port} is in use: python (process {os.getpid()}) listens there; "
        f"choose another with PORT={port + 1} make run\n"
    )
    assert not (var / "postgres").exists()


def test_a_setting_that_cannot_be_read_is_one_clear_line(var: Path) -> None:
    with up(var, 0) as refused:
        assert refused.end() == 1
    assert refused.said.splitlines()[-1].endswith("PORT is 0: it must be 1 or more.")


def test_up_runs_everything_survives_a_sigkill_keeps_its_data_and_stops_cleanly(var: Path) -> None:
    port = free_port()
    with up(var, port) as first:
        said = first.until(LAST_LINE)
        run = run_json(var)
        assert set(run) == {
            *("http", "database_url", "redis_url", "kafka", "embedded", "logins"),
            *("oura_client_secret", "whoop_client_secret", "pids"),
        }
        assert (var / "run.json").stat().st_mode & 0o777 == 0o600
        assert set(run["pids"]) == {
            *("postgresql", "valkey", "kafka", "sandbox", "web", "worker", "publisher", "scheduler", "exports")
        }
        assert run["embedded"] == ["postgresql", "valkey", "kafka"]
        assert run["http"] == f"http://127.0.0.1:{port}"
        assert run["logins"]["clinician"] in said
        assert run["kafka"] in said
        assert "a stand-in" in said
        assert httpx.get(f"{run['http']}/health/live").status_code == 200
        assert people(run) == ["user_1"]
        kafka_comes_back_where_it_was(first, var)
        left = everybody(run_json(var))
        first.process.kill()
        assert left.all_end()

    with up(var, port) as second:
        second.until(LAST_LINE)
        again = run_json(var)
        assert (again["logins"], again["embedded"]) == (run["logins"], run["embedded"])
        assert people(again) == ["user_1"]
        left = everybody(again)
        second.process.send_signal(signal.SIGTERM)
        assert second.end() == 0
        assert second.said.endswith("Stopped.\n")
        assert left.all_end()
    assert not (var / "run.json").exists()
    assert not (var / "up.env").exists()
