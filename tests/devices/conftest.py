from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.utils import timezone
from psycopg_pool import AsyncConnectionPool

from auren.sandbox.grants import Vendor
from auren.sandbox.server import RunningSandbox, SandboxConfig, VendorConfig, run_in_thread
from devices.api import Clock, VendorApi
from devices.connection import Client, open_client
from devices.limits import RateLimit
from devices.models import Link, Patient
from devices.tokens import Pool, Tokens, store_grant

MakeLink = Callable[..., Awaitable[Link]]
MakeApi = Callable[..., VendorApi]


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    connecting: Pool = AsyncConnectionPool(
        database,
        min_size=1,
        max_size=4,
        open=False,
        kwargs={"autocommit": True},
        connection_class=psycopg.AsyncConnection,
    )
    async with connecting as pool:
        yield pool


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with open_client(connections=10) as client:
        yield client


@pytest.fixture
async def tokens(pool: Pool, client: Client) -> AsyncIterator[Tokens]:
    tokens = Tokens(pool, client)
    yield tokens
    await tokens.close(0)


def new_link(
    vendor: str = "whoop",
    *,
    access_token: str = "the-access-token",
    refresh_token: str = "the-refresh-token",
    expires_in: float = 3600,
    issued_by: str = "http://127.0.0.1:1/token",
    user: str = "user_1",
) -> Link:
    patient, _ = Patient.objects.get_or_create(external_id=user, display_name=user)
    link = Link.objects.create(patient=patient, vendor=vendor, vendor_user_id=user)
    if access_token:
        store_grant(
            link,
            access_token=access_token,
            refresh_token=refresh_token,
            expires_in=expires_in,
            issued_by=issued_by,
        )
    return link


@pytest.fixture
def make_link(database: str) -> MakeLink:
    """A link of a new patient, with a grant as `store_grant` keeps it unless `access_token` is empty."""
    return sync_to_async(new_link)


@pytest.fixture
async def make_api(tokens: Tokens) -> AsyncIterator[MakeApi]:
    """The API of a vendor whose address is in the settings, without limits unless given."""
    made: list[VendorApi] = []

    def make(vendor: str = "whoop", limit: RateLimit | None = None, clock: Clock = timezone.now) -> VendorApi:
        api = VendorApi(vendor, tokens, limit or RateLimit(vendor, [], None), clock)
        made.append(api)
        return api

    yield make
    for api in made:
        await api.close()


def app_of(vendor: Vendor) -> VendorConfig:
    name = vendor.upper()
    return VendorConfig(
        client_id=getattr(settings, f"{name}_CLIENT_ID"), client_secrets=getattr(settings, f"{name}_CLIENT_SECRETS")
    )


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[RunningSandbox]:
    # Everything is scored, whatever the day and whoever the person.
    config = SandboxConfig(oura=app_of("oura"), whoop=app_of("whoop"), pending_share=0, unscorable_share=0)
    with run_in_thread(config) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running_sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> RunningSandbox:
    """Stand-in vendors over HTTP, which the settings point to."""
    running_sandbox.reset()
    for name, value in running_sandbox.settings.items():
        monkeypatch.setattr(settings, name, value)
    return running_sandbox


@pytest.fixture
def connect(sandbox: RunningSandbox, make_link: MakeLink) -> MakeLink:
    """A link of `user` whose grant the stand-in vendor gave; `expires_in` is the token's life as we believe it."""

    async def connected(vendor: Vendor, *, user: str = "user_1", expires_in: float = 3600) -> Link:
        granted = sandbox.grant(vendor, user)
        return await make_link(
            vendor,
            user=user,
            access_token=granted.access_token,
            refresh_token=granted.refresh_token,
            expires_in=expires_in,
            issued_by=sandbox.settings[f"{vendor.upper()}_TOKEN_URL"],
        )

    return connected
