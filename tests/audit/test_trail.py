"""The audit log stays as it was written, whoever asks for something else."""

import psycopg
import pytest
from django.db import DatabaseError, transaction
from django.test import Client

from auren.audit.models import Entry, Verb
from auren.audit.trail import Actor, record
from devices.models import Patient
from tests.console.conftest import person, signed_in
from webhooks.erasure import erase

WORDS = ("Ada Nowak", "user_1")


@pytest.fixture
def entry(database: str) -> Entry:
    record(Actor.at_a_shell("sam"), Verb.CHECK)
    return Entry.objects.get()


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_entry SET username = 'somebody else'", "DELETE FROM audit_entry", "TRUNCATE audit_entry"],
)
def test_postgresql_refuses_to_change_or_remove_a_row(database: str, entry: Entry, statement: str) -> None:
    with psycopg.connect(database) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)
    assert Entry.objects.get().username == "sam"


def test_the_programs_own_way_to_the_table_is_refused_as_well(entry: Entry) -> None:
    for attempt in (entry.save, entry.delete, Entry.objects.all().delete):
        with pytest.raises(DatabaseError, match="only added to"), transaction.atomic():
            attempt()


def test_a_change_that_is_undone_leaves_no_row(database: str) -> None:
    with transaction.atomic():
        record(Actor.at_a_shell(), Verb.CHECK)
        transaction.set_rollback(True)
    assert not Entry.objects.exists()


def test_erasing_a_patient_leaves_the_trail_and_no_name(database: str) -> None:
    patient = Patient.objects.create(external_id="user_1", display_name="Ada Nowak")
    ada, number = signed_in(person("ada", "admin")), patient.pk
    ada.get(f"/admin/devices/patient/{number}/change/")
    erase(patient, by="ada", reason="asked for it")
    kept = list(Entry.objects.filter(patient_ids__contains=[number]).order_by("id"))
    assert [entry.verb for entry in kept] == [Verb.VIEW, Verb.ERASE]
    assert not any(word in str(list(Entry.objects.values())) for word in WORDS)
    found = ada.get("/admin/audit/entry/?patient=user_1").content.decode()
    assert found.count(f"patient {number}, not there any more") == 2


def test_only_the_admin_role_reads_it(database: str) -> None:
    said = {}
    for role in ("admin", "support", "clinician"):
        said[role] = signed_in(person(role, role)).get("/admin/audit/entry/").status_code
    assert (said["admin"], said["support"]) == (200, 403)
    assert said["clinician"] == 302


def seen(client: Client, query: str) -> list[str]:
    page = client.get(f"/admin/audit/entry/{query}")
    assert page.status_code == 200
    return [entry.username for entry in page.context["cl"].result_list]


def test_it_is_narrowed_by_person_patient_verb_kind_and_time_and_searched(database: str) -> None:
    patient = Patient.objects.create(external_id="user_1", display_name="Ada Nowak")
    client = signed_in(person("ada", "admin"))
    record(Actor("session", "sam", 7, None, "10.0.0.7"), Verb.CHANGE, patient)
    record(Actor("session", "clara", 8, None, "10.0.0.8"), Verb.VIEW, patients=[patient.pk])
    record(Actor(address="10.0.0.9"), Verb.SIGN_IN_FAILED, result="refused")
    for query, names in {
        "?who=sam": ["sam"],
        "?patient=user_1": ["clara", "sam"],
        "?verb=change": ["sam"],
        "?kind=signing-in": [""],
        "?kind=changes": ["sam"],
        "?since=hour&who=clara": ["clara"],
        "?q=10.0.0.8": ["clara"],
        "?q=user_1": ["clara", "sam"],
        f"?q=devices.patient+{patient.pk}": ["sam"],
        "?patient=nobody": [],
    }.items():
        assert seen(client, query) == names, query


def test_a_row_has_a_page_to_read_and_nothing_to_press(database: str) -> None:
    client = signed_in(person("ada", "admin"))
    record(Actor.at_a_shell("sam"), Verb.CHECK)
    page = client.get(f"/admin/audit/entry/{Entry.objects.earliest('id').pk}/change/").content.decode()
    assert "had checked" in page
    assert 'name="_save"' not in page
    assert "Delete" not in page
