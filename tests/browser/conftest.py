"""One bridge and one Chromium for all tests of this folder, and pages that complain by themselves.

Both end with the last test here: Playwright keeps an event loop running that asynchronous tests could not stand.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.browser.bridge import Bridge, running_bridge
from tests.browser.chromium import CHROMIUM

HERE = Path(__file__).parent
PATIENCE_MS = 60_000
Role = Literal["support", "clinician", "admin"]


def pytest_itemcollected(item: pytest.Item) -> None:
    if "chromium" in getattr(item, "fixturenames", ()):
        item.add_marker("browser")


@pytest.hookimpl(trylast=True)  # after the order was shuffled
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Browser tests first and side by side, so that of several processes one runs them all, on one bridge."""
    items.sort(key=lambda item: HERE not in item.path.parents)
    browsing = [item for item in items if item.get_closest_marker("browser")]
    if not CHROMIUM:  # tests/conftest.py says so
        config.hook.pytest_deselected(items=browsing)
        items[:] = [item for item in items if item not in browsing]


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # Its own sandbox is not to be had by root, nor in most containers; it sees nothing but our own pages.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def bridge(chromium: Browser) -> Iterator[Bridge]:
    var = Path(tempfile.mkdtemp(prefix="auren-browser-"))
    var.chmod(0o711)  # PostgreSQL's user passes through
    try:
        with running_bridge(var) as running:
            yield running
    finally:
        shutil.rmtree(var)


class People:
    """Who is signed in: each once for all tests, with one set of cookies."""

    def __init__(self, chromium: Browser, bridge: Bridge) -> None:
        self.chromium = chromium
        self.bridge = bridge
        self.contexts: dict[Role, BrowserContext] = {}

    def page(self, role: Role) -> Page:
        """A new tab of theirs."""
        if role not in self.contexts:
            self.contexts[role] = self.stranger()
            sign_in(self.contexts[role].new_page(), role, self.bridge.logins[role])
        return self.contexts[role].new_page()

    def stranger(self, width: int = 1440, like: BrowserContext | None = None) -> BrowserContext:
        """A browser of its own: nobody's, or with the cookies of another one."""
        context = self.chromium.new_context(
            base_url=self.bridge.http,
            viewport={"width": width, "height": 900},
            storage_state=like.storage_state() if like else None,
        )
        context.set_default_timeout(PATIENCE_MS)
        return context


def sign_in(page: Page, role: str, password: str) -> None:
    page.goto("/sign-in/" if role == "clinician" else "/admin/login/?next=/admin/")
    page.locator("[name=username]").fill(role)
    page.locator("[name=password]").fill(password)
    page.keyboard.press("Enter")
    page.wait_for_url("/" if role == "clinician" else "/admin/")


@pytest.fixture(scope="package")
def people(chromium: Browser, bridge: Bridge) -> Iterator[People]:
    everybody = People(chromium, bridge)
    yield everybody
    for context in everybody.contexts.values():
        context.close()


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What the browser complained of: scripts, addresses, and whatever a policy forbade. There is nothing."""
    said: list[str] = []
    yield said
    assert said == []


def listen_to(page: Page, said: list[str]) -> Page:
    def heard(message: ConsoleMessage) -> None:
        if message.type == "error":
            said.append(f"{page.url}: {message.text}")

    page.on("console", heard)
    page.on("pageerror", lambda error: said.append(f"{page.url}: {error}"))
    return page


@pytest.fixture
def support(people: People, complaints: list[str]) -> Iterator[Page]:
    page = listen_to(people.page("support"), complaints)
    yield page
    page.close()


@pytest.fixture
def clinician(people: People, complaints: list[str]) -> Iterator[Page]:
    page = listen_to(people.page("clinician"), complaints)
    yield page
    page.close()
