import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin as django_admin
from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from auren.biometrics.models import Sample, Source
from auren.console import roles
from auren.console.admin.samples import SampleSearch
from devices.models import ApiKey, Assignment, Link, Patient
from tests.biometrics.stored import dispute, store
from tests.console.conftest import NOW, person, signed_in

OURS = ("biometrics", "devices", "webhooks", "console")
SAMPLES = "/admin/biometrics/sample/"


def ours() -> list[Any]:
    return [page for model, page in django_admin.site._registry.items() if model._meta.app_label in OURS]


def text(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


def test_a_clinician_has_no_way_into_the_admin(clinic: Client) -> None:
    assert clinic.get("/admin/").status_code == 302
    assert clinic.get("/admin/webhooks/delivery/").status_code == 302


def test_each_role_has_exactly_its_rights(database: str) -> None:
    for name, rights in roles.ROLES.items():
        found = Group.objects.get(name=name).permissions.values_list("content_type__app_label", "codename")
        assert {f"{app}.{codename}" for app, codename in found} == set(rights)


def test_migrating_again_mends_what_was_changed_by_hand(database: str) -> None:
    Group.objects.get(name="support").permissions.clear()
    Group.objects.filter(name="admin").delete()
    call_command("migrate", verbosity=0)
    test_each_role_has_exactly_its_rights(database)


def test_a_person_has_one_role_at_a_time(database: str) -> None:
    user = person("pat", "support")
    assert user.is_staff
    roles.give(user, "clinician")
    assert (list(user.groups.values_list("name", flat=True)), user.is_staff) == (["clinician"], False)


def test_every_action_of_every_page_needs_a_right(database: str) -> None:
    request = RequestFactory().get("/admin/")
    request.user = AnonymousUser()
    for page in ours():
        assert page.get_actions(request) == {}


def test_tokens_attempts_and_leases_have_no_page_of_their_own(database: str) -> None:
    shown = {type(page).__name__ for page in ours()}
    assert shown == {
        "AccessTokenAdmin",
        "ApiKeyAdmin",
        "AssignmentAdmin",
        "ConflictAdmin",
        "DeliveryAdmin",
        "ErasureAdmin",
        "ExportAdmin",
        "InvitationAdmin",
        "LinkAdmin",
        "PatientAdmin",
        "ReplayAdmin",
        "SampleAdmin",
        "SourceAdmin",
        "SubscriptionAdmin",
    }
    assert not django_admin.site.is_registered(apps.get_model("devices", "Token"))


def test_a_patients_name_and_zone_are_edited_and_the_external_id_is_not(support: Client, patient: Patient) -> None:
    address = f"/admin/devices/patient/{patient.pk}/change/"
    links = {"links-TOTAL_FORMS": "0", "links-INITIAL_FORMS": "0"}
    sent = {"external_id": "stolen", "display_name": "Ada N.", "timezone": "Asia/Kathmandu", **links}
    assert support.post(address, sent).status_code == 302
    patient.refresh_from_db()
    assert (patient.external_id, patient.display_name, patient.timezone) == ("user_1", "Ada N.", "Asia/Kathmandu")


@pytest.mark.parametrize("zone", ["Middle/Earth", "../etc/passwd", "CET+1", "Europe"])
def test_a_zone_that_is_none_is_refused_in_words(support: Client, patient: Patient, zone: str) -> None:
    address = f"/admin/devices/patient/{patient.pk}/change/"
    links = {"links-TOTAL_FORMS": "0", "links-INITIAL_FORMS": "0"}
    body = support.post(address, {"display_name": "A", "timezone": zone, **links}).content.decode()
    assert "is no IANA time zone. Use a name such as Europe/Berlin." in body


def test_only_admins_add_patients_and_nobody_deletes_one(support: Client, admin: Client, patient: Patient) -> None:
    assert support.get("/admin/devices/patient/add/").status_code == 403
    assert admin.get("/admin/devices/patient/add/").status_code == 200
    assert admin.post(f"/admin/devices/patient/{patient.pk}/delete/", {"post": "yes"}).status_code == 403


def test_links_are_read_only_and_say_since_when(support: Client, link: Link) -> None:
    Link.objects.update(status="stale", status_since=timezone.now() - timedelta(hours=2), paused_at=timezone.now())
    body = text(support, f"/admin/devices/link/{link.pk}/change/")
    assert "state-stale" in body
    assert "2\xa0hours ago" in body
    assert support.post(f"/admin/devices/link/{link.pk}/change/", {"status": "active"}).status_code == 403


def test_an_admin_assigns_a_patient_to_a_clinician_and_to_nobody_else(
    admin: Client, clinician: User, patient: Patient
) -> None:
    sent = {"patient": patient.pk, "since_0": "2026-01-01", "since_1": "00:00:00", "until_0": "", "until_1": ""}
    helper = person("helper", "support")
    assert admin.post("/admin/devices/assignment/add/", {**sent, "clinician": helper.pk}).status_code == 200
    assert admin.post("/admin/devices/assignment/add/", {**sent, "clinician": clinician.pk}).status_code == 302
    assert Assignment.objects.get().clinician == clinician


def test_support_sees_assignments_but_makes_none(support: Client, assigned: Assignment) -> None:
    assert "clara" in text(support, "/admin/devices/assignment/")
    assert support.get("/admin/devices/assignment/add/").status_code == 403


def test_a_keys_page_names_its_owner_and_patients_and_never_the_digest(admin: Client, patient: Patient) -> None:
    key, secret = ApiKey.issue("Phone of Ada", patient)
    for address in ("/admin/devices/apikey/", f"/admin/devices/apikey/{key.pk}/change/"):
        body = text(admin, address)
        assert "Phone of Ada" in body
        assert secret not in body
        assert bytes(key.digest).hex() not in body


def test_keys_are_called_api_keys(admin: Client) -> None:
    assert "<span>API keys</span>" in text(admin, "/admin/")
    assert "Select API key" in text(admin, "/admin/devices/apikey/")


def test_revoking_a_key_is_confirmed_first_and_logged(admin: Client, patient: Patient) -> None:
    key, _ = ApiKey.issue("Phone of Ada", patient)
    chosen = {"action": "revoke", "_selected_action": [str(key.pk)]}
    assert "refused within seconds" in admin.post("/admin/devices/apikey/", chosen).content.decode()
    key.refresh_from_db()
    assert key.revoked_at is None
    admin.post("/admin/devices/apikey/", {**chosen, "confirmed": "1"})
    key.refresh_from_db()
    assert key.revoked_at is not None
    assert "revoked" in text(admin, f"/admin/devices/apikey/{key.pk}/history/")


def test_support_may_not_revoke_a_key(support: Client, patient: Patient) -> None:
    key, _ = ApiKey.issue("Phone of Ada", patient)
    support.post("/admin/devices/apikey/", {"action": "revoke", "_selected_action": [str(key.pk)], "confirmed": "1"})
    key.refresh_from_db()
    assert key.revoked_at is None


def test_conflicts_name_patient_devices_and_values(support: Client, patient: Patient, ring: Source) -> None:
    dispute("heart_rate", NOW, NOW, {ring: 48}, ring, patient_id=patient.pk, rule="recency", state="open")
    narrow = ("?q=user_1", "?state__exact=open", "?metric=1", "?rule=recency", "?age=day", "?patient=user_1")
    for address in ("", *narrow):
        body = text(support, f"/admin/biometrics/conflict/{address}")
        assert "Oura ring: 48 bpm" in body
        assert "user_1" in body
    others = ("?q=nobody", "?metric=2", "?state__exact=settled", "?rule=person", "?age=over-week", "?patient=nobody")
    for address in others:
        assert "Oura ring: 48 bpm" not in text(support, f"/admin/biometrics/conflict/{address}")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("person", "a person decided"),
        ("patient_order", "this patient's order of devices"),
        ("metric_order", "the metric's order of devices"),
        ("recency", "the newer revision"),
    ],
)
def test_a_conflict_is_titled_and_explained_in_words(
    support: Client, patient: Patient, ring: Source, rule: str, words: str
) -> None:
    one = dispute("heart_rate", NOW, NOW, {ring: 48}, ring, patient_id=patient.pk, rule=rule)
    body = unescape(text(support, f"/admin/biometrics/conflict/{one.pk}/change/"))
    title = f"Heart rate of Ada Nowak (user_1), {NOW:%Y-%m-%d %H:%M:%S} UTC"
    assert f'<span class="here">{title}</span>' in body
    assert f"patient {patient.pk}, metric 1" not in body
    assert words in body
    listed = unescape(text(support, "/admin/biometrics/conflict/"))
    assert words in listed
    assert "Ada Nowak (user_1)" in listed


