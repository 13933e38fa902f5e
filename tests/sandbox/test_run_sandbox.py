import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from auren.embedded.server import free_port
from auren.sandbox.remote import RemoteSandbox
from tests.sandbox.receiver import Receiver

ROOT = Path(__file__).parents[2]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def process(port: int, bridge: Receiver, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    options = f"--port {port} --bridge {bridge.url} --people 2 --days 2 --trickle 0.05 --latency 0/0".split()
    arguments = [sys.executable, "manage.py", "run_sandbox", "--state", str(tmp_path / "with a space"), *options]
    with subprocess.Popen(arguments, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True) as running:
        yield running
        running.kill()


def test_the_command_lives_on_its_own_and_stops_when_told(
    process: "subprocess.Popen[str]", port: int, bridge: Receiver
) -> None:
    assert process.stdout is not None
    assert "addresses" in process.stdout.readline()
    assert bridge.wait_for({"/webhooks/healthkit"})
    with RemoteSandbox(f"http://127.0.0.1:{port}") as sandbox:
        sandbox.grant("oura", "user_1")
        sandbox.grant("whoop", "user_2")
        assert bridge.wait_for({"/webhooks/oura", "/webhooks/whoop"})
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    told = {(each.path, json.loads(each.body)["user_id"]) for each in bridge.received if "healthkit" not in each.path}
    assert told == {("/webhooks/oura", "user_1"), ("/webhooks/whoop", "user_2")}


def test_a_port_in_use_is_one_clear_line(bridge: Receiver) -> None:
    with pytest.raises(CommandError, match="cannot be listened on"):
        call_command("run_sandbox", port=int(bridge.url.rpartition(":")[2]))


@pytest.mark.parametrize("options", [("--latency", "slow"), ("--oura-rate-limit", "many")])
def test_an_option_that_makes_no_sense_is_refused(options: tuple[str, str]) -> None:
    with pytest.raises(CommandError):
        call_command("run_sandbox", *options)
