"""What the bridge takes under load: processor, memory, connections, disk, bytes; looked at once a second."""

import re
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]
import psycopg
import redis

from bench.bridge import Bridge

ESTABLISHED = "01"  # in /proc/net/tcp
MIB = 1024 * 1024
PRESSURE = Path("/proc/pressure/io")  # not on every kernel
FULL = re.compile(r"^full .*total=(\d+)$", re.MULTILINE)
CHECKPOINTS = "SELECT num_done, buffers_written FROM pg_stat_checkpointer"
PAGE = 8192  # bytes
SESSIONS = "SELECT coalesce(nullif(application_name, ''), 'django'), count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() GROUP BY 1"  # noqa: E501

Figures = dict[str, float]


@dataclass
class Look:
    """One second. Processor time is in percent of one core, memory in MiB: without what is shared, for PostgreSQL."""

    at: float
    cpu: Figures = field(default_factory=dict)
    memory: Figures = field(default_factory=dict)
    connections: Figures = field(default_factory=dict)
    machine: float = 0.0
    loopback: float = 0.0  # bytes since the last one
    host: Figures = field(default_factory=dict)  # since the last one: see `Host`


class Host:
    """What this machine's disks did, and what its host kept from it: what each figure has grown by since the last look.

    stolen         ms of all its cores that the host gave to others (`steal` in proc_stat(5))
    written        MiB, by anybody
    waited         ms in which whatever had work to do waited for a disk (https://docs.kernel.org/accounting/psi.html)
    checkpoints    how many PostgreSQL has ended
    checkpointed   MiB that its checkpoints wrote
    """

    def __init__(self) -> None:
        self._before: Figures = {}

    def used(self) -> Figures:
        found = {"stolen": 1000 * getattr(psutil.cpu_times(), "steal", 0.0)}
        if counters := psutil.disk_io_counters():
            found["written"] = counters.write_bytes / MIB
        with suppress(OSError):
            if full := FULL.search(PRESSURE.read_text()):
                found["waited"] = int(full[1]) / 1000
        return self._since(found)

    def checkpoints(self, database: psycopg.Connection[Any]) -> Figures:
        """Nothing before PostgreSQL 18."""
        if database.info.server_version < 180_000:
            return {}
        row = database.execute(CHECKPOINTS).fetchone()
        return self._since({"checkpoints": row[0], "checkpointed": row[1] * PAGE / MIB}) if row else {}

    def _since(self, found: Figures) -> Figures:
        changes = {name: value - self._before.get(name, value) for name, value in found.items()}
        self._before |= found
        return changes


class Watch:
    """`others` are processes beside the bridge's own, by name: the load generator."""

    def __init__(self, bridge: Bridge, others: Mapping[str, int] | None = None) -> None:
        self.bridge = bridge
        self.others = dict(others or {})
        self.looks: list[Look] = []
        self._spent: dict[int, float] = {}
        self._received = 0.0
        self._host = Host()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._look(psutil.cpu_percent())
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1):
            look = self._look(psutil.cpu_percent())
            with suppress(psycopg.Error, redis.RedisError, OSError), self._connect() as database:  # away on purpose
                look.connections = self._connections(database)
                look.host |= self._host.checkpoints(database)
            self.looks.append(look)

    def _look(self, machine: float) -> Look:
        look = Look(time.time(), machine=machine)
        cpu: Figures = defaultdict(float)
        memory: Figures = defaultdict(float)
        for name, process in self._processes():
            with suppress(psutil.Error):
                cpu[name] += self._spent_since(process)
                used = process.memory_info()
                memory[name] += (used.rss - (used.shared if name == "postgresql" else 0)) / MIB
        look.cpu, look.memory = dict(cpu), dict(memory)
        received = float(psutil.net_io_counters(pernic=True)["lo"].bytes_recv)
        look.loopback, self._received = received - self._received, received
        look.host = self._host.used()
        return look

    def _processes(self) -> list[tuple[str, Any]]:
        """Web's master and its workers apart, PostgreSQL's and Locust's children with them."""
        found: list[tuple[str, Any]] = []
        named = self.bridge.run["pids"] | {name: [pid] for name, pid in self.others.items()}
        for name, pids in named.items():
            for place, pid in enumerate(pids):
                with suppress(psutil.Error):
                    process = psutil.Process(pid)
                    label = "web's master" if name == "web" and place == 0 else name
                    found.append((label, process))
                    if name == "postgresql" or name in self.others:
                        found += [(label, child) for child in process.children(recursive=True)]
        return found

    def _spent_since(self, process: Any) -> float:
        """Percent of one core since the last look, a second ago."""
        times = process.cpu_times()
        spent = times.user + times.system
        before = self._spent.get(process.pid, spent)
        self._spent[process.pid] = spent
        return float(100 * (spent - before))

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.bridge.run["database_url"], autocommit=True, connect_timeout=1)

    def _connections(self, database: psycopg.Connection[Any]) -> Figures:
        found = {f"PostgreSQL, {name.removeprefix('auren ')}": float(n) for name, n in database.execute(SESSIONS)}
        found["PostgreSQL"] = sum(found.values())
        with redis.Redis.from_url(self.bridge.run["redis_url"], socket_timeout=1) as cache:
            found["Redis"] = float(cache.info("clients")["connected_clients"])
        found["HTTP"] = float(established(urlsplit(self.bridge.run["http"]).port or 0))
        return found


def established(port: int) -> int:
    """TCP connections to a local port."""
    wanted = f":{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(1 for line in lines if (each := line.split())[1].endswith(wanted) and each[3] == ESTABLISHED)


def span(looks: list[Figures]) -> dict[str, dict[str, float]]:
    """Mean and peak of each figure that any look has, and how much its values are together."""
    names = sorted({name for look in looks for name in look})
    columns = {name: [look[name] for look in looks if name in look] for name in names}
    return {
        name: {"mean": sum(values) / len(values), "peak": max(values), "total": sum(values)}
        for name, values in columns.items()
    }


def growth(looks: list[Look]) -> Figures:
    """By how many percent memory was larger in the last fifth than in the second, the first being the warm-up."""
    part = len(looks) // 5
    if not part:
        return {}
    early, late = (span([look.memory for look in some]) for some in (looks[part : 2 * part], looks[-part:]))
    known = (name for name in late if early.get(name, {}).get("mean"))  # a node that was killed meanwhile had none
    return {name: 100 * (late[name]["mean"] / early[name]["mean"] - 1) for name in known}
