from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest

from auren.sandbox import whoop as whoop_documents
from auren.sandbox.server import RunningSandbox, addresses
from tests.sandbox.conftest import NOW, Reader

Document = dict[str, Any]
WIDE = {"start_date": "2026-01-01", "end_date": "2026-12-31"}
OURA_KINDS = (
    "sleep", "daily_sleep", "daily_readiness", "daily_activity", "daily_spo2", "daily_stress",
    "daily_cardiovascular_age", "daily_resilience", "vO2_max", "workout",
)  # fmt: skip
WHOOP_PATHS = ("/v2/cycle", "/v2/recovery", "/v2/activity/sleep", "/v2/activity/workout")


def all_of_oura(oura: Reader, kind: str, **query: str) -> list[list[Document]]:
    pages, token = [], ""
    while token is not None:
        reply = oura.get(f"/v2/usercollection/{kind}", **query, **({"next_token": token} if token else {})).json()
        pages.append(reply["data"])
        token = reply["next_token"]
    return pages


def all_of_whoop(whoop: Reader, path: str, **query: str | int) -> list[list[Document]]:
    pages, token = [], ""
    while token is not None:
        reply = whoop.get(path, **query, **({"nextToken": token} if token else {})).json()
        pages.append(reply["records"])
        token = reply["next_token"]
    return pages


@pytest.mark.parametrize("kind", OURA_KINDS)
def test_ouras_pages_hold_every_document_once_and_in_order(oura: Reader, sandbox: RunningSandbox, kind: str) -> None:
    pages = all_of_oura(oura, kind, **WIDE)
    ids = [document["id"] for page in pages for document in page]
    assert len(ids) == len(set(ids))
    assert set(ids) == {document["id"] for document in sandbox.documents("oura", "user_1", kind)}
    assert all(0 < len(page) <= 50 for page in pages)
    days = [document["day"] for page in pages for document in page]
    assert days == sorted(days)


def test_more_than_a_page_of_documents_takes_two(oura: Reader) -> None:
    assert [len(page) > 0 for page in all_of_oura(oura, "daily_activity", **WIDE)] == [True, True]


def test_ouras_heart_rates_come_in_pages_of_a_thousand_rows_on_a_five_minute_grid(oura: Reader) -> None:
    start = NOW - timedelta(days=9)
    query = {"start_datetime": start.isoformat(), "end_datetime": NOW.isoformat()}
    pages = all_of_oura(oura, "heartrate", **query)
    times = [datetime.fromisoformat(row["timestamp"]) for page in pages for row in page]
    assert all(len(page) == 1_000 for page in pages[:-1])
    assert len(pages) > 1
    assert all((later - earlier) % timedelta(minutes=5) == timedelta(0) for earlier, later in pairwise(times))
    assert times == sorted(set(times))
    assert start <= times[0] <= times[-1] < NOW


def test_ouras_heart_rates_without_bounds_are_those_of_the_last_day(oura: Reader) -> None:
    times = [row["timestamp"] for page in all_of_oura(oura, "heartrate") for row in page]
    assert times[0] >= (NOW - timedelta(days=1)).isoformat()


def test_a_document_that_appears_between_two_pages_shifts_nothing(whoop: Reader, sandbox: RunningSandbox) -> None:
    first = whoop.get("/v2/activity/sleep", limit=5).json()
    new = {**first["records"][0], "id": "00000000-0000-4000-8000-000000000001", "start": "2026-03-20T12:00:00.000Z"}
    sandbox.put_document("whoop", "user_1", "sleep", new)
    second = whoop.get("/v2/activity/sleep", limit=5, nextToken=first["next_token"]).json()
    seen = [document["id"] for page in (first, second) for document in page["records"]]
    assert len(seen) == len(set(seen)) == 10


