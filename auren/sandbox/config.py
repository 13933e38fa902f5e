"""What a sandbox is made of; everything that differs between demo, tests and load."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorConfig:
    """One vendor's part. The first of `client_secrets` signs webhooks; any of them opens the token address."""

    client_id: str
    client_secrets: tuple[str, ...]
    rate_limit: str = ""
    latency_ms: float = 0
    access_token_seconds: int = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    """`state` is a folder, or `:memory:`. `clock` answers aware times. `days` of history exist at the first start.

    `retry_span_seconds` is the time over which a failed webhook's retries are spread. With `trickle_seconds`, and a
    `bridge_url` to post to, `people` live on: their vendors announce, their phones post.
    """

    oura: VendorConfig = field(
        default_factory=lambda: VendorConfig(
            client_id="sandbox-oura", client_secrets=("sandbox-oura-secret",), access_token_seconds=86_400
        )
    )
    whoop: VendorConfig = field(
        default_factory=lambda: VendorConfig(client_id="sandbox-whoop", client_secrets=("sandbox-whoop-secret",))
    )
    state: str = ":memory:"
    seed: int = 0
    days: int = 30
    clock: Callable[[], datetime] = utc_now
    pending_share: float = 0.25
    pending_minutes: float = 40
    unscorable_share: float = 0.02
    bridge_url: str = ""
    retry_span_seconds: float = 3600
    people: int = 0
    trickle_seconds: float = 0
    api_key: str = "test_api_key"
