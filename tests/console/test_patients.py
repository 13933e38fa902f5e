from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from auren.biometrics.models import Source
from devices.models import Assignment, Link, Patient
from tests.biometrics.stored import dispute, store
from tests.console.conftest import NOW, person, signed_in


def page(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


def test_whoever_is_not_signed_in_is_asked_to_sign_in(database: str, patient: Patient) -> None:
    for address in ("/", f"/patients/{patient.pk}/"):
        response = Client().get(address)
        assert (response.status_code, response.headers["Location"]) == (302, f"/sign-in/?next={address}")


@pytest.mark.parametrize("name", ["clara", "nobody"])
def test_a_failed_sign_in_does_not_tell_whether_the_user_exists(clinician: User, name: str) -> None:
    body = Client().post("/sign-in/", {"username": name, "password": "wrong"}).content.decode()
    assert "That name and password do not match an account that may sign in." in body


def test_a_disabled_user_is_told_the_same(clinician: User) -> None:
    User.objects.update(is_active=False)
    body = Client().post("/sign-in/", {"username": "clara", "password": "a-long-enough-password"}).content.decode()
    assert "That name and password do not match an account that may sign in." in body


def test_a_clinician_signs_in_and_lands_among_their_patients(clinician: User, assigned: Assignment) -> None:
    client = Client()
    response = client.post("/sign-in/", {"username": "clara", "password": "a-long-enough-password"})
    assert (response.status_code, response.headers["Location"]) == (302, "/")
    assert "Ada Nowak" in page(client, "/")


def test_a_sign_in_sends_nobody_to_another_site(clinician: User) -> None:
    named = {"username": "clara", "password": "a-long-enough-password", "next": "https://elsewhere.example/"}
    assert Client().post("/sign-in/", named).headers["Location"] == "/"


def test_signing_out_takes_a_post(clinic: Client) -> None:
    assert clinic.get("/sign-out/").status_code == 405
    assert clinic.post("/sign-out/").status_code == 302
    assert clinic.get("/").status_code == 302


def test_my_patients_are_those_assigned_to_me_now(clinic: Client, clinician: User, assigned: Assignment) -> None:
    for name, since, until in (("Past", -3, -1), ("Coming", 1, None), ("Still", -3, 1)):
        one = Patient.objects.create(external_id=name, display_name=name)
        starts, ends = NOW + timedelta(days=since), NOW + timedelta(days=until) if until else None
        Assignment.objects.create(clinician=clinician, patient=one, since=starts, until=ends)
    Assignment.objects.create(
        clinician=person("other", "clinician"),
        patient=Patient.objects.create(external_id="theirs", display_name="Theirs"),
    )
    body = page(clinic, "/")
    assert [name in body for name in ("Ada Nowak", "Still", "Past", "Coming", "Theirs")] == [True, True, *[False] * 3]


def test_a_patient_assigned_twice_is_listed_once(clinic: Client, clinician: User, assigned: Assignment) -> None:
    Assignment.objects.create(clinician=clinician, patient=assigned.patient)
    assert page(clinic, "/").count("Ada Nowak") == 1


def test_the_list_shows_last_data_devices_and_open_conflicts(
    clinic: Client, assigned: Assignment, patient: Patient, ring: Source
) -> None:
    Link.objects.update(status="expired")
    store(ring, "heart_rate", 50, timezone.now() - timedelta(hours=3), patient_id=patient.pk)
    for state in ("open", "settled"):
        start_at = NOW - timedelta(hours=5 if state == "open" else 6)
        dispute("steps", start_at, NOW, {ring: 1}, ring, patient_id=patient.pk, state=state)
    body = page(clinic, "/")
    assert "3\xa0hours ago" in body
    assert "Oura <b>expired</b>" in body
    assert '<span class="flag">1</span>' in body


def test_the_list_flags_silence_and_what_is_unusual_for_the_patient(
    clinic: Client, assigned: Assignment, patient: Patient, ring: Source
) -> None:
    for day in range(30):
        at = timezone.now() - timedelta(days=30 - day, hours=1)
        store(ring, "resting_heart_rate", 50 + day % 3, at, at + timedelta(minutes=1), patient_id=patient.pk)
    assert "no data for" not in page(clinic, "/")
    at = timezone.now() - timedelta(minutes=5)
    store(ring, "resting_heart_rate", 71, at, at + timedelta(minutes=1), patient_id=patient.pk)
    assert "Resting heart rate 71 bpm (usual 47 to 55)" in page(clinic, "/")


def test_the_list_says_for_how_long_nothing_came(
    clinic: Client, assigned: Assignment, patient: Patient, ring: Source
) -> None:
    store(ring, "heart_rate", 50, timezone.now() - timedelta(days=5, hours=1), patient_id=patient.pk)
    assert "no data for 5 days" in page(clinic, "/?sort=flags")


def test_patients_are_searched_by_name_and_number(clinic: Client, assigned: Assignment) -> None:
    assert "Ada Nowak" in page(clinic, "/?q=nowak")
    assert "Ada Nowak" in page(clinic, "/?q=USER_1")
    assert "None of your patients matches" in page(clinic, "/?q=%00<i>")


def test_patients_are_sorted_by_silence_or_by_conflicts(
    clinic: Client, clinician: User, assigned: Assignment, patient: Patient, ring: Source
) -> None:
    quiet = Patient.objects.create(external_id="user_2", display_name="Zoe Quiet")
    Assignment.objects.create(clinician=clinician, patient=quiet)
    store(ring, "heart_rate", 50, timezone.now(), patient_id=patient.pk)
    dispute("steps", NOW, NOW, {ring: 1}, ring, patient_id=quiet.pk, state="open")
    for sort, first in (("name", "Ada Nowak"), ("last", "Zoe Quiet"), ("conflicts", "Zoe Quiet"), ("x", "Ada Nowak")):
        body = page(clinic, f"/?sort={sort}")
        assert min(("Ada Nowak", "Zoe Quiet"), key=body.index) == first


def test_the_list_takes_as_many_queries_for_many_patients_as_for_one(
    clinic: Client, clinician: User, assigned: Assignment, django_assert_num_queries: object
) -> None:
    for number in range(20):
        one = Patient.objects.create(external_id=f"more_{number}", display_name=f"More {number}")
        Link.objects.create(patient=one, vendor="oura", vendor_user_id=f"more_{number}")
        Assignment.objects.create(clinician=clinician, patient=one)
    page(clinic, "/")  # begins the session
    with django_assert_num_queries(17):  # type: ignore[operator]
        page(clinic, "/")


@pytest.mark.parametrize("role", ["support", "admin"])
def test_support_without_patients_is_shown_the_way_to_the_admin(database: str, role: str) -> None:
    body = page(signed_in(person("p", role)), "/")
    assert "No patient is assigned to you" in body
    assert 'href="/admin/"' in body


def test_a_superuser_is_no_clinician(database: str, patient: Patient) -> None:
    root = User.objects.create_superuser("root", password="a-long-enough-password")
    Assignment.objects.create(clinician=root, patient=patient)
    client = signed_in(root)
    assert "No patient is assigned to you" in page(client, "/")
    assert client.get(f"/patients/{patient.pk}/").status_code == 404


def test_leaving_the_clinicians_ends_what_was_assigned(
    clinic: Client, clinician: User, assigned: Assignment, patient: Patient
) -> None:
    clinician.groups.clear()
    assert clinic.get(f"/patients/{patient.pk}/").status_code == 404


def test_an_assigned_patients_page_names_patient_zone_devices_and_its_limits(
    clinic: Client, assigned: Assignment, patient: Patient, link: Link
) -> None:
    body = page(clinic, f"/patients/{patient.pk}/")
    for text in ("Ada Nowak", "Europe/Berlin", "Oura <b>active</b>", "not heard from yet", "This is not a real-time"):
        assert text in body


def test_the_address_holds_the_view(clinic: Client, assigned: Assignment, patient: Patient) -> None:
    asked = "from=2026-03-01T00:00:00Z&to=2026-03-08T00:00:00Z&sources=all"
    view = clinic.get(f"/patients/{patient.pk}/?{asked}").context["view"]
    assert (view["to"] - view["from"], view["every_source"]) == (7 * 86_400, True)
    view = clinic.get(f"/patients/{patient.pk}/?days=1").context["view"]
    assert (view["to"] - view["from"], view["every_source"]) == (86_400, False)


def test_an_address_that_holds_no_view_shows_the_usual_one_and_says_why(
    clinic: Client, assigned: Assignment, patient: Patient
) -> None:
    body = page(clinic, f"/patients/{patient.pk}/?from=yesterday")
    assert "The address asks for a view that cannot be shown: `from` is not a time" in body


@pytest.mark.parametrize("address", ["/patients/{}/", "/patients/{}/timeline.json"])
def test_an_unassigned_an_ended_and_an_unknown_patient_all_answer_404(
    clinic: Client, clinician: User, patient: Patient, address: str
) -> None:
    assert clinic.get(address.format(patient.pk)).status_code == 404
    Assignment.objects.create(clinician=clinician, patient=patient, until=timezone.now())
    answers = [clinic.get(address.format(pk)).status_code for pk in (patient.pk, 10**6, 10**30, "x", "-1")]
    assert answers == [404] * 5


def test_the_pages_carry_no_inline_script_or_style(clinic: Client, assigned: Assignment, patient: Patient) -> None:
    for address in ("/", f"/patients/{patient.pk}/"):
        response = clinic.get(address)
        body = response.content.decode()
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        assert "style=" not in body
        assert "<style" not in body
        assert all("src=" in tag or "application/json" in tag for tag in body.split("<script")[1:])


def test_pages_with_health_data_are_not_kept_by_browsers_or_proxies(
    clinic: Client, assigned: Assignment, patient: Patient
) -> None:
    for address in ("/", f"/patients/{patient.pk}/", f"/patients/{patient.pk}/timeline.json"):
        assert clinic.get(address).headers["Cache-Control"] == "private, no-store"


def test_a_name_full_of_markup_is_shown_as_text(clinic: Client, assigned: Assignment, patient: Patient) -> None:
    Patient.objects.update(display_name="<script>alert(1)</script>")
    for address in ("/", f"/patients/{patient.pk}/"):
        assert "<script>alert" not in page(clinic, address)
