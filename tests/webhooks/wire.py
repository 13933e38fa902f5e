"""A way to PostgreSQL that can go wrong as networks do: fall silent, lose an answer, or break."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from urllib.parse import urlsplit, urlunsplit


class Wire:
    """Hand `address` to the product, and everything it says to PostgreSQL goes through here."""

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._parts = parts
        self.address = ""
        self.lost = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._places: float = inf
        self._broken = False
        self._losing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._writers) // 2

    def allow(self, more: int) -> None:
        """So many connections more, and then none."""
        self._places = more

    def fall_silent(self) -> None:
        """Connections stay, and nothing passes until `mend`."""
        self._flowing.clear()

    def lose_answers(self) -> None:
        """PostgreSQL hears everything; the moment it answers, that connection breaks. Sets `lost` then."""
        self._losing = True

    def cut(self) -> None:
        """Every connection breaks, and new ones are refused until `mend`."""
        self._broken = True
        self._hang_up()

    def mend(self) -> None:
        self._broken = self._losing = False
        self._flowing.set()

    def listen_at(self, port: int) -> None:
        account, _, _ = self._parts.netloc.rpartition("@")
        self.address = urlunsplit(self._parts._replace(netloc=f"{account}@127.0.0.1:{port}"))

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        self._hang_up()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._places -= 1
        if self._broken or self._places < 0:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(*self._upstream)
        pair = {writer, back}
        self._writers |= pair
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, back, answers=False))
                both.create_task(self._pump(there, writer, answers=True))
        except* ConnectionError:
            pass
        finally:
            self._writers -= pair
            for end in pair:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while piece := await reader.read(65_536):
            await self._flowing.wait()
            if answers and self._losing:
                self.lost.set()
                raise ConnectionError
            writer.write(piece)
            await writer.drain()
        raise ConnectionError


@asynccontextmanager
async def wire() -> AsyncIterator[Wire]:
    stretched = Wire(os.environ["DATABASE_URL"])
    server = await asyncio.start_server(stretched.accept, "127.0.0.1", 0)
    stretched.listen_at(server.sockets[0].getsockname()[1])
    try:
        yield stretched
    finally:
        server.close()
        await stretched.close()
