"""Everything on one machine: servers, bridge, sandbox and demo people, under one supervisor."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]

from auren import environment as env
from auren.embedded import welcome
from auren.embedded.kafka import MockKafka
from auren.embedded.output import Terminal
from auren.embedded.postgres import Postgres
from auren.embedded.server import BASE_DIR, Server, StartError, free_port, port_taken
from auren.embedded.supervisor import Child, Interrupted, Supervisor, heed_signals
from auren.embedded.valkey import Valkey
from auren.embedded.var import SECRETS, Var
from auren.sandbox.server import addresses

LOGINS = ("support", "clinician", "admin")
RATE_LIMIT = "1000000/300"
ANSWER_SECONDS = 60.0
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Demo:
    """How many people, with how many days of history, and how many seconds between new data (0: none)."""

    people: int
    days: int
    trickle_seconds: float


class Node:
    """One run of everything, from the first check to the last goodbye."""

    def __init__(self, var: Var, demo: Demo, terminal: Terminal) -> None:
        self.var = var
        self.demo = demo
        self.terminal = terminal
        self.port = env.whole("PORT", 8000, low=1)
        self.http = f"http://127.0.0.1:{self.port}"
        self.supervisor = Supervisor(var, terminal)
        self.environment = self.supervisor.environment
        self.embedded: list[Server] = []
        self.secrets: dict[str, str] = {}

    def run(self) -> None:
        """Until SIGINT or SIGTERM. Raises `StartError`."""
        self.var.end_leftovers()
        if port_taken(self.port):
            raise StartError(
                f"Port {self.port} is in use: {listener(self.port)}; choose another with PORT={self.port + 1} make run"
            )
        heed_signals(self.supervisor)
        with contextlib.suppress(Interrupted), ExitStack() as after:
            after.callback(self.leave)
            self.start()
            self.supervisor.run()

    def start(self) -> None:
        began_at = time.monotonic()
        self.prepare()
        self.start_servers()
        self.finish("migrate", "Migrating the database", "--verbosity", "0")
        self.start_sandbox()
        self.seed()
        self.start_bridge()
        self.supervisor.changed = self.write_down
        self.write_down()
        self.terminal.say(welcome.text(self, time.monotonic() - began_at))

    def leave(self) -> None:
        self.terminal.say("Stopping … (Ctrl-C again to kill)")
        self.supervisor.stop()
        self.var.forget_run()
        self.terminal.say("Stopped.")

    def prepare(self) -> None:
        """Secrets, an empty folder for metrics, and what all children are told."""
        self.secrets = self.var.keep_secrets()
        if port_taken(int(self.secrets["sandbox_port"])):
            self.secrets["sandbox_port"] = str(free_port())
            self.var.write_secrets(self.secrets)
        self.var.empty_metrics()
        (self.var.folder / "static").mkdir(exist_ok=True)
        self.environment |= {"AUREN_VAR": str(self.var.folder), "PROMETHEUS_MULTIPROC_DIR": str(self.var.metrics)}
        self.environment |= self.settings()

    def settings(self) -> dict[str, str]:
        """The settings of this run: what the environment or `.env` says comes first, but the sandbox is always on."""
        ours = {name: self.secrets[name] for name in SECRETS if name.isupper()}
        ours |= {"OURA_RATE_LIMIT": RATE_LIMIT, "WHOOP_RATE_LIMIT": RATE_LIMIT} | addresses(self.sandbox)
        ours |= dict.fromkeys(("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS"), "")
        chosen = {name: env.text(name, value) for name, value in ours.items()}
        return chosen | {"AUREN_SANDBOX": "1", "PORT": str(self.port)}

    @property
    def sandbox(self) -> str:
        return f"http://127.0.0.1:{self.secrets['sandbox_port']}"

    def start_servers(self) -> None:
        """One for each address that nobody gave us."""
        for name, server in self.missing_servers():
            with self.progress(f"Starting {server.name}"):
                self.supervisor.add_server(server)
            self.embedded.append(server)
            self.environment[name] = server.url
        self.tell_others()

    def missing_servers(self) -> Iterator[tuple[str, Server]]:
        if not self.environment["DATABASE_URL"]:
            yield "DATABASE_URL", Postgres(self.var.folder, self.secrets["database_password"])
        if not self.environment["REDIS_URL"]:
            yield "REDIS_URL", Valkey(self.var.folder, self.secrets["redis_password"])
        if not self.environment["KAFKA_BOOTSTRAP_SERVERS"]:
            yield "KAFKA_BOOTSTRAP_SERVERS", MockKafka(self.var.folder)

    def start_sandbox(self) -> None:
        state = str(self.var.folder / "sandbox")
        self.start_child(
            "sandbox",
            *manage("run_sandbox", "--port", self.secrets["sandbox_port"], "--state", state, "--bridge", self.http),
            *("--people", str(self.demo.people), "--days", str(self.demo.days)),
            *("--trickle", f"{self.demo.trickle_seconds:g}"),
        )
        self.wait_for("sandbox", self.sandbox)

    def seed(self) -> None:
        people, days = str(self.demo.people), str(self.demo.days)
        passwords = {f"DEMO_{login.upper()}_PASSWORD": self.secrets[login] for login in LOGINS}
        self.finish("seed_demo", f"Linking {people} demo people", "--people", people, "--days", days, more=passwords)

    def start_bridge(self) -> None:
        configuration = str(BASE_DIR / "auren" / "gunicorn.py")
        self.start_child("web", "-m", "gunicorn", "auren.asgi:application", "-c", configuration, door=True)
        self.start_child("worker", *manage("process_deliveries"))
        self.start_child("publisher", *manage("publish_deliveries"))
        self.start_child("scheduler", *manage("run_schedule"))
        self.start_child("exports", *manage("make_exports"))
        self.wait_for("web", f"{self.http}/health/live")

    def start_child(self, name: str, *arguments: str, door: bool = False) -> None:
        self.supervisor.add_child(Child(name, [sys.executable, *arguments], self.var, self.terminal, door=door))

    def finish(self, command: str, doing: str, *arguments: str, more: Mapping[str, str] | None = None) -> None:
        """Run a management command to its end. Raises `StartError`."""
        child = Child(command, [sys.executable, *manage(command, *arguments)], self.var, self.terminal)
        with self.progress(doing), contextlib.closing(child):
            child.start(self.environment | dict(more or {}))
            code = child.wait()
        if code:
            raise StartError(f"{command} failed: {self.var.folder / 'log' / command}.log says why.")

    def wait_for(self, name: str, url: str) -> None:
        """Until `url` answers anything at all. Raises `StartError`."""
        deadline = time.monotonic() + ANSWER_SECONDS
        with self.progress(f"Waiting for {name}"):
            while not answers(url):
                if time.monotonic() > deadline:
                    raise StartError(
                        f"{name} gave no answer in {ANSWER_SECONDS:g} s: see its log in {self.var.folder}."
                    )
                self.supervisor.look()
                time.sleep(LOOK_SECONDS)

    @contextmanager
    def progress(self, doing: str) -> Iterator[None]:
        began_at = time.monotonic()
        yield
        self.terminal.say(f"{doing} … {time.monotonic() - began_at:.1f} s")

    def tell_others(self) -> None:
        private = {"AUREN_VAR", "PROMETHEUS_MULTIPROC_DIR"}  # a command typed beside us keeps its metrics to itself
        self.var.write_environment({name: value for name, value in self.environment.items() if name not in private})

    def write_down(self) -> None:
        self.var.write_run(self.description())

    def description(self) -> dict[str, Any]:
        """`run.json`."""
        return {
            "http": self.http,
            "database_url": self.environment["DATABASE_URL"],
            "redis_url": self.environment["REDIS_URL"],
            "kafka": self.environment["KAFKA_BOOTSTRAP_SERVERS"],
            "embedded": [server.name for server in self.embedded],
            "logins": {login: self.secrets[login] for login in LOGINS},
            "oura_client_secret": self.environment["OURA_CLIENT_SECRET"].partition(",")[0].strip(),
            "whoop_client_secret": self.environment["WHOOP_CLIENT_SECRET"].partition(",")[0].strip(),
            "pids": self.supervisor.pids,
        }


def manage(command: str, *arguments: str) -> list[str]:
    return [str(BASE_DIR / "manage.py"), command, *arguments]


def answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=2)
    except httpx.TransportError:
        return False
    return True


def listener(port: int) -> str:
    """Who listens there, as far as we may know."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid}) listens there"
    return "another program listens there"
