"""`manage.py run_schedule`: the scheduler. Run it on several nodes; one is active at a time."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from webhooks.schedule import Schedule


class Command(BaseCommand):
    help = "Do what has to happen again and again: requeue, partitions, retention. One active at a time."

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        Schedule().run(stop)
