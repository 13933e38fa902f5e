import asyncio
import time
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.db.models.functions import Now
from pytest_django import Settings

from auren.biometrics.models import Sample
from devices.models import ApiKey, Patient
from tests.webhooks.entry import (
    JSON,
    Json,
    all_queued,
    come_again,
    compact,
    in_sandbox,
    locked,
    opened,
    promised,
    refused,
    rows,
    somebody,
    somebody_waits,
    taken_again,
)
from tests.webhooks.webhook_cases import FAULTS, MIB, WebhookContract, fresh
from tests.webhooks.wire import wire
from webhooks import keyring
from webhooks.management.commands.process_deliveries import process

KNOWN = ("user_7", "user_8", "user_9")
ENVELOPES: dict[str, Json] = {
    "plain": {"samples": [{"type": "heart_rate", "value": 61, "timestamp": "2026-11-24T08:00:00Z"}]},
    "Open Wearables": {"provider": "apple", "data": {"records": [], "sleep": [], "workouts": []}},
    "Health Auto Export": {"data": {"metrics": [{"name": "heart_rate", "units": "bpm", "data": []}]}},
    "only deletions": {"deleted": ["0b6f0f6e-5f7f-4f0a-9d5c-1f3f5a1f0001"]},
}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def issued(owner: str, *patients: str) -> str:
    return ApiKey.issue(owner, *Patient.objects.filter(external_id__in=patients))[1]


class WithKeys:
    """Three patients, and `self.key`, with which a clinic may post for the first two."""

    key: str

    @pytest.fixture(autouse=True)
    def a_clinics_key(self, database: str) -> None:
        Patient.objects.bulk_create(Patient(external_id=known, display_name=known) for known in KNOWN)
        self.key = issued("clinic", "user_7", "user_8")


