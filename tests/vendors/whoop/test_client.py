from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from msgspec import structs

from devices.vendors.client import Ask, Failed, NotFound, Rejected
from devices.vendors.whoop.client import HISTORY, HISTORY_DAYS_PER_CALL, fetch
from tests.vendors.recorded import RecordedApi

START = datetime(2024, 5, 5, tzinfo=UTC)
END = datetime(2024, 5, 9, tzinfo=UTC)
WINDOW = {"limit": "25", "start": "2024-05-05T00:00:00Z", "end": "2024-05-09T00:00:00Z"}
WIDER = {"limit": "25", "start": "2024-05-04T00:00:00Z", "end": "2024-05-10T00:00:00Z"}
SLEEP = {"id": "s-1", "cycle_id": 77, "start": "2024-05-06T22:00:00Z", "end": "2024-05-07T06:00:00Z"}
RECOVERY = {"cycle_id": 77, "sleep_id": "s-1", "score_state": "SCORED"}
AROUND = {"limit": "25", "start": "2024-05-05T22:00:00Z", "end": "2024-05-08T06:00:00Z"}


def ask(kind: str, **changes: Any) -> Ask:
    return structs.replace(Ask(kind=kind, vendor_user_id="10129", start_at=START, end_at=END), **changes)


def at(path: str, **params: str) -> str:
    return f"{path}?{urlencode(params)}"


def sleep(number: int) -> dict[str, Any]:
    return SLEEP | {"id": f"s-{number}"}


def recovery(number: int) -> dict[str, Any]:
    return RECOVERY | {"sleep_id": f"s-{number}"}


@pytest.mark.parametrize(
    ("kind", "path"),
    [("sleep", "/v2/activity/sleep/a"), ("workout", "/v2/activity/workout/a"), ("cycle", "/v2/cycle/a")],
)
async def test_an_announced_document_is_asked_for_by_its_id(kind: str, path: str) -> None:
    answer = await fetch(ask(kind, object_id="a"), RecordedApi({path: {"id": "a"}}))
    assert (answer.kind, answer.document, answer.next_page) == (kind, {"id": "a"}, "")


async def test_a_recovery_is_found_through_the_cycle_of_its_sleep() -> None:
    api = RecordedApi({"/v2/activity/sleep/s-1": SLEEP, "/v2/cycle/77/recovery": RECOVERY})
    answer = await fetch(ask("recovery", object_id="s-1"), api)
    assert answer.document == RECOVERY | {"sleep": SLEEP}


@pytest.mark.parametrize("of_cycle", [recovery(9), None])
async def test_a_cycle_with_the_recovery_of_another_sleep_or_none_sends_us_to_the_list(of_cycle: Any) -> None:
    answers: dict[str, Any] = {
        "/v2/activity/sleep/s-1": SLEEP,
        at("/v2/recovery", **AROUND): {"records": [recovery(9), None], "next_token": "more"},
        at("/v2/recovery", **AROUND, nextToken="more"): {"records": [RECOVERY], "next_token": "even more"},
    }
    api = RecordedApi(answers | ({"/v2/cycle/77/recovery": of_cycle} if of_cycle else {}))
    assert (await fetch(ask("recovery", object_id="s-1"), api)).document == RECOVERY | {"sleep": SLEEP}


async def test_a_sleep_without_a_cycle_or_times_sends_us_to_the_latest_recoveries() -> None:
    bare = {"id": "s-1", "cycle_id": None}
    api = RecordedApi(
        {"/v2/activity/sleep/s-1": bare, at("/v2/recovery", limit="25"): {"records": [RECOVERY], "next_token": None}}
    )
    assert (await fetch(ask("recovery", object_id="s-1"), api)).document == RECOVERY | {"sleep": bare}


async def test_a_sleep_without_any_recovery_is_not_found_after_a_few_pages() -> None:
    pages = {
        at("/v2/recovery", **AROUND, **({"nextToken": str(page)} if page else {})): {
            "records": [recovery(9)],
            "next_token": str(page + 1),
        }
        for page in range(50)
    }
    api = RecordedApi({"/v2/activity/sleep/s-1": SLEEP} | pages)
    with pytest.raises(NotFound, match="no recovery of sleep s-1"):
        await fetch(ask("recovery", object_id="s-1"), api)
    assert len(api.asked) == 6


@pytest.mark.parametrize("kind", ["sleep", "recovery", "workout"])
async def test_an_id_of_api_v1_is_not_asked_for_at_all(kind: str) -> None:
    api = RecordedApi({})
    with pytest.raises(Rejected) as rejected:
        await fetch(ask(kind, object_id="93845"), api)
    assert (rejected.value.error_class, api.asked) == ("v1_id", [])


async def test_a_kind_whoop_does_not_have_is_not_asked_for() -> None:
    with pytest.raises(Rejected) as rejected:
        await fetch(ask("heartrate"), RecordedApi({}))
    assert rejected.value.error_class == "unknown_kind"