@pytest.mark.parametrize(("days", "first"), [("1", 0), ("7", 6), ("14", 13)])
def test_samples_of_the_last_days_are_found_without_typing_dates(
    support: Client, patient: Patient, ring: Source, days: str, first: int
) -> None:
    today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    since = today - timedelta(days=first)
    for value, at in ((41, since - timedelta(seconds=1)), (42, since), (43, today)):
        store(ring, "heart_rate", value, at, patient_id=patient.pk, record=f"at {at}, {value}")
    empty = "start_at=&end_at="
    body = text(support, f"{SAMPLES}?patient=user_1&metric=1&{empty}&days={days}")
    assert ("41 /min" in body, "42 /min" in body, "43 /min" in body) == (False, True, True)
    assert f'value="{since:%Y-%m-%dT%H:%M}"' in body
    assert f'name="days" value="{days}"' in body


def test_samples_are_listed_for_a_patient_a_metric_and_a_range_only(
    support: Client, patient: Patient, ring: Source
) -> None:
    store(ring, "heart_rate", 48, NOW - timedelta(minutes=5), patient_id=patient.pk, record="record-of-ada")
    with CaptureQueriesContext(connection) as asked:
        assert "Choose a patient, a metric and a range" in text(support, SAMPLES)
    assert not any("biometrics_sample" in query["sql"] for query in asked.captured_queries)
    start, end = f"{NOW - timedelta(hours=1):%Y-%m-%dT%H:%M}", f"{NOW + timedelta(hours=1):%Y-%m-%dT%H:%M}"
    body = text(support, f"{SAMPLES}?patient=user_1&metric=1&start_at={start}&end_at={end}")
    for shown in ("Heart rate of", "48 /min", "Oura ring", "record-of-ada", "/admin/webhooks/delivery/1/change/"):
        assert shown in body
    assert "No sample of this metric" in text(
        support, f"{SAMPLES}?patient=user_1&metric=2&start_at={start}&end_at={end}"
    )


