"""A real PostgreSQL 18 on 127.0.0.1, with a password, as a foreground child."""

import contextlib
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from auren.embedded import initdb
from auren.embedded.account import Account
from auren.embedded.server import Server, StartError, free_port, write_private

MAJOR = "18"
USER = "auren"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_compression": "pglz",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


class Postgres(Server):
    """Keeps its data in `<var>/postgres`, which is a symlink when root's ordinary user cannot reach that place.

    `database` is created if it is not there; `settings` go on top of `SETTINGS`.
    """

    stop_signal = signal.SIGINT
    # Immediate shutdown: recovery is quick, and unlike SIGKILL it leaves no shared memory behind.
    leash_signal = signal.SIGQUIT
    # Recovery after a kill may have minutes of WAL to read.
    start_seconds = 120.0

    def __init__(
        self,
        var: Path,
        password: str,
        *,
        port: int | None = None,
        database: str = "auren",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__("postgresql", var, "postgres")
        self.password = password
        self.port = port or free_port()
        self.database = database
        self.settings = SETTINGS | dict(settings or {})
        self.account = Account.ordinary()
        self.socket_file = self.pid_file.with_name("postgresql.socket")

    @property
    def url(self) -> str:
        return self.url_of(self.database)

    def url_of(self, database: str) -> str:
        return f"postgresql://{USER}:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{database}"

    @property
    def moved_to(self) -> Path | None:
        """Where the data really is, if not in the var folder."""
        return self.folder.resolve() if self.folder.is_symlink() else None

    def prepare(self) -> None:
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        if not self.folder.exists():
            initdb.create(self.folder, self.account, USER, self.password)
        self._refuse_other_version()
        self._end_old_postmaster()
        self._remove_socket()
        # In /tmp, since a socket's path may have 107 bytes and this checkout's may have more.
        write_private(self.socket_file, str(initdb.private_folder(self.account, Path("/tmp"))))  # noqa: S108

    def command(self) -> list[str]:
        options = self.settings | {"port": str(self.port), "unix_socket_directories": self.socket_file.read_text()}
        program = initdb.program("postgres", self.account)
        return [program, "-D", str(self.folder.resolve()), *(f"--{name}={value}" for name, value in options.items())]

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url_of("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise StartError(
                    f"{self.folder} has another password: restore the secrets.json it was made with, or remove both."
                ) from None
            return False
        return True

    def welcome(self) -> None:
        """Create the database."""
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            there = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [self.database]).fetchone()
            if not there:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.database)))

    def kill(self) -> None:
        super().kill()
        self._remove_socket()

    def _end_old_postmaster(self) -> None:
        """Its lock file outlives a SIGKILL, and by then its pid may be a zombie's or anybody's: PostgreSQL would
        refuse to start. Whoever holds the var folder knows better; shared memory still in use is noticed regardless.
        """
        lock = self.folder / "postmaster.pid"
        with contextlib.suppress(OSError, ValueError, IndexError):
            self.end_if_ours(int(lock.read_text().splitlines()[0]))
        lock.unlink(missing_ok=True)

    def _remove_socket(self) -> None:
        """The socket's folder stays behind when the server was killed."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self.socket_file.read_text())
        self.socket_file.unlink(missing_ok=True)

    def _refuse_other_version(self) -> None:
        version = (self.folder / "PG_VERSION").read_text().strip()
        if version != MAJOR:
            raise StartError(f"{self.folder} was made by PostgreSQL {version}, and this is {MAJOR}: move it away.")
