"""`manage.py process_deliveries`: the worker. Run as many as there is work for."""

import asyncio
from argparse import ArgumentParser
from contextlib import AsyncExitStack
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from redis.asyncio import Redis

from auren.postgres import pool
from devices.api import VendorApi
from devices.asking import Asking
from devices.breaker import Breaker
from devices.connection import open_client
from devices.limits import RateLimit
from devices.outages import Outages
from devices.remembered import Remembered
from devices.spare_redis import open_redis
from devices.tokens import Tokens
from devices.vendors.registry import VENDORS
from webhooks.bell import Bell
from webhooks.clock import DatabaseClock
from webhooks.processing import Processor
from webhooks.running import run
from webhooks.worker import Worker

POOL_SIZE = 4
GRACE = 2.0  # seconds for a token refresh under way when the worker stops

VENDORS_WITH_API = ("oura", "whoop")


class Command(BaseCommand):
    help = "Process deliveries: ask the vendors, store samples, settle conflicts. SIGTERM stops it within 10 s."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--until-idle", action="store_true", help="stop when nothing is due any more")

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        run(lambda stop: process(stop, until_idle=options["until_idle"]))


async def process(stop: asyncio.Event, *, until_idle: bool = False) -> None:
    """Open what a worker needs, work until `stop`, close everything."""
    async with AsyncExitStack() as stack:
        clock = DatabaseClock()
        redis = open_redis(settings.REDIS_URL)
        if redis is not None:
            stack.push_async_callback(redis.aclose)
        asking = await open_asking(stack, clock, redis)
        worker = Worker(
            Processor(asking, clock, recent_days=settings.RECENT_DAYS),
            clock,
            slots=settings.MAX_CONCURRENT_WEBHOOKS,
            lease=settings.DELIVERY_LEASE,
            poll=settings.POLL_INTERVAL,
            sandbox=settings.SANDBOX,
            bell=Bell(redis),
        )
        await (worker.run_until_idle() if until_idle else worker.run(stop))


async def open_asking(stack: AsyncExitStack, clock: DatabaseClock, redis: Redis | None) -> Asking:
    """The way to every vendor's API, closed again by `stack`."""
    database = pool("worker tokens", POOL_SIZE)
    await stack.enter_async_context(database)
    oauth = await stack.enter_async_context(open_client(connections=settings.MAX_CONCURRENT_WEBHOOKS))
    tokens = Tokens(database, oauth)
    stack.push_async_callback(tokens.close, GRACE)
    outages = Outages(database)
    stack.push_async_callback(outages.close)
    apis = {
        name: VendorApi(name, tokens, RateLimit.of(name, redis), clock.now, breaker=Breaker(name, changed=outages.note))
        for name in VENDORS_WITH_API
    }
    for api in apis.values():
        stack.push_async_callback(api.close)
        await api.warm_up()
    fetch = {name: VENDORS[name].fetch for name in apis}
    asking = Asking(apis, fetch, clock.now, Remembered(redis), slots=settings.MAX_CONCURRENT_WEBHOOKS)
    stack.push_async_callback(asking.close)
    return asking
