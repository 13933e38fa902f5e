"""`manage.py make_exports`: makes the exports that are too long for the web process. Run as many as are needed."""

import asyncio
import threading
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from auren.console.exports.making import Maker
from webhooks.running import run

LONGEST_POLL = 0.5  # seconds: somebody is waiting in front of a page


class Command(BaseCommand):
    help = "Make long exports, and remove those whose time is over. SIGTERM stops it within 10 s."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--until-idle", action="store_true", help="stop when nothing waits any more")

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        maker = Maker(lease=settings.EXPORT_LEASE, poll=min(settings.POLL_INTERVAL, LONGEST_POLL))
        work = maker.run_until_idle if options["until_idle"] else maker.run
        run(lambda stop: in_a_thread(work, stop))


async def in_a_thread(work: Any, stop: asyncio.Event) -> None:
    """The ORM's work off the loop, which has the signals and the metrics page to see to."""
    ended = threading.Event()
    working = asyncio.create_task(asyncio.to_thread(work, ended))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.set()
        stopping.cancel()
        await working
