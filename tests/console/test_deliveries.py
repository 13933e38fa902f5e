import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from auren import admin as shared
from auren.biometrics.models import Sample, Source
from devices.models import Link, Patient, Token
from tests.biometrics.stored import store
from tests.console.conftest import person, signed_in
from tests.webhooks.living import heart_rate, push, work
from webhooks.models import Attempt, Delivery

LIST = "/admin/webhooks/delivery/"


def delivery(link: Link | None = None, **fields: Any) -> Delivery:
    number = Delivery.objects.count()
    return Delivery.objects.create(
        **{
            "vendor": "oura",
            "dedup_key": f"key-{number}",
            "event_type": "sleep.updated",
            "vendor_user_id": "oura-1",
            "link": link,
            **fields,
        }
    )


def detail(client: Client, one: Delivery) -> str:
    response = client.get(f"{LIST}{one.pk}/change/")
    assert response.status_code == 200
    return response.content.decode()


def listed(client: Client, query: str = "") -> set[int]:
    response = client.get(f"{LIST}?{query}")
    assert response.status_code == 200
    return {one.pk for one in response.context["cl"].result_list}


def act(client: Client, action: str, *chosen: Delivery, **more: str) -> Any:
    keys = [str(one.pk) for one in chosen]
    return client.post(LIST, {"action": action, "_selected_action": keys, **more}, follow=True)


def without(right: str) -> Client:
    user = person("few", "support")
    kept = Permission.objects.filter(group__name="support").exclude(codename=right)
    user.groups.clear()
    user.user_permissions.set(kept)
    return signed_in(user)


def test_support_sees_what_came_how_it_ended_and_whose_it_is(support: Client, link: Link) -> None:
    delivery(link, state="dead", error="refused by the vendor: 403")
    body = support.get(LIST).content.decode()
    for text in ("sleep.updated", "state-dead", "refused by the vendor: 403", "just now", "Ada Nowak", "oura-1"):
        assert text in body


def test_deliveries_are_filtered_by_state_vendor_and_origin(support: Client) -> None:
    dead = delivery(state="dead", vendor="whoop", origin="backfill")
    delivery()
    for query in ("state__exact=dead", "vendor__exact=whoop", "origin__exact=backfill"):
        assert listed(support, query) == {dead.pk}


def test_stuck_is_dead_or_waiting_too_long_without_a_plan(support: Client) -> None:
    old = timezone.now() - timedelta(minutes=16)
    stuck = [
        delivery(state="dead"),
        delivery(state="received", received_at=old),
        delivery(state="retrying", received_at=old),
        delivery(state="stored", received_at=old, stored_at=old, outbox=b"x"),
    ]
    delivery(state="retrying", received_at=old, planned_wait=True)
    delivery(state="received")
    delivery(state="stored", received_at=old, stored_at=timezone.now(), outbox=b"x")
    for state in ("published", "ignored", "unlinked"):
        delivery(state=state, received_at=old, stored_at=old)
    assert listed(support, "stuck=yes") == {one.pk for one in stuck}


def test_a_search_finds_number_vendor_user_and_object_exactly(support: Client, link: Link) -> None:
    linked = delivery(link, object_id="night-9")
    waiting = delivery(state="unlinked", vendor_user_id="stranger")
    assert listed(support, f"q={linked.pk}") == {linked.pk}
    assert listed(support, "q=oura-1") == {linked.pk}
    assert listed(support, "q=stranger") == {waiting.pk}
    assert listed(support, "q=night-9") == {linked.pk}
    assert listed(support, "q=night") == set()
    assert listed(support, f"q={10**30}") == set()


def test_the_list_never_loads_bodies_and_takes_a_fixed_number_of_queries(
    support: Client, link: Link, django_assert_max_num_queries: Any
) -> None:
    for _ in range(30):
        delivery(link, body=b"{}", document="{}")
    # Three of them are about whoever asks: the second factor, the first use of the session, the row in the audit log.
    with django_assert_max_num_queries(11 + len(Delivery.STATES)) as asked:
        support.get(LIST)
    assert not any('"webhooks_delivery"."body"' in query["sql"] for query in asked.captured_queries)


def test_a_long_list_is_counted_to_its_cap_only(support: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "MOST_COUNTED", 3)
    for _ in range(5):
        delivery()
    body = " ".join(support.get(LIST).content.decode().split())
    assert "more than 3 deliveries" in body


def test_the_detail_tells_every_attempt_in_words(support: Client) -> None:
    one = delivery(attempts=1)
    Attempt.objects.create(
        delivery=one,
        number=1,
        stage="fetch",
        started_at=timezone.now(),
        duration_ms=10_012,
        outcome="failed",
        error_class="ReadTimeout",
        message="the vendor did not answer within 10 s",
    )
    body = detail(support, one)
    for text in ("fetch", "10,012 ms", "ReadTimeout", "the vendor did not answer within 10 s"):
        assert text in body