@pytest.mark.parametrize("limit", [1, 7, 25])
@pytest.mark.parametrize("path", WHOOP_PATHS)
def test_whoops_pages_hold_every_record_once_newest_first(
    whoop: Reader, sandbox: RunningSandbox, path: str, limit: int
) -> None:
    kind = path.rsplit("/", 1)[1]
    pages = all_of_whoop(whoop, path, limit=limit)
    records = [whoop_documents.record_of(kind, each) for page in pages for each in page]
    standing = sandbox.documents("whoop", "user_1", kind)
    assert len(records) == len(set(records))
    assert set(records) == {whoop_documents.record_of(kind, each) for each in standing}
    assert all(len(page) == limit for page in pages[:-1])
    began = [each.get("start") or each["created_at"] for page in pages for each in page]
    assert began == sorted(began, reverse=True)


def test_whoops_collections_keep_to_start_and_end(whoop: Reader) -> None:
    start, end = NOW - timedelta(days=10), NOW - timedelta(days=5)
    pages = all_of_whoop(whoop, "/v2/cycle", start=start.isoformat(), end=end.isoformat())
    began = [datetime.fromisoformat(cycle["start"]) for page in pages for cycle in page]
    assert began
    assert all(start <= at < end for at in began)


@pytest.mark.parametrize("limit", ["0", "26", "many"])
def test_whoop_gives_at_most_25_a_page(whoop: Reader, limit: str) -> None:
    assert whoop.get("/v2/cycle", limit=limit).status_code == 400


def test_whoop_gives_ten_unless_asked(whoop: Reader) -> None:
    assert len(whoop.get("/v2/cycle").json()["records"]) == 10


@pytest.mark.parametrize("kind", OURA_KINDS)
def test_a_single_oura_document_is_the_one_in_the_list(oura: Reader, kind: str) -> None:
    listed = all_of_oura(oura, kind, **WIDE)[-1][-1]
    assert oura.get(f"/v2/usercollection/{kind}/{listed['id']}").json() == listed


def test_oura_knows_vo2_max_only_by_its_own_spelling(oura: Reader) -> None:
    assert oura.get("/v2/usercollection/vO2_max").status_code == 200
    assert oura.get("/v2/usercollection/vo2_max").status_code == 404


def test_heart_rate_rows_have_no_form_of_their_own(oura: Reader) -> None:
    assert oura.get("/v2/usercollection/heartrate/2026-03-20T00:00:00+00:00").status_code == 404


def test_ouras_fields_can_be_chosen(oura: Reader) -> None:
    listed = oura.get("/v2/usercollection/sleep", **WIDE, fields="id,day").json()["data"]
    assert all(set(document) == {"id", "day"} for document in listed)


def test_the_end_date_of_ouras_sleeps_is_not_included(oura: Reader) -> None:
    last = all_of_oura(oura, "sleep", **WIDE)[-1][-1]["day"]
    days = [document["day"] for document in all_of_oura(oura, "sleep", start_date="2026-03-01", end_date=last)[0]]
    assert last not in days


def test_ouras_user_id_is_in_the_personal_info(oura: Reader) -> None:
    assert oura.get("/v2/usercollection/personal_info").json()["id"] == "user_1"


def test_whoops_user_id_is_in_the_profile(whoop: Reader) -> None:
    assert whoop.get("/v2/user/profile/basic").json()["user_id"] == "user_1"
    assert set(whoop.get("/v2/user/measurement/body").json()) == {"height_meter", "weight_kilogram", "max_heart_rate"}


def test_the_way_from_a_sleep_to_its_recovery_leads_over_the_cycle(whoop: Reader) -> None:
    night = next(each for each in whoop.get("/v2/activity/sleep").json()["records"] if not each["nap"])
    assert whoop.get(f"/v2/activity/sleep/{night['id']}").json() == night
    recovery = whoop.get(f"/v2/cycle/{night['cycle_id']}/recovery").json()
    assert recovery["sleep_id"] == night["id"]
    assert whoop.get(f"/v2/cycle/{night['cycle_id']}/sleep").json() == night
    assert whoop.get(f"/v2/cycle/{night['cycle_id']}").json()["id"] == night["cycle_id"]
    assert whoop.get(f"/v2/recovery/{night['id']}").status_code == 404


