"""What ingest is measured beside: the least a server can do, and the two usual ways to commit each request.

    uvicorn bench.rivals.plain:bare                    an ASGI reply, nothing else
    uvicorn bench.rivals.django_view:application       a Django async view without middleware, one transaction a request
    uvicorn --factory bench.rivals.plain:fastapi_each  FastAPI with asyncpg's pool, one transaction a request

The last two verify the signature, parse the body, and write the same row with the same fsync as ingest does.
"""

import hashlib
import hmac
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

POOL = 20  # connections, of either
INSERT = """
INSERT INTO webhooks_delivery (vendor, dedup_key, event_type, vendor_user_id, object_id, body, received_at)
VALUES ('oura', {}, {}, {}, {}, {}, clock_timestamp())
ON CONFLICT (vendor, dedup_key) DO NOTHING RETURNING id
"""
ACCEPTED = b'{"delivery":1234567,"duplicate":false}'


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and says 202."""
    if scope["type"] != "http":
        return
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ACCEPTED)).encode())]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": ACCEPTED})


def row_of(headers: Any, body: bytes) -> tuple[str, str, str, str, bytes] | None:
    """What a delivery's row says, or None where the signature is wrong."""
    signed = hmac.digest(
        os.environ["OURA_CLIENT_SECRET"].encode(), headers["x-oura-timestamp"].encode() + body, "sha256"
    )
    if not hmac.compare_digest(signed.hex().upper(), headers["x-oura-signature"]):
        return None
    event = msgspec.json.decode(body)
    event_type = f"{event['data_type']}.{event['event_type']}"
    named = "\0".join((event["user_id"], event_type, event["object_id"], event["event_time"]))
    return hashlib.sha256(named.encode()).hexdigest(), event_type, event["user_id"], event["object_id"], body


def fastapi_each() -> Any:
    import asyncpg  # noqa: PLC0415
    from fastapi import FastAPI, Request, Response  # noqa: PLC0415
    from fastapi.responses import JSONResponse  # noqa: PLC0415

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=POOL, max_size=POOL) as pool:
            app.state.pool = pool
            yield

    app = FastAPI(lifespan=lifespan)

    async def take(request: Request) -> Response:
        row = row_of(request.headers, await request.body())
        if row is None:
            return Response(status_code=401)
        found = await app.state.pool.fetchval(INSERT.format(*(f"${n}" for n in range(1, 6))), *row)
        return JSONResponse({"delivery": found, "duplicate": found is None}, status_code=202)

    app.add_api_route("/webhooks/oura", take, methods=["POST"])
    return app
