from datetime import timedelta

import httpx
import pytest

from auren.sandbox.server import RunningSandbox
from tests.sandbox.conftest import NOW, Reader


def test_a_document_of_ones_own_is_served_as_it_is(sandbox: RunningSandbox, oura: Reader) -> None:
    document = {"id": "my-own", "day": "2019-07-04", "score": 3, "anything": {"goes": None}}
    assert sandbox.put_document("oura", "user_1", "daily_sleep", document) == "my-own"
    assert oura.get("/v2/usercollection/daily_sleep/my-own").json() == document
    listed = oura.get("/v2/usercollection/daily_sleep", start_date="2019-07-01", end_date="2019-07-31").json()["data"]
    assert listed == [document]


def test_a_recovery_of_ones_own_is_found_through_its_cycle(sandbox: RunningSandbox, whoop: Reader) -> None:
    shared = {"cycle_id": 93, "user_id": "user_1", "created_at": "2026-03-19T06:00:00.000Z", "score_state": "SCORED"}
    night = {"start": "2026-03-18T22:00:00.000Z", "end": "2026-03-19T06:00:00.000Z", "nap": False}
    sandbox.put_document("whoop", "user_1", "sleep", {**shared, **night, "id": "own-sleep"})
    sandbox.put_document("whoop", "user_1", "recovery", {**shared, "sleep_id": "own-sleep"})
    sandbox.put_document("whoop", "user_1", "cycle", {**shared, **night, "id": 93})
    assert whoop.get("/v2/activity/sleep/own-sleep").json()["cycle_id"] == 93
    assert whoop.get("/v2/cycle/93/recovery").json()["sleep_id"] == "own-sleep"
    assert whoop.get("/v2/cycle/93").json()["id"] == 93


def test_heart_rate_rows_and_single_things_can_be_put_too(sandbox: RunningSandbox, oura: Reader, whoop: Reader) -> None:
    row = {"timestamp": "2026-03-20T09:01:00+00:00", "timestamp_unix": 0, "bpm": 111, "source": "live"}
    sandbox.put_document("oura", "user_1", "heartrate", row)
    body = {"height_meter": 1.5, "weight_kilogram": 50.5, "max_heart_rate": 190}
    sandbox.put_document("whoop", "user_1", "body_measurement", body)
    query = {"start_datetime": "2026-03-20T09:01:00Z", "end_datetime": "2026-03-20T09:02:00Z"}
    assert oura.get("/v2/usercollection/heartrate", **query).json()["data"] == [row]
    assert whoop.get("/v2/user/measurement/body").json() == body


def test_an_edit_makes_a_later_revision(sandbox: RunningSandbox, whoop: Reader) -> None:
    old = whoop.get("/v2/activity/sleep", limit=1).json()["records"][0]
    edits = [sandbox.edit_document("whoop", "user_1", "sleep", old["id"]) for _ in range(2)]
    assert old["updated_at"] < edits[0]["updated_at"] < edits[1]["updated_at"]
    assert old["score"] != edits[0]["score"]
    assert whoop.get(f"/v2/activity/sleep/{old['id']}").json() == edits[1]
    assert whoop.get("/v2/activity/sleep", limit=1).json()["records"] == [edits[1]]


def test_an_edit_changes_what_it_names_and_nothing_beside_it(sandbox: RunningSandbox, oura: Reader) -> None:
    old = sandbox.documents("oura", "user_1", "daily_spo2")[-1]
    new = sandbox.edit_document("oura", "user_1", "daily_spo2", changes={"spo2_percentage": {"average": 91.5}})
    assert new == {**old, "spo2_percentage": {"average": 91.5}}


def test_a_deleted_document_is_gone_and_stays_gone(sandbox: RunningSandbox, oura: Reader) -> None:
    record = sandbox.delete_document("oura", "user_1", "sleep")
    listed = oura.get("/v2/usercollection/sleep", start_date="2026-03-01", end_date="2026-12-31").json()["data"]
    assert oura.get(f"/v2/usercollection/sleep/{record}").status_code == 404
    assert record not in {document["id"] for document in listed}


