"""Asking, watching, downloading, cancelling: over HTTP, as a clinician, as support, and as somebody else."""

import asyncio
import gzip
import json
import threading
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from auren.biometrics.models import Source
from auren.console.exports.making import Maker
from auren.console.exports.models import Export
from auren.console.report import libraries
from devices.models import Assignment, Patient
from tests.biometrics.stored import NOON, store
from tests.console.conftest import person, signed_in

FORM = {"start": "2026-11-13", "end": "2026-11-13", "format": "csv", "sources": "all"}


@pytest.fixture
def heart(patient: Patient, ring: Source) -> Source:
    for minute in range(3):
        store(ring, "heart_rate", 60 + minute, NOON + timedelta(minutes=minute), patient_id=patient.pk)
    return ring


def ask_page(patient: Patient) -> str:
    return reverse("ask_for_export", args=[patient.pk])


def posted(client: Client, patient: Patient, **changes: Any) -> Export:
    response = client.post(ask_page(patient), {**FORM, **changes})
    assert response.status_code == 302, response.content.decode()
    export = Export.objects.latest("pk")
    assert response.headers["Location"].startswith(reverse("export", args=[export.pk]))
    return export


def file_of(export: Export) -> str:
    return reverse("export_content", args=[export.pk])


def body(response: Any) -> bytes:
    return b"".join(response.streaming_content)


def make() -> None:
    Maker(lease=30, poll=0.05).run_until_idle(threading.Event())


@pytest.fixture
def all_long(settings: Settings) -> None:
    settings.SHORT_EXPORT_SAMPLES = 0


def test_the_patients_page_leads_to_the_form(clinic: Client, patient: Patient, assigned: Assignment) -> None:
    assert ask_page(patient) in clinic.get(f"/patients/{patient.pk}/").content.decode()
    page = clinic.get(ask_page(patient)).content.decode()
    assert "Europe/Berlin" in page
    assert page.count('type="radio"') == 5
    assert page.count(f'value="{timezone.now().astimezone(ZoneInfo("Europe/Berlin")):%Y-%m-%d}"') == 1


def test_a_short_export_is_there_at_once(clinic: Client, patient: Patient, assigned: Assignment, heart: Source) -> None:
    export = posted(clinic, patient)
    assert (export.state, export.direct, export.requested_by) == ("done", True, "clara")
    page = clinic.get(reverse("export", args=[export.pk]) + "?begin").content.decode()
    assert f'content="0; url={file_of(export)}"' in page
    response = clinic.get(file_of(export))
    assert response.headers["Content-Type"].startswith("text/csv")
    assert response.headers["Content-Disposition"] == ('attachment; filename="auren-user_1-2026-11-13-2026-11-13.csv"')
    assert "no-store" in response.headers["Cache-Control"]
    assert body(response).count(b"\r\n") == 4
    export.refresh_from_db()
    assert export.downloads == 1


def test_the_days_are_the_patients_and_both_count(clinic: Client, patient: Patient, assigned: Assignment) -> None:
    export = posted(clinic, patient, end="2026-11-14")
    assert export.start_at.isoformat() == "2026-11-12T23:00:00+00:00"
    assert export.end_at.isoformat() == "2026-11-14T23:00:00+00:00"
    assert "13 Nov 2026, 00:00" in clinic.get(reverse("export", args=[export.pk])).content.decode()


def test_a_long_export_is_watched_and_then_downloaded(
    clinic: Client, patient: Patient, assigned: Assignment, heart: Source, all_long: None
) -> None:
    export = posted(clinic, patient, format="fhir")
    watch = reverse("export", args=[export.pk])
    page = clinic.get(watch).content.decode()
    assert '<meta http-equiv="refresh" content="2">' in page
    assert "It is next." in page
    assert clinic.get(file_of(export)).headers["Location"] == watch
    make()
    page = clinic.get(watch).content.decode()
    assert "http-equiv" not in page
    assert file_of(export) in page
    plain = clinic.get(file_of(export), headers={"Accept-Encoding": "identity"})
    content = body(plain)
    assert int(plain.headers["Content-Length"]) == len(content)
    assert json.loads(content)["resourceType"] == "Bundle"
    packed = clinic.get(file_of(export), headers={"Accept-Encoding": "br, gzip;q=0.5"})
    squeezed = body(packed)
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) == len(squeezed)
    assert gzip.decompress(squeezed) == content