def test_a_payload_with_markup_is_shown_as_text(support: Client) -> None:
    evil = "<script>alert(1)</script></pre>"
    one = delivery(
        body=json.dumps({"note": evil}).encode(),
        document=evil,
        refused=[{"what": evil, "why": evil}],
        error=evil,
        object_id=evil,
    )
    body = detail(support, one)
    assert "<script>alert" not in body
    assert body.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5


@pytest.mark.parametrize("body", [b"\xff\xfe not JSON", b"[" * 100_000, b"9" * 5_000, b"", b'"\\ud800"'])
def test_whatever_came_can_be_looked_at(support: Client, body: bytes) -> None:
    assert 'class="payload"' in detail(support, delivery(body=body))


def test_a_huge_payload_is_cut_and_says_so(support: Client) -> None:
    body = detail(support, delivery(body=b"x" * 2_000_000))
    assert "The first 65,536 of 2,000,000 characters are shown." in body
    assert len(body) < 200_000


def test_a_body_no_longer_kept_is_said_to_be_so(support: Client) -> None:
    assert "not kept" in detail(support, delivery())


def test_without_the_right_to_payloads_nothing_carried_is_shown(database: str) -> None:
    one = delivery(body=b'{"pulse": 61}', document='{"pulse": 62}', refused=[{"what": "pulse", "why": "900 bpm"}])
    body = detail(without("view_payload"), one)
    assert not any(text in body for text in ("pulse", "900 bpm", "payload"))


def test_retry_sends_through_once_more_and_leaves_a_log_entry(support: Client) -> None:
    one = delivery(state="dead")
    page = act(support, "retry", one).content.decode()
    one.refresh_from_db()
    assert one.state == "received"
    assert "1 of 1: tried again." in page
    (entry,) = LogEntry.objects.all()
    assert (entry.object_id, entry.user.username, entry.change_message) == (str(one.pk), "sam", "tried again")


def test_after_an_action_on_one_delivery_comes_its_page_and_after_several_the_list(support: Client) -> None:
    one, other = delivery(state="dead"), delivery(state="dead")
    here = f"{LIST}{one.pk}/change/"
    assert act(support, "retry", one).redirect_chain == [(here, 302)]
    assert act(support, "ignore", one, confirmed="1", reason="known").redirect_chain == [(here, 302)]
    assert act(support, "ignore", one, confirmed="1", reason="again").redirect_chain == [(here, 302)]
    assert act(support, "retry", one, other).redirect_chain == [(LIST, 302)]


def test_what_a_delivery_does_not_have_is_said_in_words(support: Client) -> None:
    body = detail(support, delivery(state="ignored"))
    for words in ("not stored", "not published", "not said by the vendor", "none planned", "not known", "not kept"):
        assert words in body
    assert '<div class="readonly">-</div>' not in body


def test_retry_says_why_some_were_left_alone(support: Client) -> None:
    held = delivery(state="received", lease_until=timezone.now() + timedelta(minutes=1))
    erased = delivery(state="dead", vendor="healthkit")
    page = act(support, "retry", held, erased, delivery(state="dead")).content.decode()
    assert "1 of 3: tried again." in page
    assert "1 left as it was: a worker has it at this moment." in page
    assert "1 left as it was: its body is no longer kept." in page
    assert LogEntry.objects.count() == 1


def test_ignoring_asks_for_a_reason_first(support: Client) -> None:
    one = delivery(state="dead")
    page = act(support, "ignore", one).content.decode()
    one.refresh_from_db()
    assert one.state == "dead"
    assert 'name="reason"' in page
    assert "This field is required." in act(support, "ignore", one, confirmed="1", reason=" ").content.decode()
    act(support, "ignore", one, confirmed="1", reason="known vendor outage")
    one.refresh_from_db()
    assert one.state == "ignored"
    assert "known vendor outage" in one.error
    assert LogEntry.objects.get().change_message == "ignored: known vendor outage"


def test_what_is_done_cannot_be_ignored_and_the_page_says_so(support: Client) -> None:
    one = delivery(state="published")
    page = act(support, "ignore", one, confirmed="1", reason="no").content.decode()
    assert "0 of 1" in page
    assert "1 left as it was: already published." in page


def test_more_than_one_request_should_take_on_is_refused(support: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "MOST_AT_ONCE", 1)
    chosen = [delivery(state="dead") for _ in range(2)]
    act(support, "retry", *chosen)
    assert set(Delivery.objects.values_list("state", flat=True)) == {"dead"}