class TestHealthKit(WithKeys, WebhookContract):
    vendor = "healthkit"
    limit = 16 * MIB
    needed = ("user_id",)
    named = ("user_id",)
    faults = list(FAULTS)

    def event(self) -> Json:
        sample = {"type": "heart_rate", "value": 61, "unit": "bpm", "timestamp": "2026-11-24T08:00:00Z"}
        return {"user_id": "user_7", "samples": [sample | {"uuid": fresh()}]}

    def not_ours(self) -> Json:
        return {**self.event(), "user_id": "user_9"}

    def stored(self, event: Json) -> Json:
        return {
            "event_type": "batch.posted",
            "vendor_user_id": "user_7",
            "object_id": "",
            "event_time": None,
            "headers": None,
        }

    def proof(self, body: bytes) -> dict[str, str]:
        return bearer(self.key)

    def with_key(self, key: str = "", **headers: str) -> dict[str, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return JSON | bearer(key or self.key) | named

    # Keys

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"authorization": ""},
            {"authorization": "Bearer"},
            {"authorization": "Basic dXNlcjpwYXNz"},
            {"x-api-key": ""},
            {"x-api-key": "x" * 256},
            bearer("no-such-key"),
            bearer("test_api_key"),
        ],
        ids=repr,
    )
    async def test_a_key_that_is_missing_or_unknown_is_refused(
        self, web: httpx.AsyncClient, headers: dict[str, str]
    ) -> None:
        answer = await self.post(web, self.event(), JSON | headers)
        refused(answer, 401, "unauthorised")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert rows() == []

    async def test_a_key_in_its_own_header_is_as_good(self, web: httpx.AsyncClient) -> None:
        promised(await self.post(web, self.event(), JSON | {"x-api-key": self.key}))

    async def test_a_revoked_key_is_refused_within_five_seconds(
        self, web: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        promised(await self.post(web, self.event()))
        await sync_to_async(ApiKey.objects.update)(revoked_at=Now())
        promised(await self.post(web, self.event()))  # it is remembered
        assert keyring.FRESH_FOR <= 5
        monkeypatch.setattr(keyring, "FRESH_FOR", 0)
        refused(await self.post(web, self.event()), 401, "unauthorised")

    async def test_the_use_of_a_key_is_noted(self, web: httpx.AsyncClient) -> None:
        promised(await self.post(web, self.event()))
        key = await ApiKey.objects.aget()
        assert key.last_used_at is not None

    async def test_a_key_that_somebody_is_editing_still_posts(self, web: httpx.AsyncClient) -> None:
        async with somebody() as editing, editing.transaction():
            await editing.execute("SELECT * FROM devices_apikey FOR UPDATE")
            promised(await self.post(web, self.event()))

    # Whose batch

    @pytest.mark.parametrize(
        ("key_for", "named", "header", "status"),
        [
            (["user_7"], "", "", "user_7"),
            (["user_7"], "", "user_7", "user_7"),
            (["user_7"], "user_7", "", "user_7"),
            (["user_7"], "user_8", "", 403),
            (["user_7"], "", "user_8", 403),
            (["user_7", "user_8"], "", "user_8", "user_8"),
            (["user_7", "user_8"], "", "", 400),
            (["user_7", "user_8"], "user_7", "user_8", 400),
            (["user_7", "user_8"], "user_9", "", 403),
            (["user_7", "user_8"], "user_404", "", 403),
            ([], "user_7", "", 403),
            ([], "", "", 400),
            (["user_7"], "x" * 256, "", 400),
            (["user_7"], "", "x" * 256, 400),
        ],
    )
    async def test_a_key_posts_for_its_patients_only(
        self, web: httpx.AsyncClient, key_for: list[str], named: str, header: str, status: int | str
    ) -> None:
        key = await sync_to_async(issued)("phone", *key_for)
        event: Json = {"samples": []} | ({"user_id": named} if named else {})
        headers = self.with_key(key, **({"x_user_id": header} if header else {}))
        answer = await self.post(web, event, headers)
        if isinstance(status, int):
            refused(answer, status, {400: "bad-body", 403: "forbidden"}[status])
            assert rows() == []
        else:
            promised(answer)
            assert [row["vendor_user_id"] for row in rows()] == [status]

    # What repeats what

    async def test_the_same_body_for_another_patient_is_another_delivery(self, web: httpx.AsyncClient) -> None:
        body = compact({"samples": []})
        promises = [
            promised(await self.post(web, body, self.with_key(x_user_id=user))) for user in ("user_7", "user_8")
        ]
        assert [promise["duplicate"] for promise in promises] == [False, False]

    async def test_an_idempotency_key_tells_batches_of_one_body_apart(self, web: httpx.AsyncClient) -> None:
        event = self.event()
        first = promised(await self.post(web, event, self.with_key(idempotency_key="a")))
        assert not promised(await self.post(web, event, self.with_key(idempotency_key="b")))["duplicate"]
        again = promised(await self.post(web, event, self.with_key(idempotency_key="a")))
        assert again == first | {"duplicate": True}

    async def test_an_idempotency_key_used_before_with_another_body_is_refused(self, web: httpx.AsyncClient) -> None:
        headers = self.with_key(idempotency_key="batch-1")
        first = self.event()
        promise = promised(await self.post(web, first, headers))
        refused(await self.post(web, self.event(), headers), 422, "key-reused")
        assert promised(await self.post(web, first, headers)) == promise | {"duplicate": True}
        assert [bytes(row["body"]) for row in rows()] == [compact(first)]

    async def test_an_idempotency_key_used_before_for_another_patient_is_refused(self, web: httpx.AsyncClient) -> None:
        body = compact({"samples": []})
        seven, eight = (self.with_key(idempotency_key="batch-1", x_user_id=user) for user in ("user_7", "user_8"))
        promise = promised(await self.post(web, body, seven))
        refused(await self.post(web, body, eight), 422, "key-reused")
        assert promised(await self.post(web, body, seven)) == promise | {"duplicate": True}
        assert [row["vendor_user_id"] for row in rows()] == ["user_7"]

    async def test_of_a_body_that_is_no_longer_kept_a_repeat_is_still_known(self, web: httpx.AsyncClient) -> None:
        headers, event = self.with_key(idempotency_key="batch-1"), self.event()
        promise = promised(await self.post(web, event, headers))
        async with somebody() as retention:
            await retention.execute("UPDATE webhooks_delivery SET body = NULL")
        assert promised(await self.post(web, event, headers)) == promise | {"duplicate": True}

    async def test_two_bodies_under_one_idempotency_key_in_one_commit_are_a_duplicate_and_a_mistake(
        self, database: str, settings: Settings
    ) -> None:
        in_sandbox(settings, on=False)
        headers = self.with_key(idempotency_key="batch-1")
        event = self.event()
        async with opened() as web:
            promised(await self.post(web, self.event()))  # the key is remembered
            async with asyncio.TaskGroup() as posting, locked() as holder:
                ahead = posting.create_task(self.post(web, self.event()))
                await somebody_waits(holder)
                behind = [posting.create_task(self.post(web, body, headers)) for body in (event, event, self.event())]
                await all_queued(web, 4)
            promised(ahead.result())
            first, second, third = (task.result() for task in behind)
        promise = promised(first)
        assert promise["duplicate"] is False
        assert promised(second) == promise | {"duplicate": True}
        refused(third, 422, "key-reused")

    async def test_an_idempotency_key_is_its_owners_own(self, web: httpx.AsyncClient) -> None:
        event = self.event()
        changed = await sync_to_async(issued)("clinic", "user_7")
        another = await sync_to_async(issued)("another clinic", "user_7")
        first = promised(await self.post(web, event, self.with_key(idempotency_key="batch-1")))
        again = promised(await self.post(web, event, self.with_key(changed, idempotency_key="batch-1")))
        assert again == first | {"duplicate": True}
        other = promised(await self.post(web, event, self.with_key(another, idempotency_key="batch-1")))
        assert not other["duplicate"]

    @pytest.mark.parametrize("header", ["Idempotency-Key", "automation-aggregation"])
    @pytest.mark.parametrize("value", ["x" * 256, "a\0b"])
    async def test_a_header_that_cannot_be_stored_is_refused(
        self, web: httpx.AsyncClient, header: str, value: str
    ) -> None:
        assert header in refused(await self.post(web, self.event(), self.with_key() | {header: value}), 400)["detail"]
        assert rows() == []

    async def test_the_period_of_aggregation_is_kept_for_the_worker(self, web: httpx.AsyncClient) -> None:
        promised(await self.post(web, self.event(), self.with_key(automation_aggregation=" Hours ")))
        assert rows()[0]["headers"] == {"automation_aggregation": "Hours"}

    # What a batch may look like

    @pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES)
    async def test_every_envelope_is_taken(self, web: httpx.AsyncClient, envelope: Json) -> None:
        promised(await self.post(web, envelope, self.with_key(x_user_id="user_8")))
        assert [(row["vendor_user_id"], bytes(row["body"])) for row in rows()] == [("user_8", compact(envelope))]

    @pytest.mark.parametrize(
        "members", [{}, {"samples": None}, {"samples": {}}, {"data": []}, {"deleted": "all"}, {"records": []}], ids=repr
    )
    async def test_an_object_of_another_shape_is_refused(self, web: httpx.AsyncClient, members: Json) -> None:
        assert '"samples"' in refused(await self.post(web, {"user_id": "user_7"} | members), 400, "bad-body")["detail"]

    async def test_one_bad_sample_does_not_sink_its_batch(self, web: httpx.AsyncClient, settings: Settings) -> None:
        settings.REDIS_URL = ""
        good, other = self.event()["samples"][0], self.event()["samples"][0] | {"timestamp": "2026-11-24T08:05:00Z"}
        bad: list[Any] = [
            None,
            "heart_rate",
            good | {"value": 9_000},
            good | {"timestamp": "yesterday"},
            good | {"uuid": "a\0b"},
            good | {"source": "a\ud83d"},
        ]
        promised(await self.post(web, {"user_id": "user_7", "samples": [good, *bad, other]}))
        await process(asyncio.Event(), until_idle=True)
        assert await Sample.objects.acount() == 2
        [row] = rows()
        assert (row["state"], row["sample_count"], len(row["refused"])) == ("stored", 2, len(bad))