@pytest.mark.parametrize("accepts", ["", "gzip;q=0", "br", "gzip; q=0.0, br"])
def test_whoever_takes_no_gzip_gets_none(
    clinic: Client, patient: Patient, assigned: Assignment, heart: Source, all_long: None, accepts: str
) -> None:
    export = posted(clinic, patient)
    make()
    response = clinic.get(file_of(export), headers={"Accept-Encoding": accepts})
    assert "Content-Encoding" not in response.headers
    assert body(response).startswith(b"patient,metric")


def test_a_head_request_reads_and_counts_nothing(
    clinic: Client, patient: Patient, assigned: Assignment, heart: Source
) -> None:
    export = posted(clinic, patient)
    assert clinic.head(file_of(export)).status_code == 200
    export.refresh_from_db()
    assert export.downloads == 0


def test_over_asgi_the_file_comes_in_pieces(
    clinician: User, patient: Patient, assigned: Assignment, heart: Source
) -> None:
    client = AsyncClient()
    client.force_login(clinician)

    async def download() -> bytes:
        await client.post(ask_page(patient), FORM)
        response: Any = await client.get(file_of(await Export.objects.alatest("pk")))
        return b"".join([piece async for piece in response])

    assert asyncio.run(download()).count(b"\r\n") == 4


def refused(client: Client, export: Export) -> list[int]:
    watch, cancel = reverse("export", args=[export.pk]), reverse("cancel_export", args=[export.pk])
    answers: list[HttpResponse] = [client.get(watch), client.get(file_of(export)), client.post(cancel)]  # type: ignore[list-item]
    return [answer.status_code for answer in answers]


def test_nobody_else_gets_it_not_even_who_may_see_the_patient(
    clinic: Client, patient: Patient, assigned: Assignment, heart: Source, support: Client, admin: Client
) -> None:
    export = posted(clinic, patient)
    other = person("carl", "clinician")
    Assignment.objects.create(clinician=other, patient=patient, since=timezone.now() - timedelta(days=1))
    for client in (signed_in(other), support, admin):
        assert refused(client, export) == [404, 404, 404]
    assert Client().get(file_of(export)).status_code == 302


def test_who_may_not_see_the_patient_any_more_gets_nothing(
    clinic: Client, patient: Patient, assigned: Assignment, heart: Source
) -> None:
    export = posted(clinic, patient)
    Assignment.objects.update(until=timezone.now())
    assert refused(clinic, export) == [404, 404, 404]
    assert clinic.get(ask_page(patient)).status_code == 404


def test_who_was_never_assigned_may_not_ask(clinic: Client, patient: Patient) -> None:
    assert clinic.get(ask_page(patient)).status_code == 404
    assert clinic.post(ask_page(patient), FORM).status_code == 404
    assert not Export.objects.exists()


def test_support_exports_from_the_patients_page_in_the_admin(support: Client, patient: Patient, heart: Source) -> None:
    change = reverse("admin:devices_patient_change", args=[patient.pk])
    assert ask_page(patient) in support.get(change).content.decode()
    export = posted(support, patient)
    assert b"user_1" in body(support.get(file_of(export)))
    assert change in support.get(reverse("export", args=[export.pk])).content.decode()


def test_the_admin_lists_who_exported_what_and_offers_no_file(
    clinic: Client, support: Client, patient: Patient, assigned: Assignment, heart: Source
) -> None:
    export = posted(clinic, patient, metrics=["heart_rate"])
    listed = support.get(reverse("admin:console_export_changelist") + "?q=user_1").content.decode()
    assert "clara" in listed
    shown = support.get(reverse("admin:console_export_change", args=[export.pk])).content.decode()
    assert "Heart rate; every device" in shown
    assert file_of(export) not in listed + shown


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start": "2026-11-14"}, "The first day must not be after the last one."),
        ({"start": "yesterday"}, "Enter a valid date."),
        ({"end": "9999-12-31"}, "Choose a day between the years 2000 and 2099."),
        ({"start": "0001-01-01"}, "Choose a day between the years 2000 and 2099."),
        ({"format": "xml"}, "xml is not one of the available choices"),
        ({"format": "pdf", "metrics": ["steps"]}, "A report chooses its metrics itself"),
        ({"format": "pdf", "start": "2025-11-11"}, "A report is of 366 days or fewer; these are 368."),
        ({"format": "pdf", "start": "2098-01-01", "end": "2098-01-02"}, "A report cannot begin in the future."),
        ({"metrics": ["mood"]}, "mood is not one of the available choices"),
        ({"sources": ""}, "This field is required."),
    ],
)
def test_what_cannot_be_exported_is_said_and_not_filed(
    clinic: Client, patient: Patient, assigned: Assignment, changes: dict[str, Any], said: str
) -> None:
    response = clinic.post(ask_page(patient), {**FORM, **changes})
    assert response.status_code == 400
    assert said in response.content.decode()
    assert not Export.objects.exists()


