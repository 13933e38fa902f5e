"""The servers that tests need, started when the first test asks: PostgreSQL, Valkey, Kafka's stand-in.

`DATABASE_URL`, `REDIS_URL` and `KAFKA_BOOTSTRAP_SERVERS` each replace one of them, when they come from outside.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import django
import psycopg
import pytest
import redis as redis_client
from asgiref.sync import SyncToAsync
from cryptography.fernet import Fernet
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from psycopg import sql
from pytest_django import DjangoDbBlocker

from auren.embedded.kafka import MockKafka
from auren.embedded.postgres import Postgres
from auren.embedded.server import free_port
from auren.embedded.valkey import Valkey
from tests.browser.chromium import CHROMIUM, WITHOUT

DATABASE = f"auren_test_{os.getpid()}"
PASSWORD = "only-for-tests"
# A crash of the machine would lose these data, and nobody would miss them; a crash of the server does not.
DATABASE_SETTINGS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "128MB"}
# What came from outside. Where tests run side by side, each process starts with what the first one had set for itself.
SERVERS = ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS")
FOUND = {name: os.environ[name] for name in SERVERS if os.environ.get(name)}
GIVEN: dict[str, str] = json.loads(os.environ.setdefault("AUREN_TESTS_GIVEN", json.dumps(FOUND)))
VAR = Path(tempfile.mkdtemp(prefix="auren-tests-"))
DATABASE_PORT, REDIS_PORT = free_port(), free_port()


def environment() -> dict[str, str]:
    """What the product is to find. Of two secrets the first one signs."""
    server = GIVEN.get("DATABASE_URL") or f"postgresql://auren:{PASSWORD}@127.0.0.1:{DATABASE_PORT}/auren"
    return {
        "AUREN_VAR": str(VAR),
        "AUREN_ENV_FILE": os.devnull,
        "AUREN_SANDBOX": "1",
        "SECRET_KEY": "signs-nothing-outside-this-test-run-0123456789",
        "TOKEN_KEYS": Fernet.generate_key().decode(),
        "OURA_CLIENT_ID": "oura-client",
        "OURA_CLIENT_SECRET": "oura-signs-with-this,oura-signed-with-that",
        "OURA_VERIFICATION_TOKEN": "oura-shakes-hands",
        "WHOOP_CLIENT_ID": "whoop-client",
        "WHOOP_CLIENT_SECRET": "whoop-signs-with-this,whoop-signed-with-that",
        "DATABASE_URL": urlunsplit(urlsplit(server)._replace(path=f"/{DATABASE}")),
        "REDIS_URL": GIVEN.get("REDIS_URL") or f"redis://:{PASSWORD}@127.0.0.1:{REDIS_PORT}/0",
        "KAFKA_BOOTSTRAP_SERVERS": GIVEN.get("KAFKA_BOOTSTRAP_SERVERS", ""),
    }


VAR.chmod(0o711)  # the ordinary user that PostgreSQL runs as passes through
(VAR / "static").mkdir()
os.environ.update(environment(), DJANGO_SETTINGS_MODULE="auren.settings")  # before anything reads the settings
django.setup()
del os.environ["DJANGO_SETTINGS_MODULE"]  # or pytest-django, in a process beside this one, reads them too early


@pytest.hookimpl(tryfirst=True)  # before `-m services` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever talks to a server is run once more against Debian's servers and Apache Kafka: see .ci/run."""
    for item in items:
        if not {"database", "redis", "kafka"}.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("services")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not CHROMIUM:
        terminalreporter.write_line(WITHOUT)


def pytest_unconfigure() -> None:
    shutil.rmtree(VAR, ignore_errors=True)


