"""What the claim loop is measured beside: procrastinate's worker, listening, with jobs side by side.

Like our deliveries its jobs stay when they are done, and it keeps a line of when each was deferred, started and done.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from procrastinate import App, PsycopgConnector

MADE = "SELECT to_regclass('procrastinate_jobs') IS NOT NULL AS made"


class Queue:
    """Of one kind of job. `at_once` are side by side, over as many connections."""

    def __init__(self, address: str, at_once: int) -> None:
        self.at_once = at_once
        self.app = App(connector=PsycopgConnector(conninfo=address, min_size=at_once, max_size=at_once))

    async def make(self) -> None:
        """Its tables, unless they are there."""
        async with self.app.open_async():
            if not (await self.app.connector.execute_query_one_async(MADE))["made"]:
                await self.app.schema_manager.apply_schema_async()

    async def defer(self, jobs: Sequence[dict[str, Any]]) -> None:
        async with self.app.open_async():
            await self.app.configure_task("take").batch_defer_async(*jobs)

    async def work(self, take: Callable[..., Awaitable[Any]], seconds: float) -> None:
        """Give what was deferred to `take`, until nothing waits any more or `seconds` are over, and finish it."""
        self.app.tasks.pop("take", None)
        self.app.task(name="take")(take)
        async with self.app.open_async():
            working = self.app.run_worker_async(concurrency=self.at_once, wait=False, install_signal_handlers=False)
            with suppress(TimeoutError):
                await asyncio.wait_for(working, seconds)
