"""`make screenshots`: the pictures of docs/screenshots.md, of both consoles with the sandbox's demo people."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from auren.embedded.server import BASE_DIR
from tests.browser.bridge import Bridge, running_bridge, until
from tests.browser.chromium import CHROMIUM, WITHOUT
from tests.browser.conftest import sign_in
from tests.browser.looking import settled
from tests.browser.test_support import die

FOLDER = BASE_DIR / "docs" / "screenshots"
PEOPLE = 12


class Picture(NamedTuple):
    name: str
    role: str
    address: str
    width: int = 1440
    height: int = 900
    dark: bool = False


def pictures(bridge: Bridge, dead: int) -> Iterator[Picture]:
    patient = f"/patients/{bridge.patient('user_1')}/"
    night = bridge.row(
        "SELECT to_char(max(end_at), 'YYYY-MM-DD') FROM biometrics_sample JOIN devices_patient p ON p.id = patient_id"
        " WHERE external_id = 'user_1' AND metric = %s",
        bridge.metric("sleep_duration"),
    )
    assert night
    yield Picture("patients", "clinician", "/")
    yield Picture("timeline", "clinician", patient, height=1300)
    yield Picture("timeline-dark", "clinician", f"{patient}?days=7", height=1300, dark=True)
    yield Picture("timeline-narrow", "clinician", f"{patient}?days=1", 390, 844)
    yield Picture("night", "clinician", f"{patient}nights/{night[0]}/", height=1100)
    yield Picture("calendar", "clinician", f"{patient}calendar/", height=1100)
    yield Picture("export", "clinician", f"{patient}export/")
    yield Picture("overview", "support", "/admin/")
    yield Picture("overview-dark", "support", "/admin/", dark=True)
    yield Picture("deliveries", "support", "/admin/webhooks/delivery/")
    yield Picture("delivery", "support", f"/admin/webhooks/delivery/{dead}/change/")
    yield Picture("links", "support", "/admin/devices/link/", 1024, 800)
    yield Picture("conflicts", "support", "/admin/biometrics/conflict/")


def take(page: Page, picture: Picture) -> None:
    page.set_viewport_size({"width": picture.width, "height": picture.height})
    page.emulate_media(color_scheme="dark" if picture.dark else "light", reduced_motion="reduce")
    page.goto(picture.address)
    settled(page)
    page.screenshot(path=FOLDER / f"{picture.name}.png", animations="disabled")
    print(f"docs/screenshots/{picture.name}.png")


@contextmanager
def bridge_of_demo_people() -> Iterator[Bridge]:
    var = Path(tempfile.mkdtemp(prefix="auren-screenshots-"))
    var.chmod(0o711)
    try:
        with running_bridge(var, PEOPLE) as bridge:
            yield bridge
    finally:
        shutil.rmtree(var)


def signed_in(browser: Browser, bridge: Bridge, role: str) -> BrowserContext:
    context = browser.new_context(base_url=bridge.http, locale="en-GB")
    sign_in(context.new_page(), role, bridge.logins[role])
    return context


def main() -> None:
    if not CHROMIUM:
        raise SystemExit(WITHOUT)
    FOLDER.mkdir(exist_ok=True)
    with bridge_of_demo_people() as bridge, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        people = {role: signed_in(browser, bridge, role).new_page() for role in ("clinician", "support")}
        dead = die(bridge)
        until(lambda: "dead: " in people["support"].goto("/admin/").text(), "the landing page counts it")  # type: ignore[union-attr]
        for picture in pictures(bridge, dead):
            take(people[picture.role], picture)
        browser.close()


if __name__ == "__main__":
    main()