# What a test may leave in the tables goes; what migrations put there stays, and comes back if a test touched it.
# One function call a test: only tables with rows are emptied, and foreign keys are not looked at meanwhile.
RESET = """
CREATE SCHEMA kept;
CREATE FUNCTION kept.tables() RETURNS SETOF name LANGUAGE sql STABLE AS $$
    SELECT relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
      AND relname <> 'django_migrations'
$$;
DO $$
DECLARE name name; used boolean;
BEGIN
    FOR name IN SELECT kept.tables() LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', name) INTO used;
        IF used THEN EXECUTE format('CREATE TABLE kept.%I AS TABLE public.%I', name, name); END IF;
    END LOOP;
END $$;
CREATE FUNCTION kept.reset() RETURNS void LANGUAGE plpgsql
SET session_replication_role = replica SET lock_timeout = '10s' AS $$
DECLARE name name; changed boolean;
BEGIN
    FOR name IN SELECT kept.tables() LOOP
        IF to_regclass(format('kept.%I', name)) IS NULL THEN
            EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', name) INTO changed;
            IF changed THEN EXECUTE format('DELETE FROM public.%I', name); END IF;
        ELSE
            EXECUTE format('SELECT EXISTS ((TABLE public.%1$I EXCEPT TABLE kept.%1$I)
                UNION ALL (TABLE kept.%1$I EXCEPT TABLE public.%1$I))', name) INTO changed;
            IF changed THEN
                EXECUTE format('DELETE FROM public.%I', name);
                EXECUTE format('INSERT INTO public.%1$I OVERRIDING SYSTEM VALUE TABLE kept.%1$I', name);
            END IF;
        END IF;
    END LOOP;
END $$;
"""


@pytest.fixture(scope="session")
def database_server() -> Iterator[str]:
    """The address of a PostgreSQL where databases may be created."""
    if outside := GIVEN.get("DATABASE_URL"):
        yield outside
        return
    with Postgres(VAR, PASSWORD, port=DATABASE_PORT, settings=DATABASE_SETTINGS) as server:
        yield server.url


@pytest.fixture(scope="session")
def migrated_database(
    database_server: str, django_db_blocker: DjangoDbBlocker
) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A database of this test run's own, and a connection to it that resets it."""
    name = sql.Identifier(DATABASE)
    with psycopg.connect(database_server, autocommit=True) as server, ExitStack() as after:
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        server.execute(sql.SQL("CREATE DATABASE {}").format(name))
        after.callback(server.execute, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        with django_db_blocker.unblock():
            call_command("migrate", verbosity=0)
            connections.close_all()
        with psycopg.connect(settings.DATABASE_URL, autocommit=True) as connection:
            connection.execute(RESET)
            yield connection


@pytest.fixture
def database(
    migrated_database: psycopg.Connection[tuple[object, ...]], django_db_blocker: DjangoDbBlocker
) -> Iterator[str]:
    """The address of a real database: migrated, committed to for good, and as it was again after the test."""
    with django_db_blocker.unblock():
        yield settings.DATABASE_URL
        connections.close_all()
        # sync_to_async runs its code, and opens its connections, in a thread of its own.
        SyncToAsync.single_thread_executor.submit(connections.close_all).result()
    migrated_database.execute("SELECT kept.reset()")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    if outside := GIVEN.get("REDIS_URL"):
        yield outside
        return
    with Valkey(VAR, PASSWORD, port=REDIS_PORT) as server:
        yield server.url


@pytest.fixture
def redis(redis_server: str) -> Iterator[str]:
    """The address of a real Valkey or Redis, empty. Without this fixture there is none, as when it is down."""
    with redis_client.Redis.from_url(redis_server) as client:
        client.flushdb()
        yield redis_server


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[str]:
    if outside := GIVEN.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield outside
        return
    with MockKafka(VAR) as server:
        yield server.url


@pytest.fixture
def kafka(kafka_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bootstrap address. Topics outlive the test: read with a new group, and look for what is yours."""
    monkeypatch.setattr(settings, "KAFKA_BOOTSTRAP_SERVERS", kafka_server)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_server)
    return kafka_server
