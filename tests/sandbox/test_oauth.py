import base64
import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from auren.sandbox.grants import Vendor
from auren.sandbox.server import RunningSandbox, SandboxConfig, run_in_thread
from tests.sandbox.conftest import NOW

CALLBACK = "http://127.0.0.1:9/callback"
AUTHORIZE = {"oura": "/oura/oauth/authorize", "whoop": "/whoop/oauth/oauth2/auth"}
TOKEN = {"oura": "/oura/oauth/token", "whoop": "/whoop/oauth/oauth2/token"}
PORTAL_AUTHORIZE, PORTAL_TOKEN = "/oura/oauth/v2/ext/oauth-authorize", "/oura/oauth/v2/ext/oauth-token"
CLIENT = {
    "oura": {"client_id": "sandbox-oura", "client_secret": "sandbox-oura-secret"},
    "whoop": {"client_id": "sandbox-whoop", "client_secret": "sandbox-whoop-secret"},
}
PROFILE = {"oura": "/oura/v2/usercollection/personal_info", "whoop": "/whoop/developer/v2/user/profile/basic"}
SPENT = {"oura": "invalid_request", "whoop": "invalid_grant"}
both_vendors = pytest.mark.parametrize("vendor", ["oura", "whoop"])


class Application:
    """The bridge's part in OAuth, at one vendor."""

    def __init__(self, http: httpx.Client, vendor: Vendor) -> None:
        self.http = http
        self.vendor = vendor

    def authorize(self, path: str = "", **query: str) -> httpx.Response:
        asked = {
            "client_id": CLIENT[self.vendor]["client_id"],
            "redirect_uri": CALLBACK,
            "response_type": "code",
            "state": "12345678",
            "login_hint": "user_4",
            "auto": "1",
        }
        return self.http.get(path or AUTHORIZE[self.vendor], params={**asked, **query})

    def code(self, path: str = "", **query: str) -> str:
        return sent_back(self.authorize(path, **query))["code"]

    def exchange(self, code: str, path: str = "", **fields: str) -> httpx.Response:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, **CLIENT[self.vendor]}
        return self.http.post(path or TOKEN[self.vendor], data={**form, **fields})

    def refresh(self, token: str, path: str = "", **fields: str) -> httpx.Response:
        form = {"grant_type": "refresh_token", "refresh_token": token, "scope": "offline", **CLIENT[self.vendor]}
        return self.http.post(path or TOKEN[self.vendor], data={**form, **fields})

    def profile(self, access_token: str) -> int:
        return self.http.get(PROFILE[self.vendor], headers={"Authorization": f"Bearer {access_token}"}).status_code


def sent_back(reply: httpx.Response) -> dict[str, str]:
    """The query of a redirect to the callback."""
    assert reply.status_code == 302
    assert reply.headers["location"].startswith(CALLBACK)
    return {name: values[0] for name, values in parse_qs(urlsplit(reply.headers["location"]).query).items()}


@pytest.fixture
def application(http: httpx.Client, vendor: Vendor) -> Application:
    return Application(http, vendor)


@pytest.fixture
def oura_application(http: httpx.Client) -> Application:
    return Application(http, "oura")


@pytest.fixture
def whoop_application(http: httpx.Client) -> Application:
    return Application(http, "whoop")


@both_vendors
def test_a_code_becomes_tokens_that_open_the_api(application: Application) -> None:
    back = sent_back(application.authorize())
    tokens = application.exchange(back["code"]).json()
    assert back["state"] == "12345678"
    assert tokens["token_type"] == "bearer"
    assert application.profile(tokens["access_token"]) == 200


@both_vendors
def test_a_person_without_the_auto_answer_is_asked_on_a_page(application: Application) -> None:
    reply = application.authorize(auto="", state='12345678"><script>')
    assert reply.status_code == 200
    assert "Allow" in reply.text
    assert "<script>" not in reply.text


@both_vendors
def test_a_person_may_say_no(application: Application) -> None:
    assert sent_back(application.authorize(deny="1")) == {"error": "access_denied", "state": "12345678"}


@both_vendors
def test_a_code_is_good_for_one_exchange(application: Application) -> None:
    code = application.code()
    assert application.exchange(code).status_code == 200
    second = application.exchange(code)
    assert (second.status_code, second.json()["error"]) == (400, "invalid_grant")


@both_vendors
def test_a_code_lives_ten_minutes(application: Application, sandbox: RunningSandbox) -> None:
    old, fresh = application.code(), application.code()
    sandbox.set_clock(NOW + timedelta(seconds=599))
    assert application.exchange(fresh).status_code == 200
    sandbox.set_clock(NOW + timedelta(seconds=600))
    assert application.exchange(old).json()["error"] == "invalid_grant"


