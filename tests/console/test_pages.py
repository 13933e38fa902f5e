import pytest
from django.template.loader import render_to_string
from django.test import Client

from auren.console.lanes import LANES
from devices.models import Patient


@pytest.mark.parametrize("path", ["/nothing/", "/patients/99999/"])
def test_what_is_not_there_has_a_page_of_ours(clinic: Client, path: str) -> None:
    answer = clinic.get(path)
    assert answer.status_code == 404
    assert "console/console.css" in answer.content.decode()


def test_somebody_elses_patient_looks_like_nobody(clinic: Client, patient: Patient) -> None:
    theirs, nobodys = clinic.get(f"/patients/{patient.pk}/"), clinic.get("/patients/99999/")
    assert (theirs.status_code, nobodys.status_code) == (404, 404)
    assert "There is no such page" in theirs.content.decode()
    assert patient.display_name not in theirs.content.decode()


def test_a_form_without_its_token_is_told_to_load_the_page_again() -> None:
    answer = Client(enforce_csrf_checks=True).post("/sign-in/", {})
    assert answer.status_code == 403
    assert "That page was too old" in answer.content.decode()


def test_the_page_of_a_failure_needs_neither_context_nor_database() -> None:
    page = render_to_string("500.html")
    assert "Something failed here" in page
    assert "console/console.css" in page


def test_a_browser_that_asks_for_the_icon_finds_it() -> None:
    assert Client().get("/favicon.ico").headers["Location"] == "/static/console/icon.svg"


def test_the_lanes_can_be_reached_and_moved_by_keys(clinic: Client, patient: Patient, assigned: object) -> None:
    page = clinic.get(f"/patients/{patient.pk}/").content.decode()
    assert page.count('tabindex="0" aria-labelledby="title-') == len(LANES)
    assert 'id="keys"' in page
