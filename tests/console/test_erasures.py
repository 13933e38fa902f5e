"""Erasing from the admin: who may, what has to be typed, and what is said afterwards."""

import pytest
from django.test import Client
from django.urls import reverse

from devices.models import Erasure, Link, Patient
from tests.console.conftest import person
from webhooks.erasure import erase
from webhooks.models import Delivery

TYPED = {"external_id": "user_1", "reason": "asked for it in writing"}


def page(patient: Patient) -> str:
    return reverse("admin:devices_erasure_erase_patient", args=[patient.pk])


def there(patient: Patient) -> bool:
    return Patient.objects.filter(pk=patient.pk).exists()


def test_the_page_says_what_goes_and_asks_for_the_external_id(admin: Client, patient: Patient, link: Link) -> None:
    Delivery.objects.create(vendor="oura", dedup_key="a", event_type="x", vendor_user_id="oura-1", link=link)
    body = admin.get(page(patient)).content.decode()
    for text in ("Ada Nowak", "Oura, active", "1 delivery", "external id to confirm", "Erase for good"):
        assert text in body
    assert there(patient)


def test_with_the_external_id_typed_the_patient_is_erased(admin: Client, patient: Patient, link: Link) -> None:
    response = admin.post(page(patient), TYPED, follow=True)
    body = response.content.decode()
    assert not there(patient)
    record = Erasure.objects.get()
    assert (record.requested_by, record.reason) == ("ada", TYPED["reason"])
    assert "The patient user_1 was erased." in body
    assert "devices_link 1" in body
    assert f"delivery {record.delivery_id}" in body
    assert "Ada Nowak" not in body


@pytest.mark.parametrize("typed", ["", "user_2", "USER_1", "Ada Nowak"])
def test_another_text_is_refused(admin: Client, patient: Patient, typed: str) -> None:
    response = admin.post(page(patient), {**TYPED, "external_id": typed})
    assert response.status_code == 200
    assert there(patient)
    assert not Erasure.objects.exists()


def test_without_a_reason_it_is_refused(admin: Client, patient: Patient) -> None:
    admin.post(page(patient), {**TYPED, "reason": " "})
    assert there(patient)


def test_a_get_with_everything_in_it_erases_nobody(admin: Client, patient: Patient) -> None:
    admin.get(page(patient), TYPED)
    assert there(patient)


def test_support_and_clinicians_may_not(support: Client, clinic: Client, patient: Patient) -> None:
    for client in (support, clinic):
        assert client.get(page(patient)).status_code in {302, 403}
        assert client.post(page(patient), TYPED).status_code in {302, 403}
    assert support.post(page(patient), TYPED).status_code == 403
    assert there(patient)


def test_a_form_from_elsewhere_is_refused(database: str, patient: Patient) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(person("ada", "admin"))
    assert client.post(page(patient), TYPED).status_code == 403
    assert there(patient)


def test_a_second_time_it_says_that_there_is_no_such_patient(admin: Client, patient: Patient) -> None:
    address = page(patient)
    admin.post(address, TYPED)
    body = admin.post(address, TYPED, follow=True).content.decode()
    assert "There is no such patient, or not any more." in body
    assert Erasure.objects.count() == 1


def test_support_finds_who_was_erased_and_can_change_nothing(support: Client, patient: Patient) -> None:
    record = erase(patient, by="ada", reason="asked for it")
    body = support.get("/admin/devices/erasure/?q=user_1").content.decode()
    for text in ("user_1", "ada", "asked for it"):
        assert text in body
    change = support.get(f"/admin/devices/erasure/{record.pk}/change/")
    assert "devices_patient 1" in change.content.decode()
    assert support.post(f"/admin/devices/erasure/{record.pk}/delete/", {"post": "yes"}).status_code == 403
    assert support.get("/admin/devices/erasure/add/").status_code == 403


def test_a_clinician_may_not_see_who_was_erased(clinic: Client, patient: Patient) -> None:
    assert clinic.get("/admin/devices/erasure/").status_code == 302
