from datetime import timedelta

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.utils import timezone

from devices.models import Link, Patient
from tests.console.api.conftest import Caller, problem
from tests.console.api.test_problems import delivery
from webhooks.models import Attempt, Delivery

SECRET_COLUMNS = ("body", "document", "headers", "outbox", "refused", "lease_token", "dedup_key")


def test_a_delivery_is_shown_with_its_tries_and_without_what_it_carried(sam: Caller, patient: Patient) -> None:
    one = delivery(patient, state="dead", error="oura answered 403")
    Attempt.objects.create(
        delivery=one, number=1, stage="fetch", started_at=timezone.now(), duration_ms=3, outcome="dead"
    )
    shown = sam.get(f"/deliveries/{one.pk}").json()
    assert (shown["state"], shown["error"], shown["tries"][0]["stage"]) == ("dead", "oura answered 403", "fetch")
    (listed,) = sam.get("/deliveries").json()["results"]
    assert set(SECRET_COLUMNS).isdisjoint(shown)
    assert set(SECRET_COLUMNS).isdisjoint(listed)
    assert "deep" not in str([shown, listed])


def test_what_it_carried_takes_a_right_of_its_own(sam: Caller, patient: Patient) -> None:
    one = delivery(patient, state="dead")
    assert sam.get(f"/deliveries/{one.pk}/payload").json()["body"] == '{"sleep": "deep"}'
    bare = Caller(User.objects.create_user("bare"))
    bare.user.user_permissions.add(Permission.objects.get(codename="view_delivery"))
    assert bare.get(f"/deliveries/{one.pk}").status_code == 200
    assert problem(bare.get(f"/deliveries/{one.pk}/payload")) == (403, "forbidden")
    assert problem(bare.post(f"/deliveries/{one.pk}/retry")) == (403, "forbidden")


def test_the_list_is_narrowed_by_what_it_can_be_asked_with(sam: Caller, patient: Patient, link: Link) -> None:
    delivery(patient, state="dead", link=link)
    for path, count in (
        ("state=dead", 1), ("state=stored", 0), ("vendor=oura", 1), ("vendor=whoop", 0), ("origin=webhook", 1),
        (f"link_id={link.pk}", 1), (f"patient_id={patient.pk}", 1), (f"patient_id={patient.pk + 1}", 0),
        ("from=2026-01-01T00:00:00Z", 1), ("to=2026-01-01T00:00:00Z", 0),
    ):  # fmt: skip
        assert len(sam.get(f"/deliveries?{path}").json()["results"]) == count, path


def test_a_retry_is_one_more_try_and_leaves_a_trace(sam: Caller, patient: Patient) -> None:
    one = delivery(patient, state="dead")
    answer = sam.post(f"/deliveries/{one.pk}/retry")
    assert (answer.status_code, answer.json()["state"]) == (202, "received")
    assert Delivery.objects.get().error == "tried again by sam"
    entry = LogEntry.objects.get()
    assert (entry.user, entry.object_id, entry.change_message) == (
        sam.user,
        str(one.pk),
        "tried again, through the API",
    )


def test_what_cannot_be_retried_says_why(sam: Caller, patient: Patient) -> None:
    held = delivery(patient, state="received", lease_until=timezone.now() + timedelta(minutes=1))
    answer = sam.post(f"/deliveries/{held.pk}/retry")
    assert problem(answer) == (409, "not-possible")
    assert "a worker has it" in answer.json()["detail"]
    assert not LogEntry.objects.exists()
    assert problem(sam.post(f"/deliveries/{held.pk + 1}/retry")) == (404, "not-found")


def test_a_delivery_is_ignored_with_a_reason(sam: Caller, patient: Patient) -> None:
    one = delivery(patient, state="dead")
    answer = sam.post(f"/deliveries/{one.pk}/ignore", {"reason": "a test account"})
    assert (answer.status_code, answer.json()["state"]) == (200, "ignored")
    assert "a test account" in Delivery.objects.get().error
    assert problem(sam.post(f"/deliveries/{one.pk}/ignore", {"reason": "again"})) == (409, "not-possible")
