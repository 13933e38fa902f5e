from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from devices.vendors.client import Ask, Failed, NotFound
from devices.vendors.oura.client import HISTORY, HISTORY_DAYS_PER_CALL, fetch
from devices.vendors.oura.normalise import READERS
from tests.vendors.recorded import RecordedApi

START = datetime(2024, 5, 5, 8, 0, tzinfo=UTC)
END = datetime(2024, 5, 7, 9, 30, tzinfo=UTC)
SLEEPS = "/v2/usercollection/sleep?start_date=2024-05-04&end_date=2024-05-08"
HEART_RATES = (
    "/v2/usercollection/heartrate?start_datetime=2024-05-05T08%3A00%3A00Z&end_datetime=2024-05-07T09%3A30%3A00Z"
)


def ask(kind: str = "sleep", **changes: Any) -> Ask:
    return structs.replace(Ask(kind=kind, vendor_user_id="user_7", start_at=START, end_at=END), **changes)


def rows(*days: str) -> list[dict[str, str]]:
    return [{"id": f"of-{day}", "day": day} for day in days]


async def test_an_announced_document_is_asked_for_by_its_id() -> None:
    api = RecordedApi({"/v2/usercollection/sleep/abc": {"id": "abc"}})
    answer = await fetch(Ask(kind="sleep", vendor_user_id="user_7", object_id="abc"), api)
    assert (answer.kind, answer.document, answer.next_page) == ("sleep", {"id": "abc"}, "")


async def test_vo2_max_is_asked_for_under_its_odd_path() -> None:
    api = RecordedApi({"/v2/usercollection/vO2_max/abc": {"id": "abc"}})
    assert (await fetch(Ask(kind="vo2_max", vendor_user_id="user_7", object_id="abc"), api)).kind == "vo2_max"


async def test_an_id_cannot_lead_to_another_path() -> None:
    api = RecordedApi({})
    with pytest.raises(NotFound):
        await fetch(Ask(kind="sleep", vendor_user_id="user_7", object_id="../heartrate?latest=1"), api)
    assert api.asked == ["/v2/usercollection/sleep/..%2Fheartrate%3Flatest%3D1"]


async def test_a_list_is_asked_for_a_day_wider_and_cut_to_the_days_of_the_window() -> None:
    listed = rows("2024-05-03", "2024-05-04", "2024-05-06", "2024-05-07", "2024-05-08")
    api = RecordedApi({SLEEPS: {"data": listed, "next_token": None}})
    assert (await fetch(ask(), api)).document == {"data": rows("2024-05-04", "2024-05-06", "2024-05-07")}


async def test_where_it_is_tomorrow_already_tomorrows_documents_belong_to_the_window() -> None:
    evening = END.replace(hour=20)
    path = "/v2/usercollection/sleep?start_date=2024-05-04&end_date=2024-05-09"
    api = RecordedApi({path: {"data": rows("2024-05-08", "2024-05-09")}})
    assert (await fetch(ask(end_at=evening), api)).document == {"data": rows("2024-05-08")}


async def test_a_row_without_a_day_is_left_to_the_normaliser() -> None:
    odd = [{"id": "a"}, {"id": "b", "day": 5}, "row", None]
    api = RecordedApi({SLEEPS: {"data": odd, "next_token": ""}})
    assert (await fetch(ask(), api)).document == {"data": odd}


async def test_heart_rates_are_asked_for_by_instants_whatever_was_announced() -> None:
    beats = [{"bpm": 60, "timestamp": "2024-05-06T00:00:00Z"}]
    api = RecordedApi({HEART_RATES: {"data": beats, "next_token": None}})
    assert (await fetch(ask("heartrate", object_id="x"), api)).document == {"data": beats}


async def test_pages_are_merged_as_far_as_was_asked_and_the_next_is_named() -> None:
    api = RecordedApi(
        {
            SLEEPS: {"data": rows("2024-05-05"), "next_token": "two"},
            f"{SLEEPS}&next_token=two": {"data": rows("2024-05-06"), "next_token": "three"},
            f"{SLEEPS}&next_token=three": {"data": rows("2024-05-07"), "next_token": None},
        }
    )
    first = await fetch(ask(pages=2), api)
    assert (first.document, first.next_page) == ({"data": rows("2024-05-05", "2024-05-06")}, "three")
    rest = await fetch(ask(pages=5, page_token="three"), api)
    assert (rest.document, rest.next_page) == ({"data": rows("2024-05-07")}, "")
    assert len(api.asked) == 3


async def test_a_page_that_names_itself_as_the_next_ends_in_a_failure() -> None:
    api = RecordedApi(
        {
            SLEEPS: {"data": [], "next_token": "again"},
            f"{SLEEPS}&next_token=again": {"data": [], "next_token": "again"},
        }
    )
    with pytest.raises(Failed) as failed:
        await fetch(ask(pages=1_000), api)
    assert failed.value.error_class == "bad_answer"
    assert len(api.asked) == 2


async def test_a_list_without_a_window_is_the_vendors_own_default() -> None:
    api = RecordedApi({"/v2/usercollection/sleep": {"data": rows("2024-05-05")}})
    assert (await fetch(ask(start_at=None, end_at=None), api)).document == {"data": rows("2024-05-05")}


@pytest.mark.parametrize("answer", [None, [], "x", {}, {"data": None}, {"data": {}}, {"data": [], "next_token": 5}])
async def test_a_list_of_the_wrong_shape_is_a_bad_answer(answer: object) -> None:
    with pytest.raises(Failed) as failed:
        await fetch(ask(), RecordedApi({SLEEPS: answer}))
    assert failed.value.error_class == "bad_answer"


@pytest.mark.parametrize("answer", [None, [], "x", 5])
async def test_a_document_that_is_no_object_is_a_bad_answer(answer: object) -> None:
    with pytest.raises(Failed) as failed:
        await fetch(ask(object_id="abc"), RecordedApi({"/v2/usercollection/sleep/abc": answer}))
    assert failed.value.error_class == "bad_answer"


def test_history_covers_every_kind_that_yields_samples() -> None:
    assert set(HISTORY) == set(READERS) == set(HISTORY_DAYS_PER_CALL)
    assert timedelta(days=max(HISTORY_DAYS_PER_CALL.values())) <= timedelta(days=30)
