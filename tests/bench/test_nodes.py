import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.nodes import CONFIGURATION, check_haproxy


def test_without_haproxy_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="apt-get install haproxy"):
        check_haproxy()


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
def test_haproxy_takes_the_configuration_that_operators_are_given(tmp_path: Path) -> None:
    command = ["haproxy", "-c", "-f", str(CONFIGURATION)]
    environment = os.environ | {"STATS": str(tmp_path / "stats")}
    checked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (checked.returncode, "warning" in checked.stderr.lower()) == (0, False), checked.stderr
