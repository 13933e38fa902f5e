"""One HTTP call to a vendor: a limit on its time, a limit on its answer, and what is known when neither came."""

import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import aiohttp
import certifi
from django.conf import settings

from auren.patience import time_limit

CONNECT_SECONDS = 3.0
# To read what came while this process stood still. Of a refresh it costs the link not to: its refresh token is spent.
LAST_LOOK_SECONDS = 0.1
IDLE_SECONDS = 30.0  # below what load balancers allow, so that we close first
MAX_ANSWER = 32 * 1024 * 1024
HEADERS = {"User-Agent": "auren-biometric-bridge", "Accept": "application/json"}
NOT_SENT = (
    *(aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError),
    *(aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError),
)


class Reply(NamedTuple):
    """A whole answer, whatever its status; `body` is decompressed, the headers' names may be in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoReply(Exception):
    """No whole answer. `error_class` is `timeout`, `connection` or `bad_answer`; unless `sent`, the vendor saw nothing.

    The text names neither headers nor the form, which hold secrets.
    """

    def __init__(self, reason: str, *, error_class: str, sent: bool) -> None:
        super().__init__(reason)
        self.error_class = error_class
        self.sent = sent


class NoAddress(ValueError):
    """What should be the address of an API is none."""


class Client:
    """HTTP/1.1 with up to `connections` kept alive, to `base_url` or wherever a call says. Made within a running loop.

    Proxies named by the environment do not count, cookies are not kept, redirections not followed. By aiohttp: 0.2 ms
    of CPU a call at 40 at once, where httpx over httpcore took 1.3 (bench/notes.md).
    """

    def __init__(self, base_url: str, connections: int) -> None:
        self.base_url = base_url.rstrip("/")
        certificates = ssl.create_default_context(cafile=certifi.where())
        connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=IDLE_SECONDS, ssl=certificates)
        self.session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),  # the rest is `time_limit`'s
            headers=HEADERS,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self.session.close()


def open_client(base_url: str = "", *, connections: int) -> Client:
    """Raises `NoAddress` where `base_url` is given and is no http or https address."""
    if base_url:
        try:
            parts = urlsplit(base_url)
        except ValueError:
            raise NoAddress(base_url) from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise NoAddress(base_url)
    return Client(base_url, connections)


def longest_call_seconds() -> float:
    """No call takes longer, however slowly its answer drips in."""
    return float(settings.VENDOR_TIMEOUT) + LAST_LOOK_SECONDS


async def exchange(
    client: Client,
    method: str,
    address: str,
    *,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
    json: Any = None,
) -> Reply:
    """Make a call and read the whole answer; `address` is a path under the client's base, or a whole URL.

    Raises `NoReply`.
    """
    url = f"{client.base_url}{address}" if address.startswith("/") else address
    asked = client.session.request(
        method, url, params=params, headers=headers, data=form, json=json, allow_redirects=False
    )
    try:
        async with time_limit(settings.VENDOR_TIMEOUT, LAST_LOOK_SECONDS), asked as response:
            return Reply(response.status, response.headers, await _body(response))
    except TimeoutError as error:  # aiohttp's as well
        raise _no_reply(url, error, "timeout") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a header of two lines, for one
        raise _no_reply(url, error, "connection") from None


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            response.close()
            raise NoReply(
                f"{response.url.host} sent more than {MAX_ANSWER >> 20} MiB", error_class="bad_answer", sent=True
            )
    return bytes(body)


def _no_reply(url: str, error: Exception, error_class: str) -> NoReply:
    reason = f"{_host(url)} gave no answer: {type(error).__name__}"
    return NoReply(reason, error_class=error_class, sent=not isinstance(error, NOT_SENT))


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "the vendor"
    except ValueError:
        return "the vendor"
