"""`manage.py publish_deliveries`: the publisher. Several share the patients between them."""

import asyncio
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from webhooks.publisher import Publisher, create_topics, make_producer
from webhooks.running import run


class Command(BaseCommand):
    help = "Publish deliveries to Kafka, in each patient's order. SIGTERM stops it within 10 s."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--until-idle", action="store_true", help="stop when nothing waits any more")

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        if not settings.KAFKA_BOOTSTRAP_SERVERS:
            raise CommandError("KAFKA_BOOTSTRAP_SERVERS is not set: name the brokers, as host:port,host:port.")
        run(lambda stop: publish(stop, until_idle=options["until_idle"]))


async def publish(stop: asyncio.Event, *, until_idle: bool = False) -> None:
    servers = settings.KAFKA_BOOTSTRAP_SERVERS
    await asyncio.to_thread(create_topics, servers)
    publisher = Publisher(
        lambda: make_producer(servers), lease=settings.PUBLISHER_LEASE, poll=min(settings.POLL_INTERVAL, 0.2)
    )
    await (publisher.run_until_idle() if until_idle else publisher.run(stop))