class TestSandboxKey(WithKeys):
    """`test_api_key` is in every demo's database, and public."""

    @pytest.fixture(autouse=True)
    def a_demo_that_was(self, a_clinics_key: None, settings: Settings) -> None:
        in_sandbox(settings)
        call_command("seed_demo", people=0, verbosity=0)

    async def post(self, user: str, key: str = "test_api_key", peer: str = "127.0.0.1") -> httpx.Response:
        async with opened(peer) as web:
            body = compact({"user_id": user, "samples": []})
            return await web.post("/webhooks/healthkit", content=body, headers=JSON | bearer(key))

    @pytest.mark.parametrize("user", ["user_7", "user_0", "user_20200"])
    async def test_it_posts_for_every_numbered_user_of_the_sandbox(self, user: str) -> None:
        promised(await self.post(user))
        assert rows()[-1]["vendor_user_id"] == user

    @pytest.mark.parametrize("user", ["alice", "user_", "user_x", "user_1x", "user_\u0661", "user_-1", "User_1", "7"])
    async def test_it_posts_for_nobody_else(self, user: str) -> None:
        refused(await self.post(user), 403, "forbidden")

    async def test_outside_the_sandbox_it_is_no_key(self, settings: Settings) -> None:
        in_sandbox(settings, on=False)
        refused(await self.post("user_7"), 401, "unauthorised")

    async def test_another_key_gains_nothing_in_the_sandbox(self) -> None:
        promised(await self.post("user_8", self.key))
        refused(await self.post("user_9", self.key), 403, "forbidden")


