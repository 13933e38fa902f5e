"""Three nodes behind HAProxy, as docs/nodes.md has them: the one of a running bridge, and two more on its servers."""

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]

from auren.embedded import leash
from auren.embedded.server import BASE_DIR, free_port
from bench.bridge import START_SECONDS, STOP_SECONDS, WEB, Bridge, wait_for

CONFIGURATION = BASE_DIR / "deploy" / "haproxy.cfg"
PROCESSES = (
    ("-m", *WEB),
    *(("manage.py", command) for command in ("process_deliveries", "publish_deliveries", "run_schedule")),
)


class Node:
    """Web, worker, publisher and scheduler of one machine, each in a session of its own. `settings` name the servers
    that all nodes share."""

    def __init__(self, name: str, folder: Path, settings: Mapping[str, str]) -> None:
        self.name = name
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.log = folder / f"{name}.log"
        var = folder / name
        for each in (var / "static", var / "metrics"):
            each.mkdir(parents=True)
        own = {"AUREN_VAR": str(var), "PROMETHEUS_MULTIPROC_DIR": str(var / "metrics"), "PORT": str(port)}
        self.environment = os.environ | settings | own | {"AUREN_ENV_FILE": os.devnull}
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """To end with us, however we end."""
        start = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), str(int(signal.SIGTERM)), "-"]
        with self.log.open("ab") as log:
            self.processes = [
                subprocess.Popen(  # noqa: S603 - our own commands
                    [*start, sys.executable, *arguments],
                    cwd=BASE_DIR,
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                for arguments in PROCESSES
            ]

    def send(self, number: signal.Signals) -> None:
        """To every process at once, gunicorn's workers too."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        for process in self.processes:
            process.wait()

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(STOP_SECONDS)

    @property
    def has_ended(self) -> bool:
        return any(process.poll() is not None for process in self.processes)

    def is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"http://{self.address}/health/ready", timeout=1, trust_env=False).status_code == 200
        return False

    @property
    def pids(self) -> list[int]:
        found = [process.pid for process in self.processes if process.poll() is None]
        for pid in tuple(found):
            with suppress(psutil.Error):
                found += [child.pid for child in psutil.Process(pid).children(recursive=True)]
        return found


class Balancer:
    """HAProxy with the configuration that we tell people to use."""

    def __init__(self, folder: Path, addresses: Sequence[str]) -> None:
        port = free_port()
        self.http = f"http://127.0.0.1:{port}"
        self.stats = folder / "stats"
        self.log = folder / "haproxy.log"
        nodes = {f"NODE_{number}": address for number, address in enumerate(addresses, start=1)}
        self.environment = os.environ | nodes | {"LISTEN": f"127.0.0.1:{port}", "STATS": str(self.stats)}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(shutil.which("haproxy")), "-db", "-f", str(CONFIGURATION)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)  # noqa: S603

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(STOP_SECONDS)

    @property
    def has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def says(self, node: str) -> str:
        """UP or DOWN of a node; with how many checks it has passed or failed while it is on its way: `UP 1/2`."""
        return next((row["status"] for row in self._servers() if row["svname"] == node), "")

    def all_up(self) -> bool:
        told = [row["status"] for row in self._servers() if row["svname"].startswith("node-")]
        return bool(told) and set(told) == {"UP"}

    def _servers(self) -> Iterator[dict[str, str]]:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(self.stats))
            asking.sendall(b"show stat\n")
            with asking.makefile(encoding="utf-8") as told:
                yield from csv.DictReader(told.read().lstrip("# ").splitlines())


@dataclass(frozen=True)
class Cluster(Bridge):
    """A bridge whose posts go to a balancer. `others` are its second node and its third."""

    others: tuple[Node, ...]
    balancer: Balancer

    @property
    def run(self) -> dict[str, Any]:
        found = super().run
        pids = {node.name: node.pids for node in self.others}
        if self.balancer.process:
            pids["balancer"] = [self.balancer.process.pid]
        return found | {"http": self.balancer.http, "pids": found["pids"] | pids}

    @property
    def is_whole(self) -> bool:
        return all(node.is_ready() for node in self.others) and self.balancer.all_up()

    @property
    def parts(self) -> list[Node | Balancer]:
        """Those that were started here."""
        return [self.balancer, *self.others]

    @property
    def has_ended(self) -> bool:
        return any(part.has_ended for part in self.parts)

    @property
    def webs(self) -> list[str]:
        return [super().run["http"], *(f"http://{node.address}" for node in self.others)]


def check_haproxy() -> None:
    if not shutil.which("haproxy"):
        raise SystemExit("No haproxy, which the faults of nodes need: apt-get install haproxy, or choose with --only.")


@contextmanager
def three_nodes(loaded: Bridge) -> Iterator[Cluster]:
    """`loaded` and two nodes more, once the balancer has all three."""
    with tempfile.TemporaryDirectory(prefix="auren-nodes-") as name, ExitStack() as after:
        folder = Path(name)
        others = tuple(Node(f"node-{number}", folder, loaded.settings) for number in (2, 3))
        balancer = Balancer(folder, [loaded.run["http"].removeprefix("http://"), *(node.address for node in others)])
        for node in others:
            after.callback(node.kill)
            after.callback(node.stop)
            node.start()
        after.callback(balancer.stop)
        balancer.start()
        cluster = Cluster(loaded.var, loaded.settings, others, balancer)
        wait_for(lambda: cluster.is_whole or cluster.has_ended, START_SECONDS)
        if cluster.has_ended:
            said = [part.log.read_text()[-1000:] for part in cluster.parts]
            raise SystemExit("A node or the balancer has ended:\n" + "\n".join(said))
        yield cluster
