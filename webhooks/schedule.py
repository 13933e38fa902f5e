"""The scheduler: what has to happen again and again, by one process at a time, held by a lease row."""

import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from django.conf import settings
from django.db import Error, close_old_connections, connection

from auren.biometrics.partitions import create_missing
from webhooks.actions import requeue_unlinked

logger = logging.getLogger(__name__)

NAME = "schedule"
LEASE = 30  # seconds
LOOK_EVERY = 1.0  # seconds

TAKE = """
INSERT INTO webhooks_lease AS l (name, holder, until)
VALUES (%(name)s, %(me)s, now() + make_interval(secs => %(lease)s))
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
WHERE l.holder = excluded.holder OR l.holder IS NULL OR l.until < now()
RETURNING name
"""
RELEASE = "UPDATE webhooks_lease SET holder = NULL, until = now() WHERE name = %s AND holder = %s"

# In slices, so that no transaction holds many rows for long.
FORGET = """
UPDATE webhooks_delivery SET body = NULL, document = NULL
WHERE id IN (
    SELECT id FROM webhooks_delivery
    WHERE received_at < now() - make_interval(days => %s) AND (body IS NOT NULL OR document IS NOT NULL)
      AND state IN ('published', 'ignored', 'dead') AND outbox IS NULL
    ORDER BY received_at LIMIT 1000
)
"""


def forget_old_bodies() -> int:
    """Delete bodies and documents after their retention time; what is still to be done keeps its own."""
    total = 0
    with connection.cursor() as cursor:
        for _ in range(1000):
            cursor.execute(FORGET, [settings.BODY_RETENTION_DAYS])
            total += cursor.rowcount
            if cursor.rowcount < 1000:
                break
    return total


@dataclass
class Chore:
    """Something done every `seconds`; a fault is logged and it is tried again next time."""

    name: str
    seconds: float
    work: Callable[[], object]
    due_at: float = field(default=0.0)

    def run_if_due(self, now: float) -> None:
        if now < self.due_at:
            return
        self.due_at = now + self.seconds
        try:
            done = self.work()
        except Error:
            logger.exception("%s failed", self.name)
            return
        if done:
            logger.info("%s: %s", self.name, done)


def chores() -> list[Chore]:
    return [
        Chore("waiting deliveries whose link is there now", 60, requeue_unlinked),
        Chore("partitions made ahead", 6 * 3600, create_missing),
        Chore("bodies past their retention", 3600, forget_old_bodies),
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
        try:
            active = self._take()
        except Error as error:
            logger.warning("no schedule: %s", type(error).__name__)
            return False
        if active:
            for chore in self.chores:
                chore.run_if_due(monotonic())
        return active

    def _take(self) -> bool:
        with connection.cursor() as cursor:
            cursor.execute(TAKE, {"name": NAME, "me": self.me, "lease": LEASE})
            return cursor.fetchone() is not None

    def give_back(self) -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute(RELEASE, [NAME, self.me])
        except Error:
            logger.warning("the schedule's lease could not be given back: it runs out within %d s", LEASE)
        connection.close()
