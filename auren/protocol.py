"""HTTP/1.1 as the web process reads it: uvicorn's, with two bounds that it has not.

httptools joins a header that comes in pieces, so one connection that sends a single header without end kept the whole
process busy: 1.6 s at 40 MB, 17 s at 109 MB (measured). And a head that never ends held its connection for good.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from auren import streams

MAX_HEAD = 64 * 1024  # bytes of the request line and all headers; vendors' are under 2 kB
WHOLE = "auren.whole"  # in a scope's state: all of the request has come
HEAD_SECONDS = 15.0  # from a request's first byte to the end of its headers, and from connecting to the first byte


class HeadTooLarge(Exception):
    """Raised into the parser, which then stops."""


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose request's head is too large (431) or too slow."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._head_size = 0
        self._too_large = False
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server stops: uvicorn waits for answers under way, and streams would go on for minutes."""
        streams.end_all()
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        began_before = self._in_head
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._start_clock()  # hardly ever: a head mostly comes in one piece
            if began_before:
                self._count(len(data))

    def on_message_begin(self) -> None:
        self._in_head, self._head_size = True, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._grow(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_clock()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Says so in the request's `state`: what is here already needs no time limit, which takes longer to set up."""
        self.scope["state"][WHOLE] = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if self._too_large:
            self._refuse()
        else:
            super().send_400_response(msg)

    def _grow(self, size: int) -> None:
        """Count what the parser has read of the head. Raises `HeadTooLarge`, which ends the parsing."""
        self._head_size += size
        if self._head_size > MAX_HEAD:
            self._too_large = True
            raise HeadTooLarge

    def _count(self, size: int) -> None:
        """Count what the parser still keeps to itself: a header whose end has not come."""
        self._head_size += size
        if self._head_size > 2 * MAX_HEAD:
            self._refuse()

    def _refuse(self) -> None:
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        self.transport.close()

    def _start_clock(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_clock(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
