import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import AsyncClient
from pytest_django import Settings

from auren import streams
from auren.biometrics.models import Timeline
from auren.console import live
from devices.models import Assignment, Patient
from devices.spare_redis import open_redis
from webhooks.bell import Bell

SECONDS = 5.0


@pytest.fixture
async def browser(clinician: User) -> AsyncClient:
    client = AsyncClient()
    await client.aforce_login(clinician)
    return client


@asynccontextmanager
async def listening(browser: AsyncClient, patient: Patient) -> AsyncIterator[Callable[[], Any]]:
    """Opens the stream; gives the function that waits for its next event, heartbeats aside."""
    answer: Any = await browser.get(f"/patients/{patient.pk}/live")
    assert answer["Content-Type"] == "text/event-stream"
    events = aiter(answer.streaming_content)

    async def following() -> str | None:
        async with asyncio.timeout(SECONDS):
            async for event in events:
                if event != b":\n\n":
                    return str(event.decode().splitlines()[0:2])
        return None

    try:
        yield following
    finally:
        await events.aclose()


@sync_to_async
def raise_version(patient: Patient) -> None:
    timeline, _ = Timeline.objects.get_or_create(pk=patient.pk)
    Timeline.objects.filter(pk=timeline.pk).update(version=timeline.version + 1)


async def ring(patient: Patient, url: str) -> None:
    client = open_redis(url)
    assert client is not None
    async with client:
        await Bell(client).ring([patient.pk])


async def test_whoever_looks_is_told_the_version_and_then_every_new_one(
    browser: AsyncClient, assigned: Assignment, patient: Patient, redis: str, settings: Settings
) -> None:
    settings.REDIS_URL = redis
    async with listening(browser, patient) as following:
        assert await following() == "['event: version', 'data: 0']"
        await raise_version(patient)
        told = asyncio.create_task(following())
        while not told.done():  # the stream may not listen yet: a bell rings for those who do
            await ring(patient, redis)
            await asyncio.wait([told], timeout=0.05)
        assert told.result() == "['event: version', 'data: 1']"


async def test_without_redis_the_version_is_looked_at(
    browser: AsyncClient, assigned: Assignment, patient: Patient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    monkeypatch.setattr(live, "LOOK_WITHOUT_REDIS_SECONDS", 0.02)
    async with listening(browser, patient) as following:
        await following()
        await raise_version(patient)
        assert await following() == "['event: version', 'data: 1']"


async def test_a_stream_ends_when_the_assignment_does(
    browser: AsyncClient, assigned: Assignment, patient: Patient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REDIS_URL = ""
    monkeypatch.setattr(live, "LOOK_WITHOUT_REDIS_SECONDS", 0.02)
    async with listening(browser, patient) as following:
        await following()
        await assigned.adelete()
        assert await following() == "['event: end', 'data: ']"
        assert await following() is None


async def test_a_stream_ends_when_the_process_is_about_to_stop(
    browser: AsyncClient, assigned: Assignment, patient: Patient, settings: Settings
) -> None:
    settings.REDIS_URL = ""
    async with listening(browser, patient) as following:
        await following()
        streams.end_all()
        assert await following() is None
    assert streams.count() == 0


async def test_more_streams_than_the_bound_are_refused(
    browser: AsyncClient, assigned: Assignment, patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MOST", 0)
    answer = await browser.get(f"/patients/{patient.pk}/live")
    assert (answer.status_code, answer["Retry-After"]) == (503, "30")


async def test_somebody_elses_patient_is_nobodys(browser: AsyncClient, patient: Patient) -> None:
    assert (await browser.get(f"/patients/{patient.pk}/live")).status_code == 404
    assert (await AsyncClient().get(f"/patients/{patient.pk}/live")).status_code == 404
