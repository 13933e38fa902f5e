import json
import random
import time
from datetime import UTC, datetime

import pytest

from auren.sandbox.grants import Vendor
from auren.sandbox.server import RunningSandbox, SandboxConfig, run_in_thread
from bench.traffic import Post, Secrets, Traffic
from devices.vendors.registry import VENDORS

SECRETS = {"oura": "signs-for-oura", "whoop": "signs-for-whoop"}
SOME = 60


@pytest.fixture
def traffic() -> Traffic:
    return Traffic(people=50, dice=random.Random(7))


def verify(post: Post, headers: dict[str, str], *, secret: str) -> None:
    webhook = VENDORS[post.vendor].webhook
    webhook.verify(headers, post.body, secrets=[secret], max_age=60, now=time.time())  # type: ignore[attr-defined]


@pytest.mark.parametrize("vendor", ["oura", "whoop"])
def test_a_webhook_is_signed_as_its_vendor_signs(traffic: Traffic, vendor: str) -> None:
    [post] = traffic.oura() if vendor == "oura" else traffic.whoop()
    headers = Secrets(**SECRETS).headers(post)
    verify(post, headers, secret=SECRETS[vendor])
    with pytest.raises(Exception, match="does not match the body"):
        verify(post, headers, secret="another")


@pytest.mark.parametrize("vendor", ["oura", "whoop"])
def test_an_announcement_is_of_a_kind_that_the_bridge_asks_for(traffic: Traffic, vendor: str) -> None:
    for _ in range(SOME):
        for post in traffic.next(vendor):
            read = VENDORS[vendor].webhook.read({}, post.body)  # type: ignore[attr-defined]
            assert (read.interest, bool(read.object_id)) == ("known", True)


@pytest.mark.parametrize("vendor", ["oura", "whoop"])
def test_the_sandbox_has_every_document_that_is_announced(traffic: Traffic, vendor: Vendor) -> None:
    config = SandboxConfig(clock=lambda: datetime.now(UTC), days=10)
    with run_in_thread(config) as sandbox:
        for _ in range(SOME):
            [post] = traffic.oura() if vendor == "oura" else traffic.whoop()
            assert document_of(sandbox, post)


def document_of(sandbox: RunningSandbox, post: Post) -> object:
    said = json.loads(post.body)
    if post.vendor == "oura":
        return sandbox.documents("oura", said["user_id"], said["data_type"], said["object_id"])
    return sandbox.documents("whoop", said["user_id"], said["type"].partition(".")[0], said["id"])


def test_a_phone_posts_as_many_samples_as_it_says_and_each_is_taken(traffic: Traffic) -> None:
    post = traffic.batch()
    assert 50 <= post.samples <= 200
    phone = VENDORS["healthkit"]
    found = phone.normalise("batch", phone.document_of(post.body, None))
    assert (len(found.samples), found.refused) == (post.samples, [])


def test_posts_sent_again_are_the_same_to_the_byte_and_keep_their_key() -> None:
    traffic = Traffic(people=50, repeats=0.5, dice=random.Random(7))
    posts = [post for _ in range(SOME) for post in traffic.next("oura")]
    assert len({post.key for post in posts}) < len(posts)
    assert len({(post.key, post.body) for post in posts}) == len({post.key for post in posts})


@pytest.mark.parametrize("vendor", ["oura", "whoop"])
def test_a_burst_is_two_deliveries_about_somebodys_night(vendor: str) -> None:
    traffic = Traffic(people=50, repeats=0, bursts=1, dice=random.Random(7))
    documents = set()
    for _ in range(SOME):
        posts = traffic.next(vendor)
        read = [VENDORS[vendor].webhook.read({}, post.body) for post in posts]  # type: ignore[attr-defined]
        assert len({each.dedup_key for each in read}) == len({post.key for post in posts}) == 2
        assert len({each.vendor_user_id for each in read}) == 1
        documents.add(len({(each.event_type.partition(".")[0], each.object_id) for each in read}))
    assert documents == {1, 2}


def test_without_secrets_nothing_is_signed_and_a_phone_shows_the_sandboxs_key(traffic: Traffic) -> None:
    assert set(Secrets().headers(traffic.next("whoop")[0])) == {"content-type"}
    assert Secrets().headers(traffic.batch())["authorization"] == "Bearer test_api_key"
