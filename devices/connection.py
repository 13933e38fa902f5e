"""One HTTP call to a vendor: a limit on its time, a limit on its answer, and what is known when neither came."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, cast

import httpx
from django.conf import settings

CONNECT_SECONDS = 3.0
IDLE_SECONDS = 30.0  # below what load balancers allow, so that we close first
MAX_ANSWER = 32 * 1024 * 1024
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class Reply(NamedTuple):
    """A whole answer, whatever its status; `body` is decompressed."""

    status: int
    headers: httpx.Headers
    body: bytes


class NoReply(Exception):
    """No whole answer. `error_class` is `timeout`, `connection` or `bad_answer`; unless `sent`, the vendor saw nothing.

    The text names neither headers nor the form, which hold secrets.
    """

    def __init__(self, reason: str, *, error_class: str, sent: bool) -> None:
        super().__init__(reason)
        self.error_class = error_class
        self.sent = sent


def open_client(base_url: str = "", *, connections: int) -> httpx.AsyncClient:
    """HTTP/1.1 with up to `connections` kept alive. Proxies and certificates named by the environment do not count."""
    return httpx.AsyncClient(
        base_url=base_url,
        timeout=httpx.Timeout(settings.VENDOR_TIMEOUT, connect=CONNECT_SECONDS),
        transport=Lanes(connections),
        headers={"User-Agent": "auren-biometric-bridge", "Accept": "application/json"},
        follow_redirects=False,
        trust_env=False,
    )


class Lanes(httpx.AsyncBaseTransport):
    """So many connections, each in a pool of its own; the one used last is used next.

    One pool of httpcore (1.0.9) looks at every pair of its connections for every call: at 40 calls at once that took
    9 ms of CPU a call, and this takes a quarter of it.
    """

    def __init__(self, connections: int) -> None:
        certificates = httpx.create_ssl_context(trust_env=False)
        one = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_SECONDS)
        self._lanes = [
            httpx.AsyncHTTPTransport(verify=certificates, trust_env=False, limits=one) for _ in range(connections)
        ]
        self._free: asyncio.LifoQueue[httpx.AsyncHTTPTransport] = asyncio.LifoQueue()
        for lane in self._lanes:
            self._free.put_nowait(lane)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        lane = await self._free.get()
        try:
            response = await lane.handle_async_request(request)
        except BaseException:
            self._free.put_nowait(lane)
            raise
        stream = cast(httpx.AsyncByteStream, response.stream)
        response.stream = _Leaving(stream, lambda: self._free.put_nowait(lane))
        return response

    async def aclose(self) -> None:
        await asyncio.gather(*(lane.aclose() for lane in self._lanes))


class _Leaving(httpx.AsyncByteStream):
    """An answer's body that frees its lane once it is closed."""

    def __init__(self, stream: httpx.AsyncByteStream, leave: Callable[[], None]) -> None:
        self._stream = stream
        self._leave = leave

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        leave, self._leave = self._leave, _nothing
        try:
            await self._stream.aclose()
        finally:
            leave()


def _nothing() -> None:
    """A second close frees nothing."""


def longest_call_seconds() -> float:
    """No call takes longer, however slowly its answer drips in."""
    return CONNECT_SECONDS + float(settings.VENDOR_TIMEOUT)


async def exchange(client: httpx.AsyncClient, request: httpx.Request) -> Reply:
    """Send `request` and read the whole answer. Raises `NoReply`."""
    try:
        async with asyncio.timeout(longest_call_seconds()):
            return await _send(client, request)
    except (TimeoutError, httpx.TimeoutException) as error:
        raise _no_reply(request, error, "timeout") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _no_reply(request, error, "connection") from None


async def _send(client: httpx.AsyncClient, request: httpx.Request) -> Reply:
    response = await client.send(request, stream=True)
    try:
        return Reply(response.status_code, response.headers, await _body(response))
    finally:
        await response.aclose()


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise NoReply(
                f"{response.request.url.host} sent more than {MAX_ANSWER >> 20} MiB",
                error_class="bad_answer",
                sent=True,
            )
    return bytes(body)


def _no_reply(request: httpx.Request, error: Exception, error_class: str) -> NoReply:
    reason = f"{request.url.host} gave no answer: {type(error).__name__}"
    return NoReply(reason, error_class=error_class, sent=not isinstance(error, NOT_SENT))
