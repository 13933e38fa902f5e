"""Somebody of support on an ordinary day."""

import re
from datetime import UTC, datetime

import httpx
from playwright.sync_api import Page, expect

from tests.browser.bridge import Bridge, until
from tests.browser.conftest import People, listen_to

SLEEP = "/v2/usercollection/sleep"


def die(bridge: Bridge) -> int:
    """A delivery that its vendor refused for good."""
    record = bridge.sandbox.documents("oura", "user_1", "sleep")[-1]["id"]
    bridge.sandbox.script_fault("oura", SLEEP, status=400)
    delivery = bridge.announce(
        "oura",
        event_type="update",
        data_type="sleep",
        user_id="user_1",
        object_id=record,
        event_time=datetime.now(UTC).isoformat(),
    )
    until(lambda: bridge.state(delivery) == "dead", "the delivery is dead")
    return delivery


def test_support_follows_a_number_to_a_dead_delivery_reads_why_and_has_it_stored(support: Page, bridge: Bridge) -> None:
    delivery = die(bridge)
    support.goto("/admin/")
    number = support.get_by_role("link", name=re.compile(r"Oura, dead: "))
    until(lambda: support.reload() and number.count(), "the landing page, which keeps its numbers a while, counts it")
    expect(support.get_by_text("Something needs attention")).to_be_visible()
    number.click()
    support.get_by_role("link", name=str(delivery), exact=True).click()
    attempts = support.get_by_role("region", name="Attempts")
    expect(attempts).to_contain_text("400")
    expect(attempts).to_contain_text("A fault made on purpose.")
    support.get_by_role("button", name="Try again", exact=True).click()
    expect(support.get_by_text("1 of 1: tried again.")).to_be_visible()
    bridge.until_stored(delivery)
    support.goto(f"/admin/webhooks/delivery/{delivery}/change/")
    expect(attempts).to_contain_text(re.compile(r"3\. store stored"))


def test_support_finds_a_persons_deliveries_by_the_persons_number(support: Page) -> None:
    support.goto("/admin/webhooks/delivery/")
    support.get_by_role("searchbox").or_(support.locator("#searchbar")).first.fill("user_2")
    support.keyboard.press("Enter")
    support.wait_for_url("**q=user_2**")
    rows = support.locator("#result_list tbody .data-row")
    expect(rows.first).to_contain_text("user_2")
    assert rows.filter(has_text="user_2").count() == rows.count()


def test_a_patients_number_leads_from_the_delivery_to_the_samples_it_stored(support: Page, bridge: Bridge) -> None:
    found = bridge.row("SELECT id FROM webhooks_delivery WHERE sample_count > 5 AND vendor = 'whoop' LIMIT 1")
    assert found
    support.goto(f"/admin/webhooks/delivery/{found[0]}/change/")
    support.locator(f"a[href*='/{found[0]}/samples/']").first.click()
    expect(support.locator("#content table tbody tr").first).to_be_visible()


def test_the_admin_follows_the_systems_dark_scheme(people: People, complaints: list[str]) -> None:
    page = listen_to(people.page("support"), complaints)
    page.emulate_media(color_scheme="dark")
    page.goto("/admin/")
    expect(page.locator("html")).to_have_class(re.compile("dark"))
    dark = page.locator("#main").evaluate("one => getComputedStyle(one).backgroundColor")
    page.close()
    assert max(int(part) for part in re.findall(r"\d+", dark)[:3]) < 60


def test_a_wrong_password_is_said_and_a_clinician_is_let_into_no_admin(people: People, bridge: Bridge) -> None:
    context = people.stranger()
    page = context.new_page()
    page.goto("/admin/login/?next=/admin/")
    page.locator("[name=username]").fill("support")
    page.locator("[name=password]").fill("not it")
    page.keyboard.press("Enter")
    expect(page.get_by_text("That name and password do not match").first).to_be_visible()
    cookies = people.page("clinician").context.cookies()
    context.close()
    session = {cookie["name"]: cookie["value"] for cookie in cookies}
    assert httpx.get(f"{bridge.http}/admin/", cookies=session).status_code == 302
