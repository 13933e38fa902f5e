"""A clinician looks for a patient, and at what the devices say."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.browser.bridge import Bridge, heart_rate
from tests.browser.conftest import People
from tests.browser.looking import script, settled

LONG_AGO = (datetime.now(UTC) - timedelta(days=60)).replace(hour=10, minute=0, second=0, microsecond=0)
MINUTE = timedelta(minutes=1)
POINTERS = "all => all.filter((one) => one.offsetParent).map((one) => one.style.transform)"
RIGHTMOST = "all => Math.max(...all.map((one) => one.getBoundingClientRect().right))"

COLOURS_OF_LEGEND = """(name) => [...new Set([...document.querySelectorAll("#lane-heart_rate li")]
    .filter((one) => one.textContent.startsWith("Heart rate") && one.textContent.includes(name))
    .map((one) => one.querySelector(".swatch").style.background))]"""
COLOUR_OF_SIDE = """(name) => [...document.querySelectorAll("tbody th")]
    .filter((one) => one.textContent.includes(name))
    .map((one) => getComputedStyle(one.querySelector(".key")).backgroundColor)[0]"""


def between(start: datetime, end: datetime) -> str:
    return "?" + "&".join(f"{name}={at:%Y-%m-%dT%H:%M:%SZ}" for name, at in (("from", start), ("to", end)))


def timeline(page: Page, bridge: Bridge, user: str = "user_1", query: str = "") -> None:
    page.goto(f"/patients/{bridge.patient(user)}/{query}")
    settled(page)


@pytest.fixture(scope="package")
def dispute(bridge: Bridge) -> None:
    """Long ago, a watch and a strap of user_3 were worn in two stretches, and said very different things."""
    for first in (30, 240):
        for source, value in (("Apple Watch", 60), ("Chest strap", 130)):
            readings = [heart_rate(LONG_AGO + (first + minute) * MINUTE, value, source) for minute in range(60)]
            bridge.until_stored(bridge.phone("user_3", readings))


def test_a_patient_is_found_by_keyboard_alone(clinician: Page) -> None:
    clinician.goto("/")
    clinician.keyboard.press("/")
    clinician.keyboard.type("chiara")
    clinician.keyboard.press("Enter")
    clinician.wait_for_url("**q=chiara**")
    clinician.keyboard.press("ArrowDown")
    clinician.keyboard.press("Enter")
    expect(clinician.get_by_role("heading", level=1)).to_contain_text("Chiara")
    settled(clinician)
    expect(clinician.locator(".lane canvas").first).to_be_visible()


def test_lanes_move_and_zoom_together_by_keyboard(clinician: Page, bridge: Bridge) -> None:
    timeline(clinician, bridge)
    shown = clinician.locator("#range")
    before = shown.inner_text()
    clinician.locator("#lane-heart_rate").focus()
    with clinician.expect_response("**/timeline.json*from=*"):
        for key in ("+", "ArrowLeft", "ArrowLeft"):
            clinician.keyboard.press(key)
    expect(shown).not_to_have_text(before)
    clinician.locator("#lane-heart_rate .u-over").hover(position={"x": 300, "y": 50})
    expect(clinician.locator("#cursor")).not_to_be_empty()
    places = clinician.locator(".u-cursor-x").evaluate_all(POINTERS)
    assert len(places) > 4
    assert len({round(float(re.findall(r"[\d.]+", place)[0])) for place in places}) == 1


def test_a_stretch_is_chosen_by_dragging_and_left_by_a_double_click(clinician: Page, bridge: Bridge) -> None:
    timeline(clinician, bridge)
    shown, usual = clinician.locator("#range"), clinician.locator("[data-days='14']")
    before = shown.inner_text()
    over = clinician.locator("#lane-heart_rate .u-over")
    over.drag_to(over, source_position={"x": 200, "y": 60}, target_position={"x": 400, "y": 60})
    expect(shown).not_to_have_text(before)
    expect(usual).to_have_attribute("aria-pressed", "false")
    over.dblclick(position={"x": 300, "y": 60})
    expect(usual).to_have_attribute("aria-pressed", "true")


def test_the_address_holds_the_view(clinician: Page, bridge: Bridge) -> None:
    timeline(clinician, bridge)
    clinician.get_by_role("button", name="Week", exact=True).click()
    clinician.wait_for_url("**?days=7")
    clinician.get_by_role("button", name="Earlier").click()
    clinician.get_by_label("Every device").check()
    clinician.wait_for_url("**from=*sources=all")
    shown = clinician.locator("#range").inner_text()
    clinician.reload()
    settled(clinician)
    assert clinician.locator("#range").inner_text() == shown
    expect(clinician.get_by_label("Every device")).to_be_checked()


def test_the_address_holds_the_minutes_that_are_shown_also_just_before_a_full_one(
    clinician: Page, bridge: Bridge
) -> None:
    clinician.clock.set_fixed_time(datetime.now(UTC).replace(second=59, microsecond=700_000))
    timeline(clinician, bridge)
    clinician.get_by_role("button", name="Reset").click()
    clinician.get_by_role("button", name="Earlier").click()
    clinician.wait_for_url("**from=*")
    shown = clinician.locator("#range").inner_text()
    clinician.reload()
    settled(clinician)
    assert clinician.locator("#range").inner_text() == shown


def test_an_own_range_is_chosen_by_its_days(clinician: Page, bridge: Bridge) -> None:
    timeline(clinician, bridge)
    clinician.get_by_label("First day").fill(f"{LONG_AGO:%Y-%m-%d}")
    clinician.get_by_label("Last day").fill(f"{LONG_AGO + timedelta(days=2):%Y-%m-%d}")
    clinician.get_by_role("button", name="Show", exact=True).click()
    clinician.wait_for_url("**from=**")
    expect(clinician.locator("#range")).to_contain_text(f"{LONG_AGO.day} {LONG_AGO:%b}")


def test_every_chart_has_its_numbers_as_a_table(clinician: Page, bridge: Bridge) -> None:
    timeline(clinician, bridge)
    lanes = clinician.locator(".lane:visible")
    assert lanes.count() > 6
    for lane in lanes.all():
        name = lane.get_by_role("heading").inner_text()
        expect(lane.get_by_role("img"), name).to_have_attribute("aria-label", re.compile(r"\w.* table below"))
        lane.locator("summary").press("Enter")
        expect(lane.get_by_role("table"), name).to_be_visible()
        expect(lane.get_by_role("row").nth(1).get_by_role("rowheader"), name).not_to_be_empty()
        lane.locator("summary").press("Enter")


def test_a_device_has_one_colour_whatever_is_shown_beside_it(clinician: Page, bridge: Bridge, dispute: None) -> None:
    timeline(clinician, bridge, "user_3")
    alone = clinician.evaluate(COLOURS_OF_LEGEND, "Oura")
    timeline(clinician, bridge, "user_3", between(LONG_AGO - timedelta(days=2), datetime.now(UTC)))
    assert clinician.evaluate(COLOURS_OF_LEGEND, "Apple Watch")
    assert clinician.evaluate(COLOURS_OF_LEGEND, "Oura") == alone != []


def test_a_conflict_has_the_colours_of_the_timeline_it_belongs_to(
    clinician: Page, bridge: Bridge, dispute: None
) -> None:
    timeline(clinician, bridge, "user_3", between(LONG_AGO, LONG_AGO + timedelta(minutes=330)) + "&sources=all")
    names = ("Apple Watch", "Chest strap")
    colours = [clinician.evaluate(COLOURS_OF_LEGEND, name) for name in names]
    clinician.locator("#conflicts li").filter(has_text="Heart rate").first.get_by_role("link").click()
    clinician.wait_for_url("**/conflicts/*/")
    assert [[clinician.evaluate(COLOUR_OF_SIDE, name)] for name in names] == colours


def test_a_gap_is_drawn_as_a_gap_and_told_as_one(clinician: Page, bridge: Bridge, dispute: None) -> None:
    timeline(clinician, bridge, "user_3", between(LONG_AGO, LONG_AGO + timedelta(minutes=330)))
    parts = ((0.12, 0.25), (0.4, 0.65), (0.78, 0.9))
    worn, bare, worn_again = (clinician.evaluate(script("coloured"), ["heart_rate", *part]) for part in parts)
    assert worn > 20 < worn_again
    assert bare == 0
    clinician.locator("#lane-heart_rate summary").click()
    expect(clinician.locator("#lane-heart_rate").get_by_text("no data").first).to_be_visible()


def test_a_disagreement_says_who_said_what_and_leads_to_its_place(
    clinician: Page, bridge: Bridge, dispute: None
) -> None:
    timeline(clinician, bridge, "user_3", between(LONG_AGO - timedelta(days=2), LONG_AGO + timedelta(days=2)))
    told = clinician.locator("#conflicts li").filter(has_text="Heart rate").first
    expect(told).to_contain_text("Apple Watch 60")
    expect(told).to_contain_text("Chest strap 130")
    expect(told).to_contain_text("drawn:")
    before = clinician.locator("#range").inner_text()
    told.get_by_role("button").click()
    expect(clinician.locator("#range")).not_to_have_text(before)
    expect(clinician.locator("#lane-heart_rate")).to_be_focused()
    expect(clinician.locator("#lane-heart_rate .legend")).to_contain_text("devices disagree")


def test_what_a_phone_posts_appears_without_a_reload(clinician: Page, bridge: Bridge) -> None:
    timeline(clinician, bridge, "user_2", "?days=1")
    clinician.evaluate("() => { window.stays = true; }")
    clinician.locator("#lane-heart_rate summary").click()
    rows = clinician.locator("#lane-heart_rate table")
    expect(rows).not_to_contain_text("173")
    bridge.phone("user_2", [heart_rate(datetime.now(UTC) - MINUTE, 173)])
    expect(rows).to_contain_text("173")
    assert clinician.evaluate("() => window.stays") is True


def test_the_calendar_leads_to_a_day_and_to_a_night(clinician: Page, bridge: Bridge) -> None:
    timeline(clinician, bridge)
    clinician.get_by_role("link", name="Calendar").click()
    calendar = clinician.get_by_role("table")
    night = calendar.locator("a[href*='/nights/']").nth(1)
    night.click()
    expect(clinician.get_by_role("table", name="The night in numbers")).to_contain_text("Sleep")
    settled(clinician)
    assert clinician.locator(".lane canvas").count() >= 2
    clinician.go_back()
    calendar.locator("a.day").nth(1).click()
    settled(clinician)
    assert "from=" in urlsplit(clinician.url).query


def test_the_console_follows_the_systems_dark_scheme(clinician: Page, bridge: Bridge) -> None:
    clinician.emulate_media(color_scheme="dark")
    timeline(clinician, bridge)
    ground = clinician.locator("body").evaluate("one => getComputedStyle(one).backgroundColor")
    assert max(int(part) for part in re.findall(r"\d+", ground)[:3]) < 60


@pytest.fixture
def small(people: People) -> Iterator[Page]:
    """The clinician's telephone."""
    context = people.stranger(width=390, like=people.page("clinician").context)
    yield context.new_page()
    context.close()


def test_charts_keep_within_a_small_screen(small: Page, bridge: Bridge) -> None:
    timeline(small, bridge)
    over = small.locator(".lane:visible canvas").evaluate_all(RIGHTMOST)
    assert over <= 390
