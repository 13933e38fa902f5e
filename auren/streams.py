"""Answers that go on until somebody ends them: the client, or the process, which must not wait for them to stop."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

MOST = 200  # in one process; each holds a connection to Redis and looks at PostgreSQL now and then

_open: set[asyncio.Event] = set()


class TooMany(Exception):
    """`MOST` streams are open in this process."""


@contextmanager
def stream() -> Iterator[asyncio.Event]:
    """Count one stream in; yields what is set when it has to end. Raises `TooMany`."""
    if len(_open) >= MOST:
        raise TooMany
    ending = asyncio.Event()
    _open.add(ending)
    try:
        yield ending
    finally:
        _open.discard(ending)


def count() -> int:
    return len(_open)


def end_all() -> None:
    """The process is about to stop."""
    for ending in _open:
        ending.set()