def test_a_v1_id_finds_its_v2_activity(whoop: Reader) -> None:
    for path in ("/v2/activity/sleep", "/v2/activity/workout"):
        activity = whoop.get(path).json()["records"][0]
        assert whoop.get(f"/v1/activity-mapping/{activity['v1_id']}").json() == {"v2_activity_id": activity["id"]}


@pytest.mark.parametrize(
    "path",
    [
        "/oura/v2/usercollection/sleep/nobody-knows-it",
        "/whoop/developer/v2/activity/sleep/nobody-knows-it",
        "/whoop/developer/v2/cycle/17",
        "/whoop/developer/v2/cycle/17/recovery",
        "/whoop/developer/v1/activity-mapping/17",
    ],
)
def test_a_document_nobody_knows_is_404(sandbox: RunningSandbox, http: httpx.Client, path: str) -> None:
    tokens = sandbox.grant("oura" if path.startswith("/oura") else "whoop", "user_1")
    assert http.get(path, headers={"Authorization": f"Bearer {tokens.access_token}"}).status_code == 404


def test_one_person_cannot_read_anothers_document(sandbox: RunningSandbox, oura: Reader) -> None:
    other = sandbox.documents("oura", "user_2", "sleep")[-1]
    assert oura.get(f"/v2/usercollection/sleep/{other['id']}").status_code == 404


@pytest.mark.parametrize("path", ["/oura/v2/usercollection/sleep", "/whoop/developer/v2/cycle"])
def test_a_missing_or_wrong_token_is_401(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 401
    assert http.get(path, headers={"Authorization": "Bearer made-up"}).status_code == 401


@pytest.mark.parametrize(
    "query",
    [
        {"start_date": "yesterday"},
        {"next_token": "made-up"},
        {"start_date": "2026-03-02", "end_date": "2026-03-01"},
    ],
)
def test_oura_answers_422_to_parameters_that_make_no_sense(oura: Reader, query: dict[str, str]) -> None:
    assert oura.get("/v2/usercollection/sleep", **query).status_code == 422


def test_ouras_limit_holds_for_a_token_and_for_the_application(
    sandbox: RunningSandbox, http: httpx.Client, oura: Reader
) -> None:
    sandbox.set_vendor("oura", rate_limit="2/300")
    statuses = [oura.get("/v2/usercollection/personal_info").status_code for _ in range(2)]
    refused = oura.get("/v2/usercollection/personal_info")
    assert statuses == [200, 200]
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == refused.headers["X-RateLimit-Window"] == "300"
    assert refused.headers["X-RateLimit-Limit"] == "2"
    assert refused.headers["X-RateLimit-Reset"] == str(int(NOW.timestamp()) + 300)
    assert refused.headers["X-RateLimit-Tier"] == "token"
    other = Reader(sandbox, http, "oura", "user_2").get("/v2/usercollection/personal_info")
    assert (other.status_code, other.headers["X-RateLimit-Tier"]) == (429, "application")
    sandbox.set_clock(NOW + timedelta(seconds=300))
    assert oura.get("/v2/usercollection/personal_info").status_code == 200


def test_whoops_limits_hold_for_the_whole_application(
    sandbox: RunningSandbox, http: httpx.Client, whoop: Reader
) -> None:
    sandbox.set_vendor("whoop", rate_limit="2/60,10/86400")
    allowed = whoop.get("/v2/cycle")
    Reader(sandbox, http, "whoop", "user_2").get("/v2/cycle")
    refused = whoop.get("/v2/cycle")
    assert allowed.headers["X-RateLimit-Remaining"] == "1"
    assert refused.status_code == 429
    assert refused.headers["X-RateLimit-Limit"] == "2;window=60, 10;window=86400"
    assert (refused.headers["X-RateLimit-Remaining"], refused.headers["X-RateLimit-Reset"]) == ("0", "60")


def test_the_addresses_it_prints_are_the_ones_it_serves(sandbox: RunningSandbox, http: httpx.Client) -> None:
    assert sandbox.settings == addresses(sandbox.url)
    reached = [http.get(url).status_code for name, url in sandbox.settings.items() if not name.endswith("API_URL")]
    assert 404 not in reached
