"""Whatever can be clicked can be reached by Tab, and one sees where one is."""

import pytest
from playwright.sync_api import Page

from tests.browser.bridge import Bridge
from tests.browser.looking import script, settled


def walk(page: Page) -> tuple[list[str], list[str]]:
    """Controls that Tab never reached, and those where one would not see it."""
    controls = page.evaluate(script("controls"))
    unreached, unseen = dict(controls), {}
    for _ in range(len(controls) * 2 + 20):
        page.keyboard.press("Tab")
        control, outlined = page.evaluate(script("focused"))
        said = unreached.pop(control, None)
        if said and not outlined:
            unseen[control] = said
        if not unreached:
            break
    return list(unreached.values()), list(unseen.values())


@pytest.mark.parametrize("path", ["", "calendar/", "export/"])
def test_clinicians_reach_every_control_by_tab(clinician: Page, bridge: Bridge, path: str) -> None:
    clinician.goto(f"/patients/{bridge.patient('user_1')}/{path}")
    settled(clinician)
    assert walk(clinician) == ([], [])


@pytest.mark.parametrize("path", ["", "webhooks/replay/", "biometrics/sample/", "devices/invitation/add/"])
def test_support_reaches_every_control_by_tab(support: Page, path: str) -> None:
    support.goto(f"/admin/{path}")
    assert walk(support) == ([], [])
