import asyncio
import time
from pathlib import Path

import httpx
import pytest

from auren.sandbox.server import RunningSandbox
from tests.sandbox.conftest import Reader
from tests.sandbox.test_oauth import CLIENT, TOKEN

INFO = "/v2/usercollection/personal_info"


def test_a_scripted_status_meets_the_next_calls_of_its_path_and_no_more(sandbox: RunningSandbox, oura: Reader) -> None:
    sandbox.script_fault("oura", "/v2/usercollection/sleep", count=2, status=502, retry_after=7)
    assert oura.get(INFO).status_code == 200
    failed = [oura.get("/v2/usercollection/sleep") for _ in range(3)]
    assert [reply.status_code for reply in failed] == [502, 502, 200]
    assert failed[0].headers["Retry-After"] == "7"


def test_a_hanging_call_is_not_answered(sandbox: RunningSandbox, oura: Reader) -> None:
    sandbox.script_fault("oura", INFO, "hang")
    oura.http.timeout = httpx.Timeout(0.1)
    with pytest.raises(httpx.ReadTimeout):
        oura.get(INFO)


def test_a_refresh_whose_reply_is_lost_has_spent_the_token(sandbox: RunningSandbox, http: httpx.Client) -> None:
    tokens = sandbox.grant("whoop", "user_1")
    form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token, "scope": "offline"} | CLIENT["whoop"]
    sandbox.script_fault("whoop", "/oauth/oauth2/token", "lose_reply")
    with pytest.raises(httpx.RemoteProtocolError):
        http.post(TOKEN["whoop"], data=form)
    assert http.post(TOKEN["whoop"], data=form).json()["error"] == "invalid_grant"


def test_a_vendor_works_at_once_and_answers_when_its_latency_is_over(
    sandbox: RunningSandbox, http: httpx.Client
) -> None:
    tokens = sandbox.grant("whoop", "user_1")
    form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token, "scope": "offline"} | CLIENT["whoop"]
    sandbox.set_vendor("whoop", latency_ms=3_600_000)
    with pytest.raises(httpx.ReadTimeout):
        http.post(TOKEN["whoop"], data=form, timeout=httpx.Timeout(10, read=0.5))
    sandbox.set_vendor("whoop", latency_ms=100)
    began = time.monotonic()
    assert http.post(TOKEN["whoop"], data=form).json()["error"] == "invalid_grant"
    assert time.monotonic() - began >= 0.1


def test_shares_of_errors_and_lost_documents_can_be_set_and_cleared(sandbox: RunningSandbox, oura: Reader) -> None:
    newest = sandbox.documents("oura", "user_1", "sleep")[-1]["id"]
    single = f"/v2/usercollection/sleep/{newest}"
    sandbox.set_faults("oura", error=1)
    assert oura.get(INFO).status_code == 503
    sandbox.set_faults("oura", error=0, not_found=1)
    assert oura.get(single).status_code == 404
    assert oura.get("/v2/usercollection/sleep").status_code == 200
    sandbox.clear_faults()
    assert oura.get(single).status_code == 200


def test_a_vendors_fault_leaves_the_other_vendor_alone(sandbox: RunningSandbox, oura: Reader, whoop: Reader) -> None:
    sandbox.set_faults("oura", error=1)
    assert (oura.get(INFO).status_code, whoop.get("/v2/cycle").status_code) == (503, 200)


def test_a_share_that_is_none_is_refused(sandbox: RunningSandbox) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="422"):
        sandbox.set_faults("oura", bad_weather=1)


def test_the_book_of_calls_knows_who_asked_for_what(
    sandbox: RunningSandbox, http: httpx.Client, oura: Reader, whoop: Reader
) -> None:
    oura.get(INFO)
    oura.get("/v2/usercollection/sleep/unknown")
    whoop.get("/v2/cycle")
    http.get("/whoop/developer/v2/cycle")
    assert [call.path for call in sandbox.calls("oura", user="user_1")] == [INFO, "/v2/usercollection/sleep/unknown"]
    assert [call.status for call in sandbox.calls("oura", "/v2/usercollection/sleep")] == [404]
    assert [call.user for call in sandbox.calls("whoop", status=401)] == [""]
    sandbox.forget_calls()
    assert sandbox.calls() == []


def test_refreshes_can_be_counted_exactly(sandbox: RunningSandbox, http: httpx.Client) -> None:
    tokens = sandbox.grant("oura", "user_3")
    form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token} | CLIENT["oura"]
    http.post(TOKEN["oura"], data=form)
    http.post(TOKEN["oura"], data=form)
    refreshes = sandbox.calls("oura", "/oauth/token", method="POST")
    assert [(call.user, call.status) for call in refreshes] == [("user_3", 200), ("", 400)]


async def test_of_simultaneous_refreshes_the_first_wins(sandbox: RunningSandbox) -> None:
    tokens = sandbox.grant("whoop", "user_1")
    form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token, "scope": "offline"} | CLIENT["whoop"]
    async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False) as http:
        replies = await asyncio.gather(*(http.post(TOKEN["whoop"], data=form) for _ in range(5)))
    assert sorted(reply.status_code for reply in replies) == [200, 400, 400, 400, 400]


def test_the_readme_names_every_address_of_the_control_api(sandbox: RunningSandbox) -> None:
    readme = (Path(__file__).parents[2] / "auren" / "sandbox" / "README.md").read_text(encoding="utf-8")
    source = (Path(__file__).parents[2] / "auren" / "sandbox" / "control.py").read_text(encoding="utf-8")
    addresses = [line.split('"')[1] for line in source.splitlines() if line.strip().startswith('Route("')]
    assert addresses
    assert [address for address in addresses if f"/sandbox{address}`" not in readme] == []
