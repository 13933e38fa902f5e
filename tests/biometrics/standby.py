"""A streaming standby of the tests' PostgreSQL: a base backup of it, which replays what it is sent."""

import subprocess
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

from auren.embedded import initdb
from auren.embedded.postgres import Postgres


class Standby(Postgres):
    def __init__(self, var: Path, password: str, primary: str) -> None:
        # A statement that is in the way of replay is cancelled at once, so that a test need not wait for it.
        super().__init__(var, password, settings={"fsync": "off", "max_standby_streaming_delay": "0"})
        self.primary = urlunsplit(urlsplit(primary)._replace(path="/postgres"))
        self.database = "postgres"

    def prepare(self) -> None:
        if not self.folder.exists():
            self.folder = initdb.private_folder(self.account, self.folder.parent)
            self._copy_primary()
        super().prepare()

    def welcome(self) -> None:
        """The databases are the primary's."""

    def _copy_primary(self) -> None:
        program = initdb.program("pg_basebackup", self.account)
        where = ["-D", str(self.folder), "-d", self.primary, "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        subprocess.run(
            [program, *where],
            cwd="/",
            user=self.account.uid if self.account else None,
            group=self.account.gid if self.account else None,
            extra_groups=[] if self.account else None,
            check=True,
        )

    def tell(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)

    def pause(self) -> None:
        self.tell("SELECT pg_wal_replay_pause()")
        self.until("SELECT pg_get_wal_replay_pause_state() = 'paused'")

    def resume(self) -> None:
        self.tell("SELECT pg_wal_replay_resume()")

    def catch_up(self) -> None:
        """Return once everything the primary has committed is here."""
        with psycopg.connect(self.primary, autocommit=True) as primary:
            (lsn,) = primary.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone() or ("",)
        self.until(f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'")

    def until(self, question: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SET statement_timeout = '30s'")
            while connection.execute(question).fetchone() != (True,):
                connection.execute("SELECT pg_sleep(0.01)")