def test_nobody_queues_without_end(
    clinic: Client, patient: Patient, assigned: Assignment, heart: Source, all_long: None
) -> None:
    for _ in range(5):
        posted(clinic, patient)
    response = clinic.post(ask_page(patient), FORM)
    assert response.status_code == 400
    assert "5 exports of yours are not finished" in response.content.decode()
    assert "4 before it." in clinic.get(reverse("export", args=[Export.objects.latest("pk").pk])).content.decode()


def test_cancelling_takes_a_post_and_makes_room(
    clinic: Client, patient: Patient, assigned: Assignment, heart: Source, all_long: None
) -> None:
    export = posted(clinic, patient)
    address = reverse("cancel_export", args=[export.pk])
    assert clinic.get(address).status_code == 405
    assert "Nothing of it was kept" in clinic.post(address, follow=True).content.decode()
    make()
    export.refresh_from_db()
    assert export.state == "cancelled"


def test_after_its_time_there_is_no_file_though_nobody_has_tidied_up(
    clinic: Client, patient: Patient, assigned: Assignment, heart: Source
) -> None:
    export = posted(clinic, patient)
    Export.objects.update(expires_at=timezone.now())
    assert clinic.get(file_of(export)).status_code == 302
    assert "Its time is over." in clinic.get(reverse("export", args=[export.pk])).content.decode()


def test_a_short_one_that_became_long_is_not_made_by_the_web_process(
    clinic: Client, patient: Patient, assigned: Assignment, heart: Source, settings: Settings
) -> None:
    export = posted(clinic, patient)
    settings.SHORT_EXPORT_SAMPLES = 1
    assert clinic.get(file_of(export)).status_code == 302


def test_a_failure_says_why(
    clinic: Client, patient: Patient, assigned: Assignment, heart: Source, all_long: None, settings: Settings
) -> None:
    settings.MAX_EXPORT_BYTES = 10
    export = posted(clinic, patient)
    make()
    assert "Ask for a shorter range" in clinic.get(reverse("export", args=[export.pk])).content.decode()


def test_an_external_id_makes_no_other_header(
    clinic: Client, patient: Patient, assigned: Assignment, heart: Source
) -> None:
    Patient.objects.update(external_id='a"; x=\r\n../b')
    response = clinic.get(file_of(posted(clinic, patient)))
    assert response.headers["Content-Disposition"].startswith('attachment; filename="auren-a___x___.._b-2026')


def test_where_libraries_are_missing_the_page_names_the_package_and_files_nothing(
    clinic: Client, patient: Patient, assigned: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(libraries.LIBRARIES, "libnowhere.so.0", "libpango-1.0-0")
    page = clinic.get(ask_page(patient)).content.decode()
    assert "the system lacks libpango-1.0-0" in page
    assert 'value="pdf" disabled' in page
    response = clinic.post(ask_page(patient), {**FORM, "format": "pdf"})
    assert response.status_code == 400
    assert "the system lacks libpango-1.0-0" in response.content.decode()
    assert not Export.objects.exists()


def test_a_maker_without_the_libraries_fails_the_report_by_name_and_goes_on(
    clinic: Client, patient: Patient, assigned: Assignment, heart: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = Export.objects.create(
        requested_by="clara", patient=patient, format="pdf", start_at=NOON, end_at=NOON + timedelta(days=1)
    )
    monkeypatch.setitem(libraries.LIBRARIES, "libnowhere.so.0", "libpango-1.0-0")
    make()
    export.refresh_from_db()
    assert export.state == "failed"
    assert "the system lacks libpango-1.0-0" in export.error
