"""What can be taken away from a running bridge and given back, and how long the bridge takes to notice either."""

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil  # type: ignore[import-untyped]
import psycopg
import redis

from bench.bridge import Bridge, wait_for
from bench.nodes import Cluster, three_nodes

LONGEST = 60.0  # seconds until what was away is back
PROBE = 0.05
PARTS = {"postgresql": "postgresql", "valkey": "redis", "kafka": "kafka"}  # servers' names in /health/ready
LEASES = """
SELECT 'deliveries', id::text, lease_token, lease_until FROM webhooks_delivery
WHERE state IN ('received', 'retrying') AND lease_until > now()
UNION ALL
SELECT CASE name WHEN 'schedule' THEN name ELSE 'shards' END, name, holder, until FROM webhooks_lease
WHERE holder IS NOT NULL AND until > now() AND (name = 'schedule' OR name LIKE 'shard-%')
"""
STANDING = LEASES.replace("> now()", "IS NOT NULL")  # run out or not

Lease = tuple[str, str, UUID, datetime]  # kind, of what, held by whom, until when


@dataclass
class Moments:
    """When (time.time()): it went, it was back, and the bridge noticed either; 0 for never. `taken_over` is by kind
    when the last lease of a node that is gone was another's, which is never said of leases that their holder kept."""

    gone: float = 0
    back: float = 0
    noticed: float = 0
    well: float = 0
    taken_over: dict[str, float] = field(default_factory=dict)


class Breaking(ABC):
    """Beside the load on `bridge`: takes something away from it and gives it back. What hangs is held still by SIGSTOP;
    what does not is killed."""

    def __init__(self, bridge: Bridge, *, hangs: bool) -> None:
        self.bridge = bridge
        self.hangs = hangs
        self.moments = Moments()

    def run(self, answers: Path, before: float, away: float) -> None:
        """Some seconds of calm, the outage, and the wait until all is well."""
        wait_for(lambda: answers.exists() and answers.stat().st_size > 0, LONGEST)
        time.sleep(before)
        self.take_away()
        self.moments.noticed = when(self.is_noticed, away)
        self.watch(self.moments.gone + away)
        self.give_back()
        self.moments.back = when(self.is_back, LONGEST)
        self.moments.well = when(self.is_well, LONGEST)

    @abstractmethod
    def take_away(self) -> None:
        """Also notes when."""

    @abstractmethod
    def give_back(self) -> None:
        """Also when it was given back already, or never taken away."""

    @abstractmethod
    def is_noticed(self) -> bool: ...

    @abstractmethod
    def is_back(self) -> bool:
        """Whether it answers, asked itself."""

    @abstractmethod
    def is_well(self) -> bool: ...

    def watch(self, until: float) -> None:
        """What else there is to see while it is away; returns when that is over."""
        time.sleep(max(0.0, until - time.time()))


class ServerAway(Breaking):
    """PostgreSQL, Valkey or Kafka's stand-in. Killed, it stays away because its supervisor is held still."""

    def __init__(self, bridge: Bridge, server: str, *, hangs: bool) -> None:
        super().__init__(bridge, hangs=hangs)
        self.server = server
        self._held: list[Any] = []

    def take_away(self) -> None:
        server = psutil.Process(self.bridge.run["pids"][self.server][0])
        processes = [server, *server.children(recursive=True)]
        supervisor = psutil.Process(int((self.bridge.var / "lock").read_text()))
        self._held = processes if self.hangs else [supervisor]
        for process in self._held:
            process.send_signal(signal.SIGSTOP)
        self.moments.gone = time.time()
        if not self.hangs:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def give_back(self) -> None:
        for process in self._held:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)

    def is_noticed(self) -> bool:
        return self._said() != "ok"

    def is_well(self) -> bool:
        return self._said() == "ok"

    def _said(self) -> str:
        try:
            parts = httpx.get(f"{self.bridge.run['http']}/health/ready", timeout=5, trust_env=False).json()
        except (httpx.HTTPError, ValueError):
            return "no answer"
        return str(parts[PARTS[self.server]])

    def is_back(self) -> bool:
        run = self.bridge.run
        with suppress(psycopg.Error, redis.RedisError, OSError, KeyError):
            if self.server == "postgresql":
                with psycopg.connect(run["database_url"], connect_timeout=1) as database:
                    return database.execute("SELECT 1").fetchone() is not None
            if self.server == "valkey":
                with redis.Redis.from_url(run["redis_url"], socket_timeout=1) as cache:
                    return bool(cache.ping())
            return bool(psutil.pid_exists(run["pids"]["kafka"][0]))
        return False


class NodeAway(Breaking):
    """All processes of one of three nodes. Killed, it is started again afterwards."""

    def __init__(self, nodes: Cluster, *, hangs: bool) -> None:
        super().__init__(nodes, hangs=hangs)
        self.balancer = nodes.balancer
        self.node = nodes.others[0]
        self._leases: set[Lease] = set()
        self._away = False

    def take_away(self) -> None:
        self._away = True
        self.node.send(signal.SIGSTOP if self.hangs else signal.SIGKILL)
        self.moments.gone = time.time()
        with self._database() as database:
            self._leases = set(database.execute(LEASES).fetchall())

    def give_back(self) -> None:
        if not self._away:
            return
        self._away = False
        if self.hangs:
            self.node.send(signal.SIGCONT)
        else:
            self.node.kill()
            self.node.start()

    def is_noticed(self) -> bool:
        return self.balancer.says(self.node.name) == "DOWN"

    def is_back(self) -> bool:
        return self.node.is_ready()

    def is_well(self) -> bool:
        return self.balancer.says(self.node.name) == "UP"

    def watch(self, until: float) -> None:
        """A lease that was left to run out has been its node's; one that was renewed or given back, a living one's."""
        left = self._leases
        with self._database() as database:
            while left and time.time() < until:
                standing = set(database.execute(STANDING).fetchall())
                for kind, _, _, run_out_at in left - standing:
                    if time.time() >= run_out_at.timestamp():
                        self.moments.taken_over[kind] = time.time()
                left &= standing
                time.sleep(PROBE)
        super().watch(until)

    def _database(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.bridge.run["database_url"], autocommit=True)


def when(condition: Callable[[], bool], seconds: float) -> float:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return time.time()
        time.sleep(PROBE)
    return 0


@contextmanager
def without_server(bridge: Bridge, server: str, *, hangs: bool) -> Iterator[Breaking]:
    breaking = ServerAway(bridge, server, hangs=hangs)
    try:
        yield breaking
    finally:
        breaking.give_back()


@contextmanager
def without_node(bridge: Bridge, *, hangs: bool) -> Iterator[Breaking]:
    with three_nodes(bridge) as nodes:
        breaking = NodeAway(nodes, hangs=hangs)
        try:
            yield breaking
        finally:
            breaking.give_back()