def test_a_whoop_recovery_goes_with_its_sleep(sandbox: RunningSandbox, whoop: Reader) -> None:
    night = next(each for each in whoop.get("/v2/activity/sleep").json()["records"] if not each["nap"])
    sandbox.delete_document("whoop", "user_1", "sleep", night["id"])
    assert whoop.get(f"/v2/cycle/{night['cycle_id']}/recovery").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"vendor": "fitbit", "user": "user_1", "kind": "sleep", "document": {"id": "x", "day": "2026-01-01"}},
        {"vendor": "oura", "user": "user_1", "kind": "dreams", "document": {"id": "x", "day": "2026-01-01"}},
        {"vendor": "oura", "user": "", "kind": "sleep", "document": {"id": "x", "day": "2026-01-01"}},
        {"vendor": "oura", "user": "user_1", "kind": "sleep", "document": {"day": "2026-01-01"}},
        {"vendor": "oura", "user": "user_1", "kind": "sleep", "document": {"id": "x", "day": "today"}},
        {"vendor": "oura", "user": "user_1", "kind": "sleep", "document": None},
    ],
)
def test_a_document_that_could_not_be_served_is_refused(http: httpx.Client, body: dict[str, object]) -> None:
    assert http.post("/sandbox/documents", json=body).status_code == 422


def test_the_clock_can_be_set_forward_and_back(sandbox: RunningSandbox, oura: Reader) -> None:
    def newest() -> str:
        return str(sandbox.documents("oura", "user_1", "daily_activity")[-1]["day"])

    sandbox.set_clock(NOW + timedelta(days=10))
    later = newest()
    sandbox.set_clock(NOW - timedelta(days=300))
    earlier = newest()
    sandbox.set_clock(None)
    assert (earlier, newest(), later) == ("2025-05-24", "2026-03-20", "2026-03-30")


def test_a_clock_without_an_offset_is_refused(http: httpx.Client) -> None:
    assert http.post("/sandbox/clock", json={"now": "2026-03-20T10:00:00"}).status_code == 422


def test_tokens_for_many_people_come_at_once(sandbox: RunningSandbox) -> None:
    tokens = sandbox.grant_many("oura", ["user_8", "user_9"], expires_in=5)
    assert [(each.user_id, each.expires_in) for each in tokens] == [("user_8", 5), ("user_9", 5)]
    assert sandbox.granted("oura") == ["user_8", "user_9"]


def test_a_person_who_withdraws_ends_every_token(sandbox: RunningSandbox, oura: Reader) -> None:
    assert sandbox.revoke("oura", "user_1") == 1
    assert oura.get("/v2/usercollection/personal_info").status_code == 401


def test_a_reset_takes_everything_back(sandbox: RunningSandbox, oura: Reader) -> None:
    before = sandbox.documents("oura", "user_1", "sleep")
    sandbox.delete_document("oura", "user_1", "sleep")
    sandbox.set_vendor("oura", rate_limit="1/60", latency_ms=1, access_token_seconds=1)
    sandbox.set_faults("oura", error=1)
    sandbox.set_clock(NOW + timedelta(days=3))
    sandbox.reset()
    assert sandbox.documents("oura", "user_1", "sleep") == before
    assert sandbox.granted("oura") == []
    assert sandbox.grant("oura", "user_1").expires_in == 86_400
    assert oura.get("/v2/usercollection/personal_info").status_code == 401


def test_scoring_can_be_turned_so_that_the_newest_night_waits(sandbox: RunningSandbox, whoop: Reader) -> None:
    newest = whoop.get("/v2/recovery", limit=1).json()["records"][0]
    sandbox.set_scoring(pending_share=1, pending_minutes=60 * 24)
    assert whoop.get("/v2/recovery", limit=1).json()["records"][0]["score_state"] == "PENDING_SCORE"
    sandbox.set_scoring(pending_share=0)
    assert whoop.get("/v2/recovery", limit=1).json()["records"][0] == newest


def test_people_and_their_zones_are_listed(sandbox: RunningSandbox, http: httpx.Client, oura: Reader) -> None:
    people = http.get("/sandbox/people").json()
    assert people[0] == {"user_id": "user_1", "zone": "Europe/Berlin", "granted": ["oura"]}
    assert len(people) == 5
