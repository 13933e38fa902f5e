"""A worker process for tests: at a line on stdin, `python -m tests.devices.refreshing <link> <waiters>` asks for the
link's token that many times at once and prints each answer."""

import asyncio
import sys

import django


async def main(link_id: int, waiters: int) -> None:
    from django.conf import settings
    from psycopg_pool import AsyncConnectionPool

    from devices.connection import open_client
    from devices.tokens import Pool, Tokens

    connecting: Pool = AsyncConnectionPool(settings.DATABASE_URL, min_size=2, max_size=4, open=False)
    async with connecting as pool, open_client(connections=4) as client:
        tokens = Tokens(pool, client)
        await pool.wait()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for token in await asyncio.gather(*(tokens.current(link_id) for _ in range(waiters))):
            print(token)


if __name__ == "__main__":
    django.setup()
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