async def test_an_id_cannot_lead_to_another_path() -> None:
    api = RecordedApi({})
    with pytest.raises(NotFound):
        await fetch(ask("sleep", object_id="../../user/access"), api)
    assert api.asked == ["/v2/activity/sleep/..%2F..%2Fuser%2Faccess"]


async def test_a_list_is_read_in_full_pages_as_far_as_was_asked() -> None:
    api = RecordedApi(
        {
            at("/v2/cycle", **WINDOW): {"records": [{"id": 1}], "next_token": "b"},
            at("/v2/cycle", **WINDOW, nextToken="b"): {"records": [{"id": 2}], "next_token": "c"},
        }
    )
    answer = await fetch(ask("cycle", pages=2), api)
    assert (answer.document, answer.next_page) == ({"records": [{"id": 1}, {"id": 2}]}, "c")


async def test_a_listed_recovery_gets_its_sleep_from_one_list_of_sleeps() -> None:
    api = RecordedApi(
        {
            at("/v2/recovery", **WINDOW): {"records": [recovery(1), recovery(2)], "next_token": None},
            at("/v2/activity/sleep", **WIDER): {"records": [sleep(1), {"id": []}, sleep(2)], "next_token": "more"},
        }
    )
    answer = await fetch(ask("recovery"), api)
    assert answer.document == {"records": [recovery(1) | {"sleep": sleep(1)}, recovery(2) | {"sleep": sleep(2)}]}
    assert len(api.asked) == 2


async def test_a_single_recovery_gets_its_sleep_by_its_id() -> None:
    api = RecordedApi(
        {
            at("/v2/recovery", **WINDOW): {"records": [recovery(1)], "next_token": None},
            "/v2/activity/sleep/s-1": sleep(1),
        }
    )
    assert (await fetch(ask("recovery"), api)).document == {"records": [recovery(1) | {"sleep": sleep(1)}]}


async def test_sleeps_the_list_does_not_hold_are_asked_for_one_by_one_and_a_deleted_one_is_left_out() -> None:
    api = RecordedApi(
        {
            at("/v2/recovery", **WINDOW): {"records": [recovery(1), recovery(2), recovery(3)], "next_token": None},
            at("/v2/activity/sleep", **WIDER): {"records": [sleep(1)], "next_token": None},
            "/v2/activity/sleep/s-2": sleep(2),
        }
    )
    answer = await fetch(ask("recovery"), api)
    assert answer.document["records"] == [
        recovery(1) | {"sleep": sleep(1)},
        recovery(2) | {"sleep": sleep(2)},
        recovery(3),
    ]
    assert api.asked[-1] == "/v2/activity/sleep/s-3"


async def test_recoveries_that_name_no_v2_sleep_are_handed_on_as_they_are() -> None:
    odd = [{"sleep_id": 93845}, {"sleep_id": "93845"}, {}, None, "row"]
    api = RecordedApi({at("/v2/recovery", **WINDOW): {"records": odd, "next_token": None}})
    assert (await fetch(ask("recovery"), api)).document == {"records": odd}


async def test_recoveries_without_a_window_get_their_sleeps_one_by_one() -> None:
    api = RecordedApi(
        {
            at("/v2/recovery", limit="25"): {"records": [recovery(1)], "next_token": None},
            "/v2/activity/sleep/s-1": sleep(1),
        }
    )
    answer = await fetch(ask("recovery", start_at=None, end_at=None), api)
    assert answer.document == {"records": [recovery(1) | {"sleep": sleep(1)}]}


async def test_a_body_measurement_says_whose_it_is() -> None:
    api = RecordedApi({"/v2/user/measurement/body": {"height_meter": 1.8, "weight_kilogram": 80}})
    answer = await fetch(ask("body_measurement"), api)
    assert answer.document == {"height_meter": 1.8, "weight_kilogram": 80, "user_id": "10129"}


@pytest.mark.parametrize("answer", [None, [], "x", {}, {"records": None}, {"records": [], "next_token": 5}])
async def test_a_list_of_the_wrong_shape_is_a_bad_answer(answer: object) -> None:
    with pytest.raises(Failed) as failed:
        await fetch(ask("sleep"), RecordedApi({at("/v2/activity/sleep", **WINDOW): answer}))
    assert failed.value.error_class == "bad_answer"


async def test_a_fault_on_the_way_to_a_recovery_is_not_taken_for_its_absence() -> None:
    api = RecordedApi({"/v2/activity/sleep/s-1": SLEEP, "/v2/cycle/77/recovery": "oops"})
    with pytest.raises(Failed):
        await fetch(ask("recovery", object_id="s-1"), api)


def test_history_of_one_call_mostly_fits_one_page() -> None:
    assert set(HISTORY) == set(HISTORY_DAYS_PER_CALL)
    assert timedelta(days=max(HISTORY_DAYS_PER_CALL.values())) < timedelta(days=25)
