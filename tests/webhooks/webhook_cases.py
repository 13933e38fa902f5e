"""What every way in owes its vendor and us: subclass a contract, say how the vendor posts, and inherit the tests."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import ClassVar

import httpx
import pytest
from pytest_django import Settings

from tests.webhooks.entry import (
    ELSEWHERE,
    JSON,
    Json,
    compact,
    counted,
    in_sandbox,
    opened,
    promised,
    refused,
    rows,
    without,
)

MIB = 1024 * 1024
NOT_JSON = {
    "empty": b"",
    "words": b"event_type=sleep",
    "cut off": b'{"user_id": "user_7"',
    "followed by more": b'{"user_id": "user_7"} {}',
    "not UTF-8": b'{"user_id": "\xff"}',
    "UTF-16": '{"user_id": "user_7"}'.encode("utf-16"),
    "with NaN": b'{"user_id": NaN}',
    "with Infinity": b'{"user_id": "user_7", "value": Infinity}',
    "with minus Infinity": b'{"user_id": "user_7", "value": -Infinity}',
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"user_id":' * 90_000,
    "deep and well-formed": b'{"user_id": "user_7", "samples": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}
NOT_AN_OBJECT = [b"null", b"true", b"1", b'"user_7"', b"[]", b'[{"user_id": "user_7"}]']
NOT_A_TEXT: list[object] = [True, 1.5, [], ["user_7"], {}, {"id": "user_7"}]
UNUSABLE = {"NUL": "a\0b", "lone surrogate": "a\ud83d", "too long": "x" * 256}
# In the order in which they are refused, which is that of DESIGN section 9.
FAULTS = {"verb": 405, "size": 413, "type": 415, "proof": 401, "shape": 400, "right": 403, "room": 503}


class WebhookContract:
    """Whoever posts: routes, verbs, sizes, types, JSON, duplicates, and one problem at a time, in order."""

    vendor: ClassVar[str]
    limit: ClassVar[int] = MIB
    verbs: ClassVar[str] = "POST"
    # Members of the event that name something: short texts without which, or with nonsense in which, it is refused.
    needed: ClassVar[tuple[str, ...]]
    named: ClassVar[tuple[str, ...]]
    # The `FAULTS` there are for this vendor.
    faults: ClassVar[Sequence[str]] = [fault for fault in FAULTS if fault != "right"]

    def event(self) -> Json:
        """A right one that was never posted before."""
        raise NotImplementedError

    def proof(self, body: bytes) -> dict[str, str]:
        """The headers that show who posts `body`."""
        raise NotImplementedError

    def stored(self, event: Json) -> Json:
        """Columns of its row, by name."""
        raise NotImplementedError

    def not_ours(self) -> Json:
        """A right one about somebody whom this poster has no right to speak for."""
        raise NotImplementedError

    @pytest.fixture
    async def web(self, database: str, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
        """The web process outside the sandbox."""
        in_sandbox(settings, on=False)
        async with opened() as posting:
            yield posting

    @property
    def path(self) -> str:
        return f"/webhooks/{self.vendor}"

    async def post(
        self, web: httpx.AsyncClient, event: Json | bytes, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Post with the right headers, or with these instead."""
        body = event if isinstance(event, bytes) else compact(event)
        return await web.post(self.path, content=body, headers=JSON | self.proof(body) if headers is None else headers)

    async def test_it_is_stored_byte_for_byte_before_it_is_answered(self, web: httpx.AsyncClient) -> None:
        event = self.event()
        body = b" " + compact(event).replace(b",", b" ,\n")
        promise = promised(await self.post(web, body))
        assert promise["duplicate"] is False
        [row] = rows()
        assert {"id": row["id"], "vendor": row["vendor"], "body": bytes(row["body"])} == {
            "id": promise["delivery"],
            "vendor": self.vendor,
            "body": body,
        }
        assert {name: row[name] for name in self.stored(event)} == self.stored(event)
        assert (row["state"], row["origin"], row["attempts"], row["lease_token"]) == ("received", "webhook", 0, None)
        assert abs(row["received_at"] - datetime.now(UTC)) < timedelta(minutes=1)

    async def test_a_repeat_is_answered_with_the_first_delivery(self, web: httpx.AsyncClient) -> None:
        event = self.event()
        first = promised(await self.post(web, event))
        assert promised(await self.post(web, event)) == first | {"duplicate": True}
        assert promised(await self.post(web, event)) == first | {"duplicate": True}
        assert len(rows()) == 1

    async def test_of_many_at_the_same_moment_one_is_the_first(self, web: httpx.AsyncClient) -> None:
        event, other = self.event(), self.event()
        answers = await asyncio.gather(*(self.post(web, event if n % 2 else other) for n in range(20)))
        promises = [promised(answer) for answer in answers]
        assert sorted(row["id"] for row in rows()) == sorted({promise["delivery"] for promise in promises})
        assert [promise["duplicate"] for promise in promises].count(False) == 2

    async def test_another_event_is_another_delivery(self, web: httpx.AsyncClient) -> None:
        first, second = promised(await self.post(web, self.event())), promised(await self.post(web, self.event()))
        assert first["delivery"] != second["delivery"]
        assert not second["duplicate"]

    async def test_there_are_three_vendors(self, web: httpx.AsyncClient) -> None:
        body = compact(self.event())
        for path in (
            "/webhooks/fitbit",
            "/webhooks/",
            f"{self.path}/",
            f"{self.path}/events",
            f"/webhooks/{self.vendor.title()}",
        ):
            answer = await web.post(path, content=body, headers=JSON | self.proof(body))
            refused(answer, 404, "unknown-vendor")
        assert rows() == []

    async def test_only_the_right_verb_is_taken(self, web: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
        body = compact(self.event())
        for verb in ("PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"):
            with subtests.test(verb):
                answer = await web.request(verb, self.path, content=body, headers=JSON | self.proof(body))
                assert (answer.status_code, answer.headers["allow"]) == (405, self.verbs)
                if verb != "HEAD":  # whose answer has no body
                    refused(answer, 405, "wrong-method")
        assert rows() == []

    async def test_a_body_up_to_the_limit_is_taken(self, web: httpx.AsyncClient) -> None:
        promised(await self.post(web, compact(self.event()).ljust(self.limit)))

    async def test_an_announced_size_over_the_limit_is_refused_unread(self, web: httpx.AsyncClient) -> None:
        body = compact(self.event())
        headers = JSON | self.proof(body) | {"content-length": str(self.limit + 1)}
        refused(await self.post(web, body, headers), 413, "too-large")

    async def test_a_body_that_outgrows_the_limit_is_refused_while_it_is_read(self, web: httpx.AsyncClient) -> None:
        read = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal read
            while True:
                read += 64 * 1024
                yield b" " * (64 * 1024)

        answer = await web.post(self.path, content=endless(), headers=JSON | self.proof(b""))
        refused(answer, 413, "too-large")
        assert read <= self.limit + 128 * 1024

    async def test_a_body_in_pieces_without_a_length_is_taken(self, web: httpx.AsyncClient) -> None:
        body = compact(self.event())

        async def pieces() -> AsyncIterator[bytes]:
            for byte in body:
                yield bytes([byte])

        promised(await web.post(self.path, content=pieces(), headers=JSON | self.proof(body)))
        assert bytes(rows()[0]["body"]) == body

    async def test_another_type_is_refused(self, web: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
        body = compact(self.event())
        for media_type in ("", "text/plain", "application/x-www-form-urlencoded", "text/json", "application/jsonx"):
            with subtests.test(media_type):
                answer = await self.post(web, body, {"content-type": media_type} | self.proof(body))
                refused(answer, 415, "wrong-type")
        assert rows() == []

    async def test_a_missing_type_is_refused(self, web: httpx.AsyncClient) -> None:
        body = compact(self.event())
        refused(await self.post(web, body, self.proof(body)), 415, "wrong-type")

    async def test_case_and_parameters_of_the_type_do_not_count(
        self, web: httpx.AsyncClient, subtests: pytest.Subtests
    ) -> None:
        for media_type in ("application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8;v=1"):
            with subtests.test(media_type):
                body = compact(self.event())
                promised(await self.post(web, body, {"content-type": media_type} | self.proof(body)))

    async def test_an_encoded_body_is_refused(self, web: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
        body = compact(self.event())
        for encoding in ("gzip", "identity", ""):
            with subtests.test(encoding):
                headers = JSON | self.proof(body) | {"content-encoding": encoding}
                refused(await self.post(web, body, headers), 415, "wrong-type")

    async def test_what_is_not_json_is_refused(self, web: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
        for name, body in NOT_JSON.items():
            with subtests.test(name):
                refused(await self.post(web, body), 400, "bad-body")
        assert rows() == []

    async def test_json_that_is_not_an_object_is_refused(
        self, web: httpx.AsyncClient, subtests: pytest.Subtests
    ) -> None:
        for body in NOT_AN_OBJECT:
            with subtests.test(body.decode()):
                refused(await self.post(web, body), 400, "bad-body")
        assert rows() == []

    async def test_an_event_without_what_it_needs_is_refused(self, web: httpx.AsyncClient) -> None:
        for name in self.needed:
            for event in ({**self.event(), name: None}, {**self.event(), name: ""}, without(self.event(), name)):
                refused(await self.post(web, event), 400, "bad-body")
        assert rows() == []

    async def test_a_name_of_another_type_is_refused(self, web: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
        for name, value in product(self.named, NOT_A_TEXT):
            with subtests.test(f"{name}: {value}"):
                refused(await self.post(web, {**self.event(), name: value}), 400, "bad-body")
        assert rows() == []

    async def test_a_name_that_cannot_be_stored_is_refused(
        self, web: httpx.AsyncClient, subtests: pytest.Subtests
    ) -> None:
        for name, (what, text) in product(self.named, UNUSABLE.items()):
            with subtests.test(f"{name}: {what}"):
                refused(await self.post(web, {**self.event(), name: text}), 400, "bad-body")
        assert rows() == []

    async def test_of_several_faults_the_first_in_order_is_named(self, database: str, settings: Settings) -> None:
        in_sandbox(settings, on=False)
        settings.MAX_QUEUED_WEBHOOKS = 0
        faults = self.faults
        async with opened() as full:
            for place, fault in enumerate(faults):
                refused(await self.post_with(full, faults[place:]), FAULTS[fault])
        assert rows() == []

    async def post_with(self, web: httpx.AsyncClient, faults: Sequence[str]) -> httpx.Response:
        body = b"[]" if "shape" in faults else compact(self.not_ours() if "right" in faults else self.event())
        if "size" in faults:
            body = body.ljust(self.limit + 1)
        headers = {"content-type": "text/plain" if "type" in faults else "application/json"}
        if "proof" not in faults:
            headers |= self.proof(body)
        return await web.request("PUT" if "verb" in faults else "POST", self.path, content=body, headers=headers)

    async def test_too_large_and_the_wrong_type_are_said_before_busy(self, database: str, settings: Settings) -> None:
        in_sandbox(settings, on=False)
        settings.MAX_QUEUED_BYTES = 1
        body = compact(self.event())
        proof = self.proof(body)
        async with opened() as busy:
            huge = JSON | proof | {"content-length": str(self.limit + 1)}
            refused(await self.post(busy, body, huge), 413, "too-large")
            refused(await self.post(busy, body, {"content-type": "text/plain"} | proof), 415, "wrong-type")
            answer = await self.post(busy, body, JSON | proof)
        refused(answer, 503, "busy")
        assert int(answer.headers["retry-after"]) > 0

    async def test_what_is_unproven_is_counted_and_not_stored(self, web: httpx.AsyncClient) -> None:
        labels = {"vendor": self.vendor, "problem": "unauthorised"}
        before = counted("auren_webhooks_refused_total", **labels)
        refused(await self.post(web, self.event(), JSON), 401, "unauthorised")
        assert counted("auren_webhooks_refused_total", **labels) == before + 1
        assert rows() == []

    async def test_answers_are_counted_by_the_time_metrics_are_read(self, web: httpx.AsyncClient) -> None:
        labels = {"vendor": self.vendor, "status": "202"}
        before = counted("auren_webhooks_answered_total", **labels)
        promised(await self.post(web, self.event()))
        await web.get("/metrics")
        assert counted("auren_webhooks_answered_total", **labels) == before + 1

    async def test_nothing_is_ever_gone(self, web: httpx.AsyncClient) -> None:
        # 410 makes Oura cancel the subscription.
        for path in (self.path, "/webhooks/gone"):
            for verb in ("GET", "HEAD", "POST", "DELETE"):
                assert (await web.request(verb, path)).status_code != 410

    async def test_a_full_line_says_when_to_come_again(self, database: str, settings: Settings) -> None:
        in_sandbox(settings, on=False)
        settings.MAX_QUEUED_WEBHOOKS = 0
        async with opened() as full:
            answer = await self.post(full, self.event())
        refused(answer, 503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0


class SignedContract(WebhookContract):
    """Vendors that sign: what is not signed, with our secret, lately, is nobody's."""

    secret_setting: ClassVar[str]
    signature_header: ClassVar[str]
    timestamp_header: ClassVar[str]
    ticks: ClassVar[int]  # of the timestamp, in a second
    unsigned: ClassVar[Json]  # as the load script of the replaced system posts it

    def sign(self, body: bytes, *, secret: str = "", at: float | None = None, timestamp: str = "") -> dict[str, str]:
        raise NotImplementedError

    def another_vendors(self, body: bytes) -> dict[str, str]:
        """The same body, signed as the other vendor signs it, with this vendor's secret."""
        raise NotImplementedError

    def proof(self, body: bytes) -> dict[str, str]:
        return self.sign(body)

    def timestamp(self, at: float | None) -> str:
        return str(int((time.time() if at is None else at) * self.ticks))

    @pytest.fixture(autouse=True)
    def two_secrets(self, settings: Settings) -> None:
        setattr(settings, self.secret_setting, ("the-newer-secret", "the-older-secret"))

    async def refuses(self, web: httpx.AsyncClient, body: bytes, headers: Mapping[str, str]) -> str:
        answer = await self.post(web, body, JSON | dict(headers))
        detail = refused(answer, 401, "unauthorised")["detail"]
        assert answer.headers["www-authenticate"]
        assert rows() == []
        return str(detail)

    async def test_an_unsigned_one_is_refused(self, web: httpx.AsyncClient) -> None:
        await self.refuses(web, compact(self.event()), {})

    @pytest.mark.parametrize("stripped", ["signature_header", "timestamp_header"])
    @pytest.mark.parametrize("emptied", [False, True])
    async def test_half_a_signature_is_refused(self, web: httpx.AsyncClient, stripped: str, emptied: bool) -> None:
        body, name = compact(self.event()), getattr(self, stripped)
        await self.refuses(web, body, without(self.sign(body), name) | ({name: ""} if emptied else {}))

    async def test_a_signature_by_nobody_we_know_is_refused(self, web: httpx.AsyncClient) -> None:
        body = compact(self.event())
        await self.refuses(web, body, self.sign(body, secret="somebody-elses-secret"))

    async def test_a_signature_for_another_body_is_refused(self, web: httpx.AsyncClient) -> None:
        body = compact(self.event())
        await self.refuses(web, body + b" ", self.sign(body))
        await self.refuses(web, body.replace(b"user", b"usar", 1), self.sign(body))
        await self.refuses(web, b"", self.sign(body))

    async def test_a_signature_moved_to_another_time_is_refused(self, web: httpx.AsyncClient) -> None:
        body = compact(self.event())
        moved = self.sign(body, at=time.time() - 60) | {self.timestamp_header: self.timestamp(None)}
        await self.refuses(web, body, moved)

    async def test_a_stale_signature_is_refused(self, web: httpx.AsyncClient) -> None:
        body = compact(self.event())
        assert "older" in await self.refuses(web, body, self.sign(body, at=time.time() - 7_202))
        assert "older" in await self.refuses(web, body, self.sign(body, timestamp="0"))

    async def test_a_signature_from_the_future_is_refused(self, web: httpx.AsyncClient) -> None:
        body = compact(self.event())
        assert "ahead" in await self.refuses(web, body, self.sign(body, at=time.time() + 360))

    async def test_a_retry_an_hour_later_and_a_clock_a_little_ahead_are_taken(self, web: httpx.AsyncClient) -> None:
        for age in (3_600, 7_100, -240):
            body = compact(self.event())
            promised(await self.post(web, body, JSON | self.sign(body, at=time.time() - age)))

    async def test_a_timestamp_that_is_no_number_is_refused(
        self, web: httpx.AsyncClient, subtests: pytest.Subtests
    ) -> None:
        body = compact(self.event())
        for timestamp in ("now", "1e9", "-1", "+1", "1.5", "0x10", "\u0661", " ", "9" * 400):
            with subtests.test(timestamp):
                headers = in_utf8(JSON | self.sign(body, timestamp=timestamp))
                refused(await web.post(self.path, content=body, headers=headers), 401, "unauthorised")

    async def test_a_signature_that_is_none_is_refused(self, web: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
        body = compact(self.event())
        for signature in ("0", "=", "\u00e4" * 32, "null", "A" * 10_000):
            with subtests.test(signature):
                headers = in_utf8(JSON | self.sign(body) | {self.signature_header: signature})
                refused(await web.post(self.path, content=body, headers=headers), 401, "unauthorised")

    async def test_another_vendors_signature_is_refused(self, web: httpx.AsyncClient) -> None:
        body = compact(self.event())
        theirs = self.another_vendors(body)
        await self.refuses(web, body, theirs)
        signature, timestamp = theirs.values()
        renamed = {str(self.signature_header): signature, str(self.timestamp_header): timestamp}
        await self.refuses(web, body, renamed)

    async def test_of_two_secrets_either_is_taken(self, web: httpx.AsyncClient) -> None:
        for secret in ("the-newer-secret", "the-older-secret"):
            body = compact(self.event())
            promised(await self.post(web, body, JSON | self.sign(body, secret=secret)))

    async def test_after_rotation_the_old_secret_is_refused(self, database: str, settings: Settings) -> None:
        in_sandbox(settings, on=False)
        setattr(settings, self.secret_setting, ("the-newer-secret",))
        async with opened() as rotated:
            body = compact(self.event())
            await self.refuses(rotated, body, self.sign(body, secret="the-older-secret"))
            promised(await self.post(rotated, body, JSON | self.sign(body, secret="the-newer-secret")))

    async def test_without_a_secret_of_ours_nothing_is_right(self, database: str, settings: Settings) -> None:
        in_sandbox(settings)  # elsewhere it does not even start
        body = compact(self.event())
        for none in ((), ("",)):
            setattr(settings, self.secret_setting, none)
            async with opened(ELSEWHERE) as secretless:
                await self.refuses(secretless, body, self.sign(body, secret=""))

    async def test_nothing_is_read_before_it_is_verified(self, web: httpx.AsyncClient) -> None:
        await self.refuses(web, b"not json", self.sign(b"another body"))

    async def test_the_load_scripts_body_is_taken_in_the_sandbox_only(
        self, web: httpx.AsyncClient, settings: Settings
    ) -> None:
        body = compact(self.unsigned)
        await self.refuses(web, body, {})
        in_sandbox(settings)
        for peer in ("127.0.0.1", "127.8.8.8", "::1"):
            async with opened(peer) as sandbox:
                promised(await self.post(sandbox, body, JSON))
        assert {row["vendor_user_id"] for row in rows()} == {"user_7"}

    async def test_the_sandbox_takes_unsigned_ones_from_this_machine_only(
        self, database: str, settings: Settings
    ) -> None:
        in_sandbox(settings)
        async with opened(ELSEWHERE) as elsewhere:
            await self.refuses(elsewhere, compact(self.unsigned), {})
            promised(await self.post(elsewhere, self.event()))

    async def test_a_signature_in_the_sandbox_must_be_right(self, database: str, settings: Settings) -> None:
        in_sandbox(settings)
        body = compact(self.unsigned)
        signed = self.sign(body)
        async with opened() as sandbox:
            await self.refuses(sandbox, body, self.sign(body, secret="wrong"))
            await self.refuses(sandbox, body, signed | {self.signature_header: ""})
            await self.refuses(sandbox, body, without(signed, self.signature_header))
            await self.refuses(sandbox, body, without(signed, self.timestamp_header))
            promised(await self.post(sandbox, body, JSON | signed))


def fresh() -> str:
    return str(uuid.uuid4())


def in_utf8(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    """Header values beyond latin-1, as a careless client would send them."""
    return {name.encode(): value.encode() for name, value in headers.items()}
