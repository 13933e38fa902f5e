"""Where reads go: to a replica that is new enough, else to the primary, each answer out of one snapshot.

A replica lags. What a patient's pages show may not: so the versions of the patients' timelines are looked up on the
primary (one probe of a key each), and the replica's own are read in the snapshot that then answers. Where one is
behind, or the replica is away or ends the statement, as a standby does when replay needs the rows, the primary answers.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from django.db import Error, connections, transaction
from django.db.utils import DEFAULT_DB_ALIAS
from prometheus_client import Counter

REPLICA = "replica"
NOT_ASKED_SECONDS = 5.0  # a replica that was away is left alone for so long
PASSING = {"40001", "40P01", "57014"}  # the statement was cancelled, the replica is there

READS = Counter("auren_reads", "Reads by who answered, and why the replica did not", ["database", "why"])

T = TypeVar("T")

logger = logging.getLogger(__name__)

_database: ContextVar[str | None] = ContextVar("database", default=None)
_not_asked_until = 0.0

# A patient's reads go by the key, whatever the statistics of a partition say. Where it holds few people, a metric of
# which nothing is known looks as if all rows could be of it, and the planner read whole months to find none.
BEGUN = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL enable_seqscan = off"

VERSIONS = "SELECT patient_id, version FROM biometrics_timeline WHERE patient_id = ANY(%s)"


class Behind(Exception):
    """The replica has not replayed yet what the primary had committed when it was asked."""


class NoReplica:
    """A database router: nothing is migrated on a replica."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:  # noqa: ARG002 - Django's signature
        return False if db == REPLICA else None


def database() -> str:
    """The alias to read from: inside `consistent` the one whose snapshot is open."""
    return _database.get() or DEFAULT_DB_ALIAS


def fetch(statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The rows of a statement, asked where `database` says."""
    with connections[database()].cursor() as cursor:
        cursor.execute(statement, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def versions(patient_ids: Sequence[int]) -> dict[int, int]:
    """Versions of the patients' timelines; those for whom nothing was ever stored are absent, and count as 0."""
    with connections[database()].cursor() as cursor:
        cursor.execute(VERSIONS, [list(patient_ids)])
        return dict(cursor.fetchall())


def consistent(patient_ids: Sequence[int], ask: Callable[[], T], known: Mapping[int, int] | None = None) -> T:
    """What `ask()` returns, all its statements in one read-only snapshot of `database()`.

    The snapshot holds everything committed for these patients before the call, or, with `known`, at least those
    versions. `ask` may be called twice, so it only reads. Within another `consistent` it is part of that snapshot, and
    within a transaction of the caller's it sees what that sees.
    """
    if _database.get() is not None or connections[DEFAULT_DB_ALIAS].in_atomic_block:
        return ask()
    why = "none"
    if REPLICA in connections.settings:
        why, answer = _ask_replica(patient_ids, ask, known)
        if not why:
            return answer[0]
    with _snapshot(DEFAULT_DB_ALIAS):
        found = ask()
    READS.labels("primary", why).inc()
    return found


def _ask_replica(
    patient_ids: Sequence[int], ask: Callable[[], T], known: Mapping[int, int] | None
) -> tuple[str, list[T]]:
    """Why the replica did not answer; empty when it did."""
    global _not_asked_until  # noqa: PLW0603 - of this process
    if time.monotonic() < _not_asked_until:
        return "away", []
    wanted = versions(patient_ids) if known is None else known
    try:
        with _snapshot(REPLICA):
            _refuse_older(versions(patient_ids), wanted)
            found = ask()
    except Behind:
        return "behind", []
    except Error as error:
        connections[REPLICA].close()
        if getattr(error.__cause__, "sqlstate", None) in PASSING:
            return "cancelled", []
        _not_asked_until = time.monotonic() + NOT_ASKED_SECONDS
        logger.warning("The replica is away (%s): the primary answers", str(error).partition("\n")[0])
        return "away", []
    READS.labels("replica", "").inc()
    return "", [found]


def _refuse_older(held: Mapping[int, int], wanted: Mapping[int, int]) -> None:
    if any(held.get(patient_id, 0) < version for patient_id, version in wanted.items()):
        raise Behind


@contextmanager
def _snapshot(alias: str) -> Iterator[None]:
    with transaction.atomic(using=alias):
        with connections[alias].cursor() as cursor:
            cursor.execute(BEGUN)
        token = _database.set(alias)
        try:
            yield
        finally:
            _database.reset(token)