def test_a_long_range_is_read_in_pages_that_leave_nothing_out_and_repeat_nothing(
    support: Client, patient: Patient, ring: Source, watch: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auren.console.admin.samples.PAGE", 2)
    moments = (NOW, NOW, NOW + timedelta(microseconds=1), NOW, NOW)
    for place, at in enumerate(moments):
        by = watch if place == 3 else ring
        store(by, "heart_rate", 41 + place, at, patient_id=patient.pk, record=f"~{place}")
    start, end = f"{NOW:%Y-%m-%dT%H:%M}", f"{NOW + timedelta(hours=1):%Y-%m-%dT%H:%M}"
    address, read = f"?patient=user_1&metric=1&start_at={start}&end_at={end}", list[list[str]]()
    for _ in range(3):
        page = support.get(f"{SAMPLES}{address}").context
        read.append([row.amount for row in page["rows"]])
        address = page["older"]
    assert (read, address) == ([["43 /min", "44 /min"], ["45 /min", "42 /min"], ["41 /min"]], "")
    assert "older" not in page["newest"]


@pytest.mark.parametrize("older", ["x", "2026-01-01~1~r", "2026-01-01T00:00:00+00:00~-1~r", "~~", "~1~r"])
def test_a_page_that_the_address_makes_up_is_refused_in_words(support: Client, patient: Patient, older: str) -> None:
    assert "names no page of these samples" in text(support, f"{SAMPLES}?patient=user_1&older={older}")


def test_what_is_missing_in_a_search_is_the_last_day_of_heart_rate(
    support: Client, patient: Patient, ring: Source
) -> None:
    for value, ago in ((41, 25), (42, 23), (43, 0)):
        store(ring, "heart_rate", value, timezone.now() - timedelta(hours=ago), patient_id=patient.pk)
    page = support.get(f"{SAMPLES}?patient=user_1")
    assert [row.amount for row in page.context["rows"]] == ["43 /min", "42 /min"]
    day = {"start_at": "2026-11-01T00:00", "end_at": "2026-11-02T00:00"}
    for name, at in day.items():
        form = support.get(f"{SAMPLES}?patient=user_1&{name}={at}").context["form"]
        assert {name: form.data[name] for name in day} == day


def test_a_search_without_a_patient_asks_whose(support: Client) -> None:
    assert "Say whose samples: a patient" in text(support, f"{SAMPLES}?metric=1")


def test_where_there_is_nothing_the_page_leads_to_where_there_is(
    support: Client, patient: Patient, ring: Source
) -> None:
    day = "start_at=2026-11-01T00:00&end_at=2026-11-02T00:00"
    assert "none at any other time either" in text(support, f"{SAMPLES}?patient=user_1&{day}")
    for value, at in ((41, datetime(2026, 10, 1, tzinfo=UTC)), (42, datetime(2026, 11, 3, tzinfo=UTC))):
        store(ring, "heart_rate", value, at, patient_id=patient.pk)
    page = support.get(f"{SAMPLES}?patient=user_1&{day}")
    found = [support.get(f"{SAMPLES}{address}").context["rows"] for _, address in page.context["nearest"]]
    assert [[row.amount for row in rows] for rows in found] == [["41 /min"], ["42 /min"]]


def test_a_samples_time_is_by_the_clock_on_the_wall_where_the_device_was(
    support: Client, patient: Patient, ring: Source
) -> None:
    at = datetime(2026, 7, 1, 12, tzinfo=UTC)
    store(ring, "heart_rate", 48, at, patient_id=patient.pk)
    Sample.objects.update(utc_offset_minutes=345)
    store(ring, "heart_rate", 49, at, patient_id=patient.pk, record="without an offset")
    body = text(support, f"{SAMPLES}?patient=user_1&start_at=2026-07-01T00:00")
    for shown in ("2026-07-01 17:45:00 +05:45", "2026-07-01 14:00:00 +02:00", "2026-07-01 12:00:00 UTC"):
        assert shown in body


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (
            "patient=nobody&metric=1&start_at=2026-01-01T00:00&end_at=2026-01-02T00:00",
            "No patient has this external id.",
        ),
        ("patient=user_1&metric=1&start_at=2026-01-02T00:00&end_at=2026-01-01T00:00", "The range must end after"),
        ("patient=user_1&metric=1&start_at=2020-01-01T00:00&end_at=2026-01-01T00:00", "366 days or less"),
        ("patient=user_1&metric=99&start_at=2026-01-01T00:00&end_at=2026-01-02T00:00", "Select a valid choice."),
        ("patient=user_1&metric=1&start_at=today&end_at=2026-01-02T00:00", "Enter a valid date/time."),
    ],
)
def test_a_search_for_samples_that_makes_no_sense_says_why(
    support: Client, patient: Patient, query: str, reason: str
) -> None:
    assert reason in text(support, f"{SAMPLES}?{query}")


