"""The scheduler: what has to happen again and again, by one process at a time, held by a lease row."""

import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic

from django.conf import settings
from django.db import Error, close_old_connections, connection

from auren.biometrics import partitions
from auren.biometrics.partitions import create_missing, drop_expired, stray_samples
from devices.subscriptions import check_subscriptions
from webhooks import metrics
from webhooks.actions import requeue_unlinked
from webhooks.polling import file_polls, file_reconciliations, mark_stale
from webhooks.replays import replay_slices

logger = logging.getLogger(__name__)

NAME = "schedule"
LEASE = 30  # seconds
LOOK_EVERY = 1.0  # seconds
SLICE = 1000  # rows
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

TAKE = """
INSERT INTO webhooks_lease AS l (name, holder, until)
VALUES (%(name)s, %(me)s, now() + make_interval(secs => %(lease)s))
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
WHERE l.holder = excluded.holder OR l.holder IS NULL OR l.until < now()
RETURNING name
"""
RELEASE = "UPDATE webhooks_lease SET holder = NULL, until = now() WHERE name = %s AND holder = %s"

AGAIN_AFTER = 60.0  # seconds after a fault
LOCK_TIMEOUT = "5s"  # whoever waits for a lock on a table has everybody else wait behind it
AT_ONCE_SECONDS = 5.0  # of one turn, well within the lease

# In slices, so that no transaction holds many rows for long; each goes on where the last one ended, or every slice
# would step over all that has been forgotten before.
FORGET = """
WITH old AS (
    SELECT id, received_at FROM webhooks_delivery
    WHERE received_at >= %(since)s AND received_at < now() - make_interval(days => %(days)s)
      AND (body IS NOT NULL OR document IS NOT NULL)
      AND state IN ('published', 'ignored', 'dead') AND outbox IS NULL
    ORDER BY received_at LIMIT 1000
    FOR UPDATE SKIP LOCKED
), forgotten AS (
    UPDATE webhooks_delivery SET body = NULL, document = NULL WHERE id IN (SELECT id FROM old)
)
SELECT count(*), max(received_at) FROM old
"""


class Forgetting:
    """Bodies and documents past their retention time; what is still to be done keeps its own."""

    def __init__(self) -> None:
        self._since = BEGINNING

    def forget(self) -> "Done":
        """As much as one turn has time for; the next one goes on from there."""
        until, total = monotonic() + AT_ONCE_SECONDS, 0
        with connection.cursor() as cursor:
            while monotonic() < until:
                cursor.execute(FORGET, {"since": self._since, "days": settings.BODY_RETENTION_DAYS})
                count, last = cursor.fetchone()
                total += count
                self._since = last if count == SLICE else BEGINNING
                if count < SLICE:
                    return Done(total)
        return Done(total, more=True)


class ForgettingRecords:
    """What speaks of samples whose partitions have been dropped, as much as one turn has time for."""

    def __init__(self) -> None:
        self._forgetting = partitions.Forgetting()

    def forget(self) -> "Done":
        until, total, more = monotonic() + AT_ONCE_SECONDS, 0, True
        while more and monotonic() < until:
            count, more = self._forgetting.forget_some()
            total += count
        return Done(total, more=more)


def watch_default_partition() -> None:
    """A sample in no partition is one of a time nobody expected: the gauge tells support."""
    count = stray_samples()
    metrics.STRAY_SAMPLES.set(count)
    if count:
        logger.warning("%d samples lie in the default partition: manage.py empty_default_partition", count)


@dataclass(frozen=True)
class Done:
    """How much a chore has done, and whether there is more of it at once."""

    count: int
    more: bool = False


@dataclass
class Chore:
    """Something done every `seconds`; a fault is logged and it is tried again within a minute."""

    name: str
    seconds: float
    work: Callable[[], object]
    due_at: float = field(default=0.0)

    def run_if_due(self, now: float) -> None:
        if now < self.due_at:
            return
        self.due_at = now + min(self.seconds, AGAIN_AFTER)
        try:
            done = self.work()
        except Exception:
            logger.exception("%s failed", self.name)
            return
        count = done.count if isinstance(done, Done) else done
        self.due_at = now if isinstance(done, Done) and done.more else now + self.seconds
        if count:
            logger.info("%s: %s", self.name, count)


def replays() -> Done:
    progress = replay_slices()
    return Done(progress.count, progress.more)


def chores() -> list[Chore]:
    return [
        Chore("waiting deliveries whose link is there now", 60, requeue_unlinked),
        Chore("deliveries tried again with all like them", 1, replays),
        Chore("polls of what is never announced", 60, file_polls),
        Chore("lists that show what was not announced", 60, file_reconciliations),
        Chore("links fallen silent", 3600, mark_stale),
        Chore("Oura's subscriptions", 60, check_subscriptions),
        Chore("partitions made ahead", 6 * 3600, create_missing),
        Chore("samples in the default partition", 60, watch_default_partition),
        Chore("partitions past their retention", 6 * 3600, drop_expired),
        Chore("records and conflicts past their retention", 6 * 3600, ForgettingRecords().forget),
        Chore("bodies past their retention", 3600, Forgetting().forget),
    ]


class Schedule:
    """One scheduler process; any number may run, one is active."""

    def __init__(self) -> None:
        self.me = uuid.uuid4()
        self.chores = chores()

    def run(self, stop: threading.Event) -> None:
        """Do the chores whenever the lease is ours, until `stop`."""
        while not stop.is_set():
            self.turn()
            stop.wait(LOOK_EVERY)
        self.give_back()

    def turn(self) -> bool:
        """One look: take or keep the lease, do what is due. Whether this process is the active one."""
        close_old_connections()
        active = self._holds()
        for chore in self.chores:
            if not active:
                break
            chore.run_if_due(monotonic())
            active = self._holds()  # each chore starts under a fresh lease
        return active

    def _holds(self) -> bool:
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
                cursor.execute(TAKE, {"name": NAME, "me": self.me, "lease": LEASE})
                return cursor.fetchone() is not None
        except Error as error:
            logger.warning("no schedule: %s", type(error).__name__)
            return False

    def give_back(self) -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute(RELEASE, [NAME, self.me])
        except Error:
            logger.warning("the schedule's lease could not be given back: it runs out within %d s", LEASE)
        connection.close()
