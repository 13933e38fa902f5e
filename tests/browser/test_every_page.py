"""Both consoles page by page, as their links lead: for everybody, on any screen, without a word of complaint."""

from collections.abc import Iterator
from http import HTTPStatus

import pytest
from playwright.sync_api import Page

from tests.browser.bridge import Bridge
from tests.browser.conftest import People, listen_to
from tests.browser.looking import addresses, barriers, darkened, kind, settled, too_wide

OF_COLOUR = ("color-contrast", "link-in-text-block")
NOT_PAGES = ("/static/", "/admin/logout/", "/admin/jsi18n/", "/api/", "/download/", "/content")


def crawl(page: Page, start: str, within: str) -> Iterator[str]:
    """Open one page of every kind that links lead to, and name it."""
    waiting, known = [start], {kind(start)}
    while waiting:
        address = waiting.pop(0)
        page.goto(address)
        settled(page)
        for found in addresses(page):
            if found.startswith(within) and not any(part in found for part in NOT_PAGES) and kind(found) not in known:
                known.add(kind(found))
                waiting.append(found)
        yield address


def look_everywhere(page: Page, start: str, within: str) -> tuple[int, list[str]]:
    """How many pages there are, and what is wrong with them."""
    wrong, count = [], 0
    for address in crawl(page, start, within):
        count += 1
        wrong += [f"{address}: {what}" for what in (*barriers(page), *too_wide(page))]
        with darkened(page):
            wrong += [f"{address}, dark: {what}" for what in barriers(page, *OF_COLOUR)]
    return count, wrong


def test_every_page_of_the_admin_is_for_everybody_and_fits_any_screen(people: People, complaints: list[str]) -> None:
    page = listen_to(people.page("admin"), complaints)
    count, wrong = look_everywhere(page, "/admin/", "/admin/")
    page.close()
    assert count > 25
    assert wrong == []


def test_every_page_of_clinicians_is_for_everybody_and_fits_any_screen(
    clinician: Page, bridge: Bridge, complaints: list[str]
) -> None:
    count, wrong = look_everywhere(clinician, "/", "/patients/")
    assert count > 4
    assert wrong == []


@pytest.mark.parametrize(("address", "status"), [("/sign-in/", 200), ("/admin/login/", 200), ("/nowhere/", 404)])
def test_a_page_for_strangers_is_for_everybody(
    people: People, complaints: list[str], address: str, status: int
) -> None:
    context = people.stranger()
    page = context.new_page()
    if status == HTTPStatus.OK:  # the console tells of others
        listen_to(page, complaints)
    answer = page.goto(address)
    wrong = [*barriers(page), *too_wide(page)]
    with darkened(page):
        wrong += barriers(page, *OF_COLOUR)
    context.close()
    assert answer
    assert answer.status == status
    assert wrong == []
