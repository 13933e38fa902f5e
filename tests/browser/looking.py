"""What is looked at on any page: whether everybody can use it, on any screen."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

WIDTHS = (1440, 1024, 390)
HEIGHT = 900
# https://www.w3.org/TR/WCAG22/, levels A and AA, as axe names them.
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
AXE = Axe()
HERE = Path(__file__).parent
GRAVE = {"serious", "critical"}
ADDRESSES = "() => [...document.querySelectorAll('a[href]:not([download])')].map((one) => one.href)"
# After a change of width charts follow in one of the next frames.
OVERHANG = """async () => {
  const until = performance.now() + 5000;
  let over;
  do {
    await new Promise(requestAnimationFrame);
    over = document.documentElement.scrollWidth - window.innerWidth;
  } while (over > 0 && performance.now() < until);
  return over;
}"""
THEME = "dark => document.documentElement.classList.toggle('dark', dark)"
HISTORY = "/history/"
NUMBER = re.compile(r"\d[\d-]*")


def script(name: str) -> str:
    """A function to evaluate in a page: `<name>.js` of this folder."""
    return (HERE / f"{name}.js").read_text()


def barriers(page: Page, *rules: str) -> list[str]:
    """What axe calls serious or critical of WCAG 2, levels A and AA, or of these rules alone: the rule, and where."""
    only = {"type": "rule", "values": rules} if rules else {"type": "tag", "values": STANDARDS}
    found = AXE.run(page, options={"runOnly": only, "resultTypes": ["violations"]})
    return [line for rule in found.response["violations"] if rule["impact"] in GRAVE for line in _said(rule)]


def _said(rule: dict[str, Any]) -> Iterator[str]:
    for node in rule["nodes"]:
        summary = " ".join(node["failureSummary"].split())
        yield f"{rule['id']}: {node['target']} {node['html'][:160]} {summary[:300]}"


def too_wide(page: Page) -> list[str]:
    """The widths at which the page can be pushed sideways, and by how much."""
    found = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        if (over := page.evaluate(OVERHANG)) > 0:
            found.append(f"{over} px too wide at {width} px")
    page.set_viewport_size({"width": WIDTHS[0], "height": HEIGHT})
    return found


def settled(page: Page) -> None:
    """Charts, where the page has any, are drawn."""
    if page.locator("#timeline").count():
        page.locator("#updated", has_text="Loaded").wait_for()


def addresses(page: Page) -> list[str]:
    """Where the page's links lead, within the bridge."""
    home = urlsplit(page.url).netloc
    parts = [urlsplit(found) for found in page.evaluate(ADDRESSES)]
    return [f"{one.path}?{one.query}" if one.query else one.path for one in parts if one.netloc == home]


def kind(address: str) -> str:
    """Pages of one kind differ in numbers only, and every history is like any other: one of each is enough."""
    path = NUMBER.sub("1", urlsplit(address).path)
    return HISTORY if path.endswith(HISTORY) else path


@contextmanager
def darkened(page: Page) -> Iterator[None]:
    """In the dark scheme, which unfold keeps as a class of the page and reads from the system once."""
    page.emulate_media(color_scheme="dark")
    page.evaluate(THEME, True)
    yield
    page.evaluate(THEME, False)
    page.emulate_media(color_scheme="light")