@pytest.mark.parametrize(("action", "right"), [("retry", "retry_delivery"), ("ignore", "ignore_delivery")])
def test_an_action_without_its_right_is_neither_offered_nor_accepted(database: str, action: str, right: str) -> None:
    client = without(right)
    one = delivery(state="dead")
    assert f'value="{action}"' not in client.get(LIST).content.decode()
    assert f'value="{action}"' not in detail(client, one)
    act(client, action, one, confirmed="1", reason="because")
    one.refresh_from_db()
    assert one.state == "dead"
    assert not LogEntry.objects.exists()


def test_the_detail_page_offers_what_one_may_do(support: Client) -> None:
    body = detail(support, delivery(state="dead"))
    assert 'value="retry"' in body
    assert 'value="ignore"' in body


def test_nobody_adds_edits_or_deletes_a_delivery(database: str) -> None:
    client = signed_in(User.objects.create_superuser("root", password="a-long-enough-password"))
    one = delivery()
    assert client.get(f"{LIST}add/").status_code == 403
    assert client.post(f"{LIST}{one.pk}/change/", {"state": "dead"}).status_code == 403
    assert client.post(f"{LIST}{one.pk}/delete/", {"post": "yes"}).status_code == 403
    assert "delete_selected" not in client.get(LIST).content.decode()


def test_no_page_shows_a_token(admin: Client, link: Link, patient: Patient) -> None:
    Token.objects.create(
        link=link,
        access_token="access-in-the-clear",
        refresh_token="refresh-in-the-clear",
        expires_at=timezone.now(),
        issued_by="elsewhere",
    )
    one = delivery(link, headers={"Authorization": "Bearer upload-in-the-clear"})
    pages = (
        "/admin/",
        LIST,
        f"{LIST}{one.pk}/change/",
        "/admin/devices/link/",
        f"/admin/devices/link/{link.pk}/change/",
        "/admin/devices/patient/",
        f"/admin/devices/patient/{patient.pk}/change/",
    )
    for address in pages:
        response = admin.get(address)
        assert response.status_code == 200
        assert "in-the-clear" not in response.content.decode()
    assert admin.get("/admin/devices/token/").status_code == 404


def narrowed(client: Client, **query: str) -> set[int]:
    return listed(client, urlencode(query))


def test_deliveries_are_filtered_by_event_age_error_and_patient(support: Client, link: Link) -> None:
    now = timezone.now()
    mine = delivery(link, event_type="workout.updated", error_class="Refused")
    aged = delivery(received_at=now - timedelta(days=2))
    phone = delivery(vendor="healthkit", state="unlinked", vendor_user_id="user_1")
    assert narrowed(support, event="workout.updated") == {mine.pk}
    assert narrowed(support, error="Refused") == {mine.pk}
    assert narrowed(support, error="none") == {aged.pk, phone.pk}
    assert narrowed(support, patient="user_1") == {mine.pk, phone.pk}
    assert narrowed(support, age="hour") == {mine.pk, phone.pk}
    assert narrowed(support, age="over-day") == {aged.pk}
    assert narrowed(support, age="nonsense") == {mine.pk, aged.pk, phone.pk}


def test_the_list_is_sorted_along_indexes_only(support: Client) -> None:
    delivery()
    body = support.get(LIST).content.decode()
    assert set(re.findall(r'class="[^"]*sortable (column-\w+)', body)) <= {"column-id", "column-received"}


def test_a_choice_made_before_stays_when_a_text_filter_is_applied(support: Client) -> None:
    body = support.get(f"{LIST}?stuck=yes&age=hour&state__exact=dead&q=1").content.decode()
    form = body[body.index('id="filter-form"') :]
    for name, value in (("stuck", "yes"), ("age", "hour"), ("state__exact", "dead"), ("q", "1")):
        assert re.search(f'name="{name}" value="{value}"', form), name


def test_a_search_finds_the_dedup_key_and_the_patient_too(support: Client, link: Link) -> None:
    linked, other = delivery(link, dedup_key="key-of-mine"), delivery(vendor="whoop", dedup_key="key-of-other")
    assert listed(support, "q=key-of-mine") == {linked.pk}
    assert listed(support, "q=key-of-other") == {other.pk}
    assert listed(support, "q=user_1") == {linked.pk}


def test_tabs_say_how_many_are_in_each_state(support: Client) -> None:
    cache.clear()
    for state in ("dead", "dead", "received"):
        delivery(state=state)
    delivery(state="stored", outbox=b"x")
    tabs = {tab["title"]: tab for tab in support.get(LIST).context["tabs"]}
    counts = {title: str(tab["count"]) for title, tab in tabs.items() if title != "All"}
    assert {title for title, count in counts.items() if count == "0"} == {
        "retrying",
        "published",
        "ignored",
        "unlinked",
    }
    assert (counts["dead"], counts["received"], counts["stored"]) == ("2", "1", "1")
    for title, count in counts.items():
        assert len(listed(support, tabs[title]["address"].lstrip("?"))) == int(count)