class TestKeyLookUp(WithKeys):
    """A key that cannot be looked up is not a wrong one: 401 would make a phone throw its key away."""

    @pytest.fixture(autouse=True)
    def outside_the_sandbox(self, settings: Settings) -> None:
        in_sandbox(settings, on=False)
        settings.COMMIT_TIMEOUT = 0.3

    async def post(self, web: httpx.AsyncClient, key: str = "") -> httpx.Response:
        body = compact({"user_id": "user_7", "samples": [fresh()]})
        return await web.post("/webhooks/healthkit", content=body, headers=JSON | bearer(key or self.key))

    async def test_a_look_up_that_takes_too_long_is_unavailable(self) -> None:
        async with opened() as web:
            async with locked("devices_apikey"):
                for answer in await asyncio.gather(self.post(web), self.post(web), self.post(web, "no-such-key")):
                    come_again(answer)
            await taken_again(lambda: self.post(web))
            refused(await self.post(web, "no-such-key"), 401, "unauthorised")

    async def test_a_key_looked_up_a_moment_ago_needs_no_look_up(self) -> None:
        async with opened() as web:
            promised(await self.post(web))
            async with locked("devices_apikey"):
                promised(await self.post(web))

    async def test_a_server_that_says_nothing_any_more_is_unavailable_in_under_a_second(
        self, settings: Settings
    ) -> None:
        async with wire() as postgresql:
            settings.DATABASE_URL = postgresql.address
            async with opened() as web:
                postgresql.fall_silent()
                asked_at = time.monotonic()
                for answer in await asyncio.gather(*(self.post(web) for _ in range(10))):
                    come_again(answer)
                assert time.monotonic() - asked_at < 1
                postgresql.mend()
                await taken_again(lambda: self.post(web))

    async def test_a_broken_connection_is_unavailable_and_soon_made_anew(self, settings: Settings) -> None:
        async with wire() as postgresql:
            settings.DATABASE_URL = postgresql.address
            async with opened() as web:
                postgresql.cut()
                come_again(await self.post(web))
                postgresql.mend()
                await taken_again(lambda: self.post(web))
