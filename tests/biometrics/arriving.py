"""Samples and withdrawals as they reach the store, over a connection of their own and for patients of their own."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import count

from auren.biometrics.metrics import BY_NAME
from auren.biometrics.models import Source
from auren.biometrics.store import SESSION, Incoming, Stored, Withdrawal, advance, lock_timelines, store
from auren.postgres import connect
from tests.biometrics.stored import NOON

PATIENTS = count(1_000)
SOURCES = {1: 9_000_001, 2: 9_000_002}  # by link: where it does not matter what the source is
HOUR = timedelta(hours=1)


def hours(number: float) -> datetime:
    return NOON + number * HOUR


def source_of(link_id: int, kind: str, name: str = "") -> int:
    return Source.objects.get_or_create(link_id=link_id, name=name or kind, defaults={"kind": kind})[0].pk


def sample(
    value: float,
    start: float = 0,
    end: float | None = None,
    *,
    patient_id: int,
    link_id: int = 1,
    source_id: int | None = None,
    metric: str = "heart_rate",
    record: str = "r",
    revised: float = 0,
    announced: float | None = None,
    final: bool = False,
    delivery_id: int = 1,
    place: int = 0,
    adds: bool = False,
) -> Incoming:
    """Times are hours after noon. Announced when revised, unless said; a final record's announcement does not count."""
    announced_at = None if final else hours(revised if announced is None else announced)
    return Incoming(
        delivery_id,
        patient_id,
        link_id,
        source_id or SOURCES[link_id],
        BY_NAME[metric].number,
        hours(start),
        hours(start if end is None else end),
        value,
        None,
        record,
        hours(revised),
        announced_at,
        place,
        adds,
    )


def withdrawal(
    at: float, *, patient_id: int, link_id: int = 1, record: str = "r", final: bool = False, delivery_id: int = 1
) -> Withdrawal:
    return Withdrawal(delivery_id, patient_id, link_id, record, hours(at), final)


class Store:
    """One connection that stores batch after batch, each in a transaction under the patients' locks."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._connection = self._runner.run(connect("test store", **SESSION))

    def put(self, *batch: Incoming | Withdrawal, zone: str = "UTC") -> Stored:
        return self._runner.run(self._put(batch, zone))

    async def _put(self, batch: Sequence[Incoming | Withdrawal], zone: str) -> Stored:
        samples = [each for each in batch if isinstance(each, Incoming)]
        withdrawals = [each for each in batch if isinstance(each, Withdrawal)]
        patients = {each.patient_id for each in batch}
        async with self._connection.transaction():
            await lock_timelines(self._connection, patients)
            stored = await store(self._connection, samples, withdrawals, dict.fromkeys(patients, zone))
            await advance(self._connection, dict.fromkeys(patients, 1))
        return stored

    def close(self) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()