def test_tabs_leave_numbers_out_where_a_filter_would_make_them_untrue(support: Client) -> None:
    delivery(state="dead")
    tabs = support.get(f"{LIST}?vendor__exact=whoop").context["tabs"]
    assert {tab.get("count") for tab in tabs} == {None}
    assert all("vendor__exact=whoop" in tab["address"] for tab in tabs)


def test_a_body_and_a_document_are_downloaded_as_they_are_and_that_is_in_the_log(support: Client) -> None:
    one = delivery(body=b'{"a": "\xff"}', document='{"b": 1}')
    answer = support.get(f"{LIST}{one.pk}/download/body/")
    assert answer.content == b'{"a": "\xff"}'
    assert answer["Content-Disposition"] == f'attachment; filename="delivery-{one.pk}-body.json"'
    assert answer["Content-Type"] == "application/octet-stream"
    assert support.get(f"{LIST}{one.pk}/download/document/").content == b'{"b": 1}'
    assert [entry.change_message for entry in LogEntry.objects.order_by("pk")] == [
        "downloaded the body",
        "downloaded the document",
    ]
    assert support.get(f"{LIST}{one.pk}/download/headers/").status_code == 404
    assert support.get(f"{LIST}{delivery().pk}/download/body/").status_code == 404


def test_without_the_right_to_payloads_nothing_is_downloaded(database: str) -> None:
    one = delivery(body=b"{}")
    client = without("view_payload")
    assert client.get(f"{LIST}{one.pk}/download/body/").status_code == 403
    assert "Download" not in detail(client, one)


def test_a_phones_waiting_deliveries_go_on_once_they_are_linked_to_a_patient(support: Client, patient: Patient) -> None:
    one, other = (delivery(vendor="healthkit", state="unlinked", vendor_user_id="old-name") for _ in range(2))
    assert 'value="link_to_patient"' in detail(support, one)
    assert "No patient has" in act(support, "link_to_patient", one, confirmed="1", external_id="x").content.decode()
    page = act(support, "link_to_patient", one, confirmed="1", external_id="user_1").content.decode()
    assert "2 waiting deliveries go on" in page
    assert Link.objects.get().patient == patient
    assert {again.state for again in Delivery.objects.filter(pk__in=[one.pk, other.pk])} == {"received"}


def test_a_vendors_account_linked_by_support_waits_until_it_is_connected(support: Client, patient: Patient) -> None:
    one = delivery(vendor="whoop", state="unlinked", vendor_user_id="w-1")
    page = act(support, "link_to_patient", one, confirmed="1", external_id="user_1").content.decode()
    assert "send an invitation" in page
    assert Link.objects.get().status == "expired"
    one.refresh_from_db()
    assert one.state == "unlinked"
    act(support, "link_to_patient", one, confirmed="1", external_id="user_1")
    assert Link.objects.count() == 1


def test_a_phones_samples_of_long_ago_are_found_as_long_as_their_body_is_kept(
    support: Client, patient: Patient
) -> None:
    one = push(heart_rate(48, datetime(2024, 2, 29, 12, tzinfo=UTC), uuid="old"))
    work()
    assert "2024-02-29 12:00:00" in support.get(f"{LIST}{one.pk}/samples/").content.decode()
    Delivery.objects.update(body=None)
    page = support.get(f"{LIST}{one.pk}/samples/").content.decode()
    assert "None is found in the timeline now." in page
    assert "what it carried is no longer kept" in page


def test_from_a_delivery_to_its_samples_and_back_in_clicks(
    support: Client, link: Link, ring: Source, patient: Patient
) -> None:
    one = delivery(link, patient_id=patient.pk, sample_count=1)
    store(ring, "heart_rate", 48, timezone.now() - timedelta(hours=3), patient_id=patient.pk, record="mine")
    store(ring, "heart_rate", 99, timezone.now() - timedelta(hours=3), patient_id=patient.pk, record="other")
    Sample.objects.filter(record="mine").update(delivery_id=one.pk)
    Sample.objects.filter(record="other").update(delivery_id=one.pk + 1)
    assert f'href="{LIST}{one.pk}/samples/"' in detail(support, one)
    page = support.get(f"{LIST}{one.pk}/samples/").content.decode()
    (address,) = re.findall(r'href="(/admin/biometrics/sample/\?patient[^"]+)"', page)
    body = support.get(unescape(address)).content.decode()
    assert "48 /min" in body
    assert "99 /min" not in body
    assert f'href="{LIST}{one.pk}/change/"' in body
