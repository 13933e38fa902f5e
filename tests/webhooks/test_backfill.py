"""History: every page of a vendor's lists once, however often it is asked for."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone

from auren.biometrics.models import Record
from auren.sandbox.grants import Vendor
from auren.sandbox.server import RunningSandbox
from devices.models import Link
from devices.vendors.registry import VENDORS
from tests.devices.conftest import new_link
from tests.webhooks.living import again, connect, let_pass, samples, work
from webhooks.actions import retry
from webhooks.backfill import Progress, file_backfill, file_windows, progress_of, windows
from webhooks.models import Delivery
from webhooks.processing import Window

NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
VENDORS_WITH_HISTORY = ["oura", "whoop"]


def pages() -> list[Delivery]:
    return list(Delivery.objects.exclude(origin="webhook").order_by("id"))


def window_of(page: Delivery) -> Window:
    assert page.body is not None
    return msgspec.json.decode(page.body, type=Window)


@pytest.mark.parametrize("vendor", VENDORS_WITH_HISTORY)
@pytest.mark.parametrize("days", [1, 30, 400])
def test_the_windows_of_a_kind_cover_the_whole_time_without_gap_or_overlap_the_newest_first(
    vendor: str, days: int
) -> None:
    start_at = NOVEMBER - timedelta(days=days)
    for kind, at_once in VENDORS[vendor].history:
        found = [window for window in windows(vendor, start_at, NOVEMBER) if window.kind == kind]
        assert (found[0].end_at, found[-1].start_at) == (NOVEMBER, start_at)
        assert all(later.start_at == earlier.end_at for later, earlier in pairwise(found))
        assert all(window.start_at < window.end_at for window in found)
        assert max(window.end_at - window.start_at for window in found) <= timedelta(days=at_once)


def test_no_time_at_all_has_no_window() -> None:
    assert list(windows("oura", NOVEMBER, NOVEMBER)) == []
    assert list(windows("healthkit", NOVEMBER - timedelta(days=9), NOVEMBER)) == []


def test_a_window_is_filed_once_however_often_it_is_asked_for(database: str) -> None:
    link = new_link("oura")
    filed = file_windows(link, NOVEMBER, NOVEMBER + timedelta(days=60), origin="backfill")
    assert filed == len(pages()) == len(list(windows("oura", NOVEMBER, NOVEMBER + timedelta(days=60))))
    assert file_windows(link, NOVEMBER, NOVEMBER + timedelta(days=60), origin="backfill") == 0
    assert len(pages()) == filed
    assert {(page.state, page.origin, page.vendor_user_id) for page in pages()} == {("received", "backfill", "user_1")}


def test_another_time_another_origin_or_another_person_is_another_page(database: str) -> None:
    link, other = new_link("oura"), new_link("oura", user="user_2")
    end_at = NOVEMBER + timedelta(days=1)
    filed = file_windows(link, NOVEMBER, end_at, origin="backfill")
    assert file_windows(link, NOVEMBER, end_at, origin="reconcile") == filed
    assert file_windows(other, NOVEMBER, end_at, origin="backfill") == filed
    assert file_windows(link, NOVEMBER, end_at + timedelta(days=1), origin="backfill") == filed


def test_a_phone_has_no_history_to_ask_for(database: str) -> None:
    link = new_link("healthkit")
    assert file_backfill(link, days=30) == 0
    assert pages() == []


def test_a_backfill_reaches_to_the_end_of_today(database: str) -> None:
    file_backfill(new_link("whoop"), days=3)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date()
    ends = {window_of(page).end_at for page in pages()}
    starts = {window_of(page).start_at for page in pages()}
    assert {end.date() for end in ends} == {tomorrow}
    assert {start.date() for start in starts} == {tomorrow - timedelta(days=3)}


@pytest.fixture
def ring(vendors: RunningSandbox) -> Link:
    return connect(vendors, "oura")


def paged(vendors: RunningSandbox, ring: Link, days: int = 30) -> list[Delivery]:
    """A history so long that the vendor gives it page by page."""
    filed = file_backfill(ring, days=days)
    work()
    assert len(pages()) > filed
    return pages()


def test_every_page_is_asked_for_once_and_each_follows_another(vendors: RunningSandbox, ring: Link) -> None:
    vendors.forget_calls()
    found = paged(vendors, ring)
    asked = [(window.kind, window.page_token, window.end_at) for window in map(window_of, found)]
    assert len(asked) == len(set(asked))
    assert {page.state for page in found} <= {"stored", "ignored"}
    assert {page.attempts for page in found} == {1}
    followers = [page for page in found if window_of(page).page_token]
    assert {page.origin for page in followers} == {"backfill"}


@pytest.mark.parametrize("vendor", VENDORS_WITH_HISTORY)
def test_the_history_is_stored_whole(vendors: RunningSandbox, vendor: Vendor) -> None:
    link = connect(vendors, vendor)
    file_backfill(link, days=10)
    work()
    begin = datetime.now(UTC) - timedelta(days=8)
    workouts = [
        each["id"]
        for each in vendors.documents(vendor, "user_1", "workout")
        if datetime.fromisoformat(each.get("start_datetime") or each["start"]) > begin
    ]
    assert workouts
    assert set(workouts) <= set(Record.objects.values_list("record", flat=True))


def test_asking_again_for_a_history_that_is_there_changes_nothing(vendors: RunningSandbox, ring: Link) -> None:
    vendors.set_clock(timezone.now())  # or a quarter of an hour begins meanwhile
    count = len(paged(vendors, ring))
    before = [(each.record, each.metric, each.start_at, each.value) for each in samples()]
    assert file_backfill(ring, days=30) == 0
    assert retry(Delivery.objects.all(), by=User(username="sam")) == count
    work()
    assert len(pages()) == count
    assert [(each.record, each.metric, each.start_at, each.value) for each in samples()] == before


def test_a_page_that_failed_is_followed_once_it_works_out(vendors: RunningSandbox, ring: Link) -> None:
    vendors.script_fault("oura", "/v2/usercollection/heartrate", status=500)
    now = datetime.now(UTC)
    file_windows(ring, now - timedelta(days=7), now, origin="backfill")
    work()
    [failed] = [page for page in pages() if page.state == "retrying"]
    count = len(pages())
    let_pass(failed)
    work()
    assert (failed.event_type, again(failed).state) == ("heartrate.backfill", "stored")
    assert len(pages()) > count


def test_progress_tells_what_is_filed_done_dead_and_waiting_for_a_score(database: str) -> None:
    link = new_link("oura")
    assert str(progress_of([link])) == "nothing has been asked for"
    file_windows(link, NOVEMBER, NOVEMBER + timedelta(days=30), origin="backfill")
    filed = len(pages())
    assert progress_of([link]) == Progress(filed=filed)
    done, unscored, dead, paused = pages()[:4]
    for page, fields in (
        (done, {"state": "stored", "link": link, "sample_count": 1234}),
        (unscored, {"state": "retrying", "link": link, "pending_asks": 1}),
        (dead, {"state": "dead", "link": link}),
        (paused, {"state": "unlinked"}),
    ):
        Delivery.objects.filter(pk=page.pk).update(**fields)
    progress = progress_of([link])
    assert progress == Progress(filed=filed, done=2, dead=1, unscored=1, samples=1234)
    assert str(progress) == f"2 of {filed} lists done, 1,234 samples, 1 dead, 1 wait for a score"
    assert not progress.is_over
    assert progress_of([new_link("oura", user="user_2")]) == Progress()


def test_the_command_files_a_history_and_watches_it_until_it_is_there(
    vendors: RunningSandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    link = connect(vendors, "oura", "user_7")
    connect(vendors, "oura", "user_8")
    call_command("backfill", "user_7", days=3, no_wait=True)
    said = capsys.readouterr().out
    assert f"{len(pages())} lists filed for 1 links" in said
    assert f"Backfill: 0 of {len(pages())} lists done" in said
    assert {page.vendor_user_id for page in pages()} == {"user_7"}
    work()
    call_command("backfill", "user_7", status=True)
    watched = capsys.readouterr().err
    done = progress_of([link])
    assert f"| {done.done}/{done.filed} [" in watched
    assert f"samples={done.samples}" in watched


def test_the_command_says_whose_history_cannot_be_asked_for(database: str) -> None:
    link = new_link("oura")
    Link.objects.filter(pk=link.pk).update(status="expired")
    with pytest.raises(CommandError, match="No link that can be asked: nobody, user_1"):
        call_command("backfill", "user_1", "nobody")
    assert pages() == []