@both_vendors
def test_a_challenge_wants_its_verifier(application: Application) -> None:
    verifier = "a-long-random-verifier-of-at-least-43-characters"
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    pkce = {"code_challenge": challenge, "code_challenge_method": "S256"}
    assert application.exchange(application.code(**pkce), code_verifier=verifier).status_code == 200
    assert application.exchange(application.code(**pkce), code_verifier=verifier + "x").status_code == 400
    assert application.exchange(application.code(**pkce)).status_code == 400


@both_vendors
def test_a_plain_challenge_is_not_taken(application: Application) -> None:
    back = sent_back(application.authorize(code_challenge="x", code_challenge_method="plain"))
    assert back["error"] == "invalid_request"


@both_vendors
def test_the_application_must_know_its_secret(application: Application) -> None:
    refused = application.exchange(application.code(), client_secret="guessed")
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")


@both_vendors
def test_the_application_may_show_its_secret_by_http_basic(application: Application) -> None:
    client = CLIENT[application.vendor]
    form = {"grant_type": "authorization_code", "code": application.code(), "redirect_uri": CALLBACK}
    basic = httpx.BasicAuth(client["client_id"], client["client_secret"])
    assert application.http.post(TOKEN[application.vendor], data=form, auth=basic).status_code == 200


@both_vendors
def test_an_unknown_application_is_not_redirected_anywhere(application: Application) -> None:
    assert application.authorize(client_id="somebody").status_code == 400


@both_vendors
def test_another_redirect_address_does_not_get_the_tokens(application: Application) -> None:
    assert application.exchange(application.code(), redirect_uri="http://127.0.0.1:9/elsewhere").status_code == 400


@both_vendors
def test_a_refresh_gives_new_tokens(application: Application) -> None:
    first = application.exchange(application.code()).json()
    second = application.refresh(first["refresh_token"]).json()
    assert {first["access_token"], first["refresh_token"]}.isdisjoint({second["access_token"], second["refresh_token"]})
    assert application.profile(second["access_token"]) == 200


@both_vendors
def test_a_reused_refresh_token_kills_the_grant(application: Application) -> None:
    first = application.exchange(application.code()).json()
    second = application.refresh(first["refresh_token"]).json()
    reused = application.refresh(first["refresh_token"])
    assert (reused.status_code, reused.json()["error"]) == (400, SPENT[application.vendor])
    assert application.profile(second["access_token"]) == 401
    assert application.refresh(second["refresh_token"]).status_code == 400


@both_vendors
def test_a_killed_grant_leaves_another_of_the_same_person_alone(application: Application) -> None:
    first, other = (application.exchange(application.code()).json() for _ in range(2))
    application.refresh(first["refresh_token"])
    application.refresh(first["refresh_token"])
    assert application.profile(other["access_token"]) == 200


def test_a_refresh_ends_the_old_access_token_at_whoop_but_not_at_oura(
    oura_application: Application, whoop_application: Application
) -> None:
    standing = {}
    for application in (oura_application, whoop_application):
        first = application.exchange(application.code()).json()
        application.refresh(first["refresh_token"])
        standing[application.vendor] = application.profile(first["access_token"])
    assert standing == {"oura": 200, "whoop": 401}


def test_whoop_gives_a_refresh_token_only_to_who_asks_for_offline(whoop_application: Application) -> None:
    without = whoop_application.exchange(whoop_application.code(scope="read:sleep")).json()
    offline = whoop_application.exchange(whoop_application.code(scope="read:sleep offline")).json()
    assert "refresh_token" not in without
    assert "refresh_token" in offline


def test_a_whoop_refresh_without_the_scope_offline_ends_the_chain(whoop_application: Application) -> None:
    first = whoop_application.exchange(whoop_application.code()).json()
    last = whoop_application.refresh(first["refresh_token"], scope="").json()
    assert "refresh_token" not in last
    assert whoop_application.profile(last["access_token"]) == 200


def test_whoop_wants_a_state_of_eight_characters(whoop_application: Application) -> None:
    assert sent_back(whoop_application.authorize(state="1234567"))["error"] == "invalid_state"


@both_vendors
def test_an_access_token_ends_when_its_time_is_over(application: Application, sandbox: RunningSandbox) -> None:
    sandbox.set_vendor(application.vendor, access_token_seconds=120)
    tokens = application.exchange(application.code()).json()
    assert tokens["expires_in"] == 120
    sandbox.set_clock(NOW + timedelta(seconds=119))
    assert application.profile(tokens["access_token"]) == 200
    sandbox.set_clock(NOW + timedelta(seconds=120))
    assert application.profile(tokens["access_token"]) == 401