def test_a_sample_has_no_page_of_its_own_because_nothing_finds_it_by_id(support: Client) -> None:
    assert support.get(f"{SAMPLES}1/change/").status_code == 404


def test_samples_need_their_right(database: str) -> None:
    user = person("no-rights", "support")
    user.groups.clear()
    assert signed_in(user).get(SAMPLES).status_code == 403


def policy(client: Client, address: str) -> dict[str, str]:
    header = client.get(address).headers["Content-Security-Policy"]
    return dict(part.strip().split(" ", 1) for part in header.split(";"))


def test_clinicians_pages_run_under_the_strict_policy(clinic: Client, assigned: Assignment) -> None:
    for address in ("/", f"/patients/{assigned.patient_id}/"):
        assert policy(clinic, address)["default-src"] == "'self'"
        assert "unsafe" not in str(policy(clinic, address))


@pytest.mark.parametrize("page", ["", "webhooks/delivery/", "devices/patient/add/", "biometrics/sample/"])
def test_the_admins_policy_allows_what_alpine_needs_and_nothing_more(admin: Client, clinic: Client, page: str) -> None:
    allowed = policy(admin, f"/admin/{page}")
    more = {name: value for name, value in allowed.items() if policy(clinic, "/").get(name) != value}
    assert more == {
        "script-src": "'self' 'unsafe-eval'",
        "style-src": "'self'",
        "style-src-attr": "'unsafe-inline'",
    }


def test_the_sign_in_has_the_strict_policy_for_the_admin_too(database: str) -> None:
    assert "unsafe" not in str(policy(Client(), "/sign-in/?next=/admin/"))


@pytest.mark.parametrize("page", ["", "webhooks/delivery/", "devices/patient/add/", "biometrics/sample/"])
def test_nothing_stands_within_an_admin_page_that_the_policy_would_refuse(admin: Client, page: str) -> None:
    body = text(admin, f"/admin/{page}")
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)(?![^>]*application/json)|\son[a-z]+=", body)
    assert not re.search(r"(?:src|href)=.(?:https?:)?//", body)


def test_samples_are_searched_along_their_key(patient: Patient, ring: Source) -> None:
    store(ring, "heart_rate", 48, NOW, patient_id=patient.pk)
    asked = {"patient": "user_1", "metric": "1", "start_at": "2026-11-01T00:00", "end_at": "2026-11-08T00:00"}
    form = SampleSearch(asked)
    assert form.is_valid()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        plan = form.samples()[:200].explain()
    assert re.search(r"Index Cond: \(\(patient_id = \d+\) AND \(metric = \d+\) AND \(start_at >= ", plan)
    assert plan.count("using biometrics_sample") == 1  # of the one month's partition
    form = SampleSearch({**asked, "older": "2026-11-07T00:00:00+00:00~5~r"})
    assert form.is_valid()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        plan = form.samples()[:200].explain()
    assert re.search(r"Index Cond: .*start_at <= '2026-11-07", plan)
    assert "Sort" not in plan
