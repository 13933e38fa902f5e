"""A vendor that forgets to call loses nothing: what it did not announce is found."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db.models.functions import Now

from auren.biometrics.models import Record
from auren.sandbox.grants import Vendor
from auren.sandbox.server import RunningSandbox, SandboxConfig, run_in_thread
from devices.models import Link
from devices.vendors.registry import VENDORS
from tests.devices.conftest import app_of
from tests.webhooks.entry import served
from tests.webhooks.living import connect
from webhooks.management.commands.process_deliveries import process
from webhooks.models import Delivery
from webhooks.polling import file_reconciliations

DROPPED = 0.3
KINDS: dict[Vendor, tuple[str, ...]] = {
    "oura": ("sleep", "daily_readiness", "daily_activity", "daily_sleep"),
    "whoop": ("sleep", "recovery", "workout"),
}


@pytest.fixture
async def forgetful(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningSandbox]:
    """Vendors that send 70 % of their webhooks, over real HTTP, to a bridge that is served."""
    monkeypatch.setattr(settings, "ALLOWED_HOSTS", ["127.0.0.1"])
    for vendor in KINDS:
        monkeypatch.setattr(settings, f"{vendor.upper()}_RATE_LIMIT", "0")
    async with served() as port:
        config = SandboxConfig(
            oura=app_of("oura"),
            whoop=app_of("whoop"),
            bridge_url=f"http://127.0.0.1:{port}",
            pending_share=0,
            days=5,
        )
        with run_in_thread(config) as sandbox:
            for name, value in sandbox.settings.items():
                monkeypatch.setattr(settings, name, value)
            for vendor in KINDS:
                await asyncio.to_thread(sandbox.set_faults, vendor, drop_webhook=DROPPED)
            yield sandbox


def link_up(sandbox: RunningSandbox, users: list[str]) -> None:
    for vendor in KINDS:
        for user in users:
            connect(sandbox, vendor, user)
    Link.objects.update(connected_at=Now() - timedelta(days=2))


def everything(sandbox: RunningSandbox, users: list[str]) -> set[tuple[str, str, str]]:
    """Vendor, user and record of every document that has a sample in it, as the vendor names it."""
    return {
        (vendor, user, record)
        for vendor, kinds in KINDS.items()
        for kind in kinds
        for user in users
        for document in sandbox.documents(vendor, user, kind)
        for record in {sample.record for sample in VENDORS[vendor].normalise(kind, document).samples}
    }


def announce_all(sandbox: RunningSandbox, users: list[str]) -> list[str]:
    """What became of each webhook: taken by the bridge, or dropped on its way there."""
    for vendor, kinds in KINDS.items():
        for kind in kinds:
            for user in users:
                for document in sandbox.documents(vendor, user, kind):
                    record = str(document.get("sleep_id") if kind == "recovery" else document["id"])
                    sandbox.announce(vendor, user, kind, record, verb="update", wait=False)
    return [str(one["outcome"]) for one in sandbox.announcements(wait=True)]


def stored(users: list[str]) -> set[tuple[str, str, str]]:
    links = {link.pk: (link.vendor, link.vendor_user_id) for link in Link.objects.filter(vendor_user_id__in=users)}
    standing = Record.objects.filter(start_at__isnull=False).values_list("link_id", "record")
    return {(*links[link_id], record) for link_id, record in standing if not record.startswith("heartrate:")}


async def test_with_three_webhooks_in_ten_lost_every_document_ends_up_stored(forgetful: RunningSandbox) -> None:
    users = ["user_1", "user_2", "user_3"]
    await sync_to_async(link_up)(forgetful, users)
    expected = await asyncio.to_thread(everything, forgetful, users)
    outcomes = await asyncio.to_thread(announce_all, forgetful, users)
    assert {"dropped", "taken"} <= set(outcomes)
    await process(asyncio.Event(), until_idle=True)
    before = await sync_to_async(stored)(users)
    assert expected - before, "some were lost"
    await sync_to_async(file_reconciliations)()
    await process(asyncio.Event(), until_idle=True)
    assert expected - await sync_to_async(stored)(users) == set()
    found = await sync_to_async(Delivery.objects.filter(origin="reconcile", state="stored").count)()
    assert found > 0
