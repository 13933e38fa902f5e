import pytest
from django.conf import settings

from auren.sandbox.server import RunningSandbox
from tests.devices.conftest import running_sandbox, sandbox

__all__ = ["running_sandbox", "sandbox"]


@pytest.fixture
def vendors(sandbox: RunningSandbox, database: str, monkeypatch: pytest.MonkeyPatch) -> RunningSandbox:
    """Stand-in vendors, an empty database, and a bridge without Redis that nobody's rate limit slows down."""
    monkeypatch.setattr(settings, "REDIS_URL", "")
    monkeypatch.setattr(settings, "OURA_RATE_LIMIT", "0")
    monkeypatch.setattr(settings, "WHOOP_RATE_LIMIT", "0")
    return sandbox