def test_a_person_may_grant_less_than_was_asked(oura_application: Application) -> None:
    back = sent_back(oura_application.authorize(scope="daily heartrate workout", scope_granted="heartrate"))
    token = oura_application.exchange(back["code"]).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    asked = [f"/oura/v2/usercollection/{kind}" for kind in ("heartrate", "sleep")]
    assert back["scope"] == "heartrate"
    assert [oura_application.http.get(path, headers=headers).status_code for path in asked] == [200, 403]


def test_the_wrong_generation_of_ouras_token_address_burns_the_code(oura_application: Application) -> None:
    code = oura_application.code(PORTAL_AUTHORIZE)
    assert oura_application.exchange(code).json()["error"] == "invalid_grant"
    assert oura_application.exchange(code, PORTAL_TOKEN).status_code == 400


def test_a_grant_is_refreshed_only_where_it_was_made(oura_application: Application) -> None:
    tokens = oura_application.exchange(oura_application.code(PORTAL_AUTHORIZE), PORTAL_TOKEN).json()
    refused = oura_application.refresh(tokens["refresh_token"])
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")
    assert oura_application.refresh(tokens["refresh_token"], PORTAL_TOKEN).status_code == 200


def test_ouras_newer_generation_writes_scopes_with_a_prefix(oura_application: Application) -> None:
    code = oura_application.code(PORTAL_AUTHORIZE, scope="extapi:daily extapi:spo2")
    assert oura_application.exchange(code, PORTAL_TOKEN).json()["scope"] == "extapi:daily extapi:spo2"


@pytest.mark.parametrize("way", ["params", "data", "headers"])
def test_an_oura_token_can_be_revoked_once(oura_application: Application, way: str) -> None:
    token = oura_application.exchange(oura_application.code()).json()["access_token"]
    carried = {"params": {"access_token": token}, "data": {"token": token}}
    carried["headers"] = {"Authorization": f"Bearer {token}"}
    sent = {way: carried[way]}
    replies = [oura_application.http.request("POST", "/oura/oauth/revoke", **sent) for _ in range(2)]  # type: ignore[arg-type]
    assert [reply.status_code for reply in replies] == [200, 401]
    assert oura_application.profile(token) == 401


def test_whoop_access_ends_by_a_delete(whoop_application: Application) -> None:
    tokens = whoop_application.exchange(whoop_application.code()).json()
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    ended = whoop_application.http.delete("/whoop/developer/v2/user/access", headers=headers)
    assert ended.status_code == 204
    assert whoop_application.profile(tokens["access_token"]) == 401
    assert whoop_application.refresh(tokens["refresh_token"]).status_code == 400


@pytest.fixture
def restart(tmp_path: Path) -> Iterator["Restart"]:
    with Restart(tmp_path / "state") as restarting:
        yield restarting


class Restart:
    """A sandbox on a folder, closed and opened again at will."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def __enter__(self) -> "Restart":
        self.running = self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.running.close()

    def start(self, **changes: int) -> RunningSandbox:
        return run_in_thread(SandboxConfig(clock=lambda: NOW, state=str(self.state), **{"days": 20, **changes}))  # type: ignore[arg-type]

    def again(self, **changes: int) -> RunningSandbox:
        self.running.close()
        self.running = self.start(**changes)
        return self.running


@both_vendors
def test_grants_outlive_a_restart(restart: Restart, vendor: Vendor) -> None:
    tokens = restart.running.grant(vendor, "user_1")
    running = restart.again()
    with httpx.Client(base_url=running.url, trust_env=False) as http:
        application = Application(http, vendor)
        assert application.profile(tokens.access_token) == 200
        assert application.refresh(tokens.refresh_token or "").status_code == 200
        assert application.refresh(tokens.refresh_token or "").status_code == 400


def test_documents_and_what_was_done_to_them_outlive_a_restart(restart: Restart) -> None:
    gone = restart.running.delete_document("oura", "user_1", "sleep")
    edited = restart.running.edit_document("oura", "user_1", "daily_readiness", changes={"score": 11})
    before = restart.running.documents("oura", "user_1", "sleep")
    running = restart.again(days=3)
    assert running.documents("oura", "user_1", "sleep") == before
    assert gone not in {document["id"] for document in before}
    assert running.documents("oura", "user_1", "daily_readiness", edited["id"])[0]["score"] == 11


def test_what_is_kept_is_for_the_owner_alone(restart: Restart) -> None:
    assert restart.state.stat().st_mode & 0o077 == 0
