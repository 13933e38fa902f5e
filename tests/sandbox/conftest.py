from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest

from auren.sandbox.grants import Vendor
from auren.sandbox.server import RunningSandbox, SandboxConfig, run_in_thread
from tests.sandbox.receiver import Receiver

NOW = datetime(2026, 3, 20, 15, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def listening_bridge() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def shared_sandbox(listening_bridge: Receiver) -> Iterator[RunningSandbox]:
    config = SandboxConfig(
        clock=lambda: NOW, bridge_url=listening_bridge.url, retry_span_seconds=0, days=60, people=5, pending_share=0
    )
    with run_in_thread(config) as running:
        yield running


@pytest.fixture
def sandbox(shared_sandbox: RunningSandbox) -> RunningSandbox:
    """A sandbox whose clock stands at NOW, with nobody's grant in it."""
    shared_sandbox.reset()
    return shared_sandbox


@pytest.fixture
def bridge(listening_bridge: Receiver) -> Receiver:
    listening_bridge.clear()
    return listening_bridge


@pytest.fixture
def http(sandbox: RunningSandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.url, trust_env=False) as client:
        yield client


class Reader:
    """Someone who reads a vendor's API with a person's token."""

    def __init__(self, sandbox: RunningSandbox, http: httpx.Client, vendor: Vendor, user: str) -> None:
        self.http = http
        self.tokens = sandbox.grant(vendor, user)
        self.base = "/oura" if vendor == "oura" else "/whoop/developer"

    def get(self, path: str, **params: str | int) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tokens.access_token}"}
        return self.http.get(self.base + path, headers=headers, params=params)


@pytest.fixture
def oura(sandbox: RunningSandbox, http: httpx.Client) -> Reader:
    return Reader(sandbox, http, "oura", "user_1")


@pytest.fixture
def whoop(sandbox: RunningSandbox, http: httpx.Client) -> Reader:
    return Reader(sandbox, http, "whoop", "user_1")
