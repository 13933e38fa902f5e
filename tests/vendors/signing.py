"""What both signed vendors' verifiers owe us, as one contract: subclass it and say how the vendor signs."""

from collections.abc import Mapping
from typing import ClassVar

import pytest

from devices.vendors.signature import TimestampSignedWebhook
from devices.vendors.webhook import Refused

NOW = 1_716_000_000.0
MAX_AGE = 7_200.0
BODY = b'{"user_id": "user_7",  "type": "sleep.updated"}'
SECRET = "a-client-secret-\u00e4"


class SigningContract:
    webhook: ClassVar[TimestampSignedWebhook]

    def sign(self, body: bytes, *, secret: str = SECRET, at: float = NOW, timestamp: str = "") -> dict[str, str]:
        raise NotImplementedError

    def verify(self, headers: Mapping[str, str], body: bytes = BODY, secrets: tuple[str, ...] = (SECRET,)) -> None:
        self.webhook.verify(headers, body, secrets=secrets, max_age=MAX_AGE, now=NOW)

    def refusal(self, headers: Mapping[str, str], body: bytes = BODY, secrets: tuple[str, ...] = (SECRET,)) -> str:
        with pytest.raises(Refused) as refused:
            self.verify(headers, body, secrets)
        assert (refused.value.status, refused.value.slug) == (401, "unauthorised")
        return refused.value.detail

    def test_a_right_signature_is_taken(self) -> None:
        self.verify(self.sign(BODY))

    def test_either_of_two_secrets_is_taken_while_they_rotate(self) -> None:
        self.verify(self.sign(BODY, secret="old"), secrets=("new", "old"))
        self.verify(self.sign(BODY, secret="new"), secrets=("new", "old"))

    def test_another_secret_is_refused(self) -> None:
        assert "does not match" in self.refusal(self.sign(BODY, secret="another"))

    @pytest.mark.parametrize("secrets", [(), ("",), ("", "")])
    def test_without_a_secret_of_ours_nothing_is_right(self, secrets: tuple[str, ...]) -> None:
        assert "does not match" in self.refusal(self.sign(BODY, secret=""), secrets=secrets)

    def test_a_body_changed_by_one_byte_is_refused(self) -> None:
        assert "does not match" in self.refusal(self.sign(BODY), BODY.replace(b"  ", b" "))

    def test_a_timestamp_changed_after_signing_is_refused(self) -> None:
        headers = self.sign(BODY, at=NOW - 60)
        headers[self.webhook.timestamp_header] = self.sign(BODY)[self.webhook.timestamp_header]
        assert "does not match" in self.refusal(headers)

    @pytest.mark.parametrize("stripped", [0, 1])
    @pytest.mark.parametrize("empty", [True, False])
    def test_a_missing_or_empty_header_is_refused(self, stripped: int, empty: bool) -> None:
        headers = self.sign(BODY)
        del headers[self.webhook.signature_headers[stripped]]
        if empty:
            headers[self.webhook.signature_headers[stripped]] = ""
        assert "are both required" in self.refusal(headers)
        assert not self.webhook.is_unsigned(headers)

    def test_only_a_request_without_any_signature_header_is_unsigned(self) -> None:
        assert self.webhook.is_unsigned({"content-type": "application/json"})

    @pytest.mark.parametrize(
        "timestamp",
        ["1716000000.0", "-1716000000", "+1716000000", " 1716000000", "1e9", "now", "\u0661\u0662", "9" * 5000],
    )
    def test_a_timestamp_that_is_no_plain_number_is_refused(self, timestamp: str) -> None:
        assert "must be a plain number" in self.refusal(self.sign(BODY, timestamp=timestamp))

    @pytest.mark.parametrize("signature", ["\u00e9" * 64, "\xff", "0" * 64, "====", "\udcff"])
    def test_a_signature_that_is_none_is_refused(self, signature: str) -> None:
        headers = self.sign(BODY) | {self.webhook.signature_header: signature}
        assert "does not match" in self.refusal(headers)

    @pytest.mark.parametrize("age", [0, 7_200, -300])
    def test_a_signature_is_fresh_for_two_hours_and_five_minutes_ahead(self, age: float) -> None:
        self.verify(self.sign(BODY, at=NOW - age))

    @pytest.mark.parametrize(("age", "why"), [(7_201, "older than 7200 s"), (-301, "300 s ahead"), (NOW, "older")])
    def test_a_stale_signature_is_refused(self, age: float, why: str) -> None:
        assert why in self.refusal(self.sign(BODY, at=NOW - age))
