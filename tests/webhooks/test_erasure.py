"""After an erasure nothing of the patient is in any table, nothing of anybody else is gone, and Kafka knows."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
import redis as redis_client
from django.apps import apps
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.db.models import CASCADE, Model
from django.utils import timezone
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from pytest_django import Settings

from auren.biometrics.models import Conflict, Record, Sample, Source, Timeline
from auren.embedded.server import BASE_DIR
from auren.sandbox.server import RunningSandbox
from devices.models import ApiKey, Assignment, Erasure, Invitation, Link, Patient, Token
from devices.remembered import key_of
from tests.webhooks.living import again, announce, connect, heart_rate, held, patient, push, send_out, until, work
from tests.webhooks.reading import read
from tests.webhooks.test_claims import finish_late, take
from webhooks.erasure import REMOVE, NothingToErase, erase, sweep_sources
from webhooks.models import Attempt, Delivery

TABLES = """
SELECT relname FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
"""
NUMBERED = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = 'public' AND column_name IN ('patient_id', 'link_id')
"""
# What stays by name: the record and the event; by number: the event and the timeline, which is a version.
NAMED = {"devices_erasure", "webhooks_delivery"}
NUMBERED_STILL = {"biometrics_timeline", "webhooks_delivery"}


@pytest.fixture
def who(vendors: RunningSandbox) -> Patient:
    """Somebody with all that a patient can have, under a name nobody has used before: topics outlive the test."""
    return with_everything(vendors, f"erased-{uuid4().hex[:12]}")


@pytest.fixture
def other(vendors: RunningSandbox) -> Patient:
    return with_everything(vendors, f"kept-{uuid4().hex[:12]}")


def with_everything(vendors: RunningSandbox, name: str) -> Patient:
    connect(vendors, "oura", name)
    connect(vendors, "whoop", name)
    one = patient(name)
    night = vendors.documents("oura", name, "sleep")[-1]["id"]
    announce("oura", "sleep.update", night, user=name)
    announce("whoop", "sleep.updated", vendors.documents("whoop", name, "sleep")[-1]["id"], user=name)
    push(heart_rate(60, source=f"Watch of {name}"), heart_rate(90, source="Phone"), user=name)
    announce("oura", "tag.create", "of-no-interest", user=name)
    work()
    Link.objects.filter(patient=one, vendor="whoop").update(paused_at=timezone.now())
    announce("whoop", "sleep.updated", "waits-for-the-link", user=name)
    work()
    clinician, _ = User.objects.get_or_create(username="clara")
    Assignment.objects.create(clinician=clinician, patient=one)
    Invitation.objects.create(patient=one, vendor="oura", created_by="sam", expires_at=timezone.now())
    ApiKey.issue(f"phone of nobody in particular {uuid4().hex}", one)
    LogEntry.objects.log_actions(clinician.pk, [one, *one.links.all()], CHANGE, f"wrote to {name}")
    return one


def rows_with(*texts: str) -> dict[str, list[str]]:
    """Every row of every table in which one of `texts` stands, as text or as bytes."""
    needles = [f"%{form}%" for text in texts for form in (text, text.encode().hex())]
    found: dict[str, list[str]] = {}
    with connection.cursor() as cursor:
        cursor.execute(TABLES)
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT t::text FROM "{table}" t WHERE t::text LIKE ANY(%s)', [needles])
            found[table] = [row for (row,) in cursor.fetchall()]
    return {table: rows for table, rows in found.items() if rows}


def rows_of(patient_id: int, link_ids: list[int]) -> set[str]:
    """The tables that know the patient or a link by number."""
    numbers = {"patient_id": [patient_id], "link_id": link_ids}
    with connection.cursor() as cursor:
        cursor.execute(NUMBERED)
        found = set()
        for table, column in cursor.fetchall():
            cursor.execute(f'SELECT count(*) FROM "{table}" WHERE "{column}" = ANY(%s)', [numbers[column]])
            if cursor.fetchone()[0]:
                found.add(table)
    return {table for table in found if not table.startswith("biometrics_sample_")}


def links_of(one: Patient) -> list[int]:
    return list(one.links.values_list("pk", flat=True))


def all_of(one: Patient) -> list[Any]:
    """What there is of a patient, row by row."""
    links = links_of(one)
    kept: list[tuple[type[Model], dict[str, Any]]] = [
        (Sample, {"patient_id": one.pk}),
        (Conflict, {"patient_id": one.pk}),
        (Record, {"patient_id": one.pk}),
        (Source, {"link_id__in": links}),
        (Delivery, {"vendor_user_id": one.external_id}),
        (Attempt, {"delivery__vendor_user_id": one.external_id}),
        (Link, {"patient": one}),
        (Token, {"link__patient": one}),
        (Assignment, {"patient": one}),
        (Invitation, {"patient": one}),
        (ApiKey, {"patients": one}),
    ]
    return [sorted(map(str, model._default_manager.filter(**these).values())) for model, these in kept]


def the_event(record: Erasure) -> Delivery:
    return Delivery.objects.get(pk=record.delivery_id or 0)


def test_nothing_of_the_patient_is_in_any_table(who: Patient) -> None:
    name, number, links = who.external_id, who.pk, links_of(who)
    assert {"devices_patient", "devices_link", "biometrics_source", "django_admin_log"} < set(rows_with(name))
    assert len(rows_of(number, links)) > 9
    erase(who, by="ada", reason="asked for it")
    found = rows_with(name)
    assert set(found) == NAMED
    assert [len(rows) for rows in found.values()] == [1, 1]
    assert rows_of(number, links) == NUMBERED_STILL


def test_what_is_of_others_stays_as_it_was(who: Patient, other: Patient) -> None:
    before = all_of(other)
    assert all(before)
    erase(who, by="ada", reason="asked for it")
    assert all_of(other) == before


def test_a_record_says_who_when_why_and_how_many_rows_of_what(who: Patient) -> None:
    samples = Sample.objects.filter(patient_id=who.pk).count()
    deliveries = Delivery.objects.filter(vendor_user_id=who.external_id).count()
    record = erase(who, by="ada", reason="asked for it")
    assert (record.external_id, record.requested_by, record.reason) == (who.external_id, "ada", "asked for it")
    assert record.removed["biometrics_sample"] == samples > 20
    assert record.removed["webhooks_delivery"] == deliveries == 5
    assert record.removed["devices_link"] == 3
    assert record.removed["devices_patient"] == 1
    assert all(isinstance(count, int) for count in record.removed.values())


def test_the_admin_log_keeps_that_something_was_done_but_not_to_whom(who: Patient) -> None:
    count = LogEntry.objects.count()
    erase(who, by="ada", reason="asked for it")
    assert set(LogEntry.objects.values_list("object_repr", "change_message")) == {("erased", "")}
    assert LogEntry.objects.count() == count


def test_a_key_that_may_post_for_nobody_any_more_is_revoked(who: Patient, other: Patient) -> None:
    shared, _ = ApiKey.issue("shared", who, other)
    own = ApiKey.objects.filter(patients=who).exclude(pk=shared.pk).get()
    erase(who, by="ada", reason="asked for it")
    assert ApiKey.objects.get(pk=own.pk).revoked_at is not None
    assert ApiKey.objects.get(pk=shared.pk).revoked_at is None
    assert list(shared.patients.all()) == [other]


def test_every_table_that_knows_patients_or_links_is_seen_to() -> None:
    """A new one must be removed by number, or point to the patient, or say here why it stays."""
    known = {model for model in apps.get_models() if {"patient_id", "link_id"} & attributes(model)}
    by_number = {model._meta.db_table for model in known if not points(model)}
    assert by_number - set(REMOVE) == {"biometrics_timeline"}


def attributes(model: type[Model]) -> set[str]:
    return {str(getattr(field, "attname", "")) for field in model._meta.get_fields()}


def points(model: type[Model]) -> bool:
    """Whether deleting the patient takes the model's rows along."""
    return any(
        field.related_model in {Patient, Link} and field.remote_field.on_delete is CASCADE
        for field in model._meta.concrete_fields
        if field.remote_field
    )


# Kafka


def test_kafka_is_told_after_all_that_it_was_told_before(who: Patient, kafka: str) -> None:
    send_out()
    record = erase(who, by="ada", reason="asked for it")
    send_out()
    messages = read(kafka, who.external_id)
    last = max(messages, key=lambda message: message.sequence)
    assert [message for message in messages if message.topic == last.topic][-1] == last
    assert last.headers["ce_type"] == "auren.patient.erased.v1"
    assert last.topic == "auren.samples.v1"
    assert sum(message.sequence == last.sequence for message in messages) == 1
    assert the_event(record).state == "published"
    schema = json.loads((BASE_DIR / "docs" / "events" / "auren.patient.erased.v1.json").read_text())
    Draft202012Validator(schema).validate(last.body)
    assert last.body["patient"] == who.external_id


def test_what_had_not_gone_out_yet_never_does(who: Patient, kafka: str) -> None:
    erase(who, by="ada", reason="asked for it")
    send_out()
    assert [message.headers["ce_type"] for message in read(kafka, who.external_id)] == ["auren.patient.erased.v1"]


def test_somebody_of_the_same_name_can_be_erased_again_and_both_events_go_out(
    who: Patient, vendors: RunningSandbox, kafka: str
) -> None:
    erase(who, by="ada", reason="asked for it")
    push(heart_rate(61), user=who.external_id)
    patient(who.external_id)
    work()
    erase(patient(who.external_id), by="ada", reason="once more")
    send_out()
    types = [message.headers["ce_type"] for message in read(kafka, who.external_id)]
    assert types == ["auren.patient.erased.v1"] * 2


# Beside workers


def leaves_nothing(name: str, number: int, links: list[int]) -> None:
    sweep_sources()
    assert set(rows_with(name)) == NAMED
    assert rows_of(number, links) == NUMBERED_STILL
    assert not Sample.objects.filter(patient_id=number).exists()


def test_a_worker_that_holds_a_batch_brings_nothing_back(who: Patient) -> None:
    name, number, links = who.external_id, who.pk, links_of(who)
    push(heart_rate(77, source=f"New watch of {name}"), user=name)
    claimed = take()
    assert len(claimed) == 1
    erase(who, by="ada", reason="asked for it")
    assert finish_late(claimed) == set()
    leaves_nothing(name, number, links)


def test_a_worker_that_waits_for_the_vendor_brings_nothing_back(who: Patient, vendors: RunningSandbox) -> None:
    name, number, links = who.external_id, who.pk, links_of(who)
    vendors.set_vendor("oura", latency_ms=300)
    for document in vendors.documents("oura", name, "daily_activity")[-3:]:
        announce("oura", "daily_activity.update", document["id"], user=name)
    with beside(work):
        until(held)
        erase(who, by="ada", reason="asked for it")
    leaves_nothing(name, number, links)


def test_it_waits_for_a_worker_that_is_storing(who: Patient) -> None:
    name, number, links = who.external_id, who.pk, links_of(who)
    started, errors = threading.Event(), []

    def erasing() -> None:
        started.set()
        try:
            erase(who, by="ada", reason="asked for it")
        except Exception as error:  # noqa: BLE001 - told below
            errors.append(error)

    with connections["default"].cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT FROM biometrics_timeline WHERE patient_id = %s FOR UPDATE", [number])
        with beside(erasing):
            until(lambda: waits_for_a_lock(cursor))
            cursor.execute("UPDATE biometrics_timeline SET version = version + 5 WHERE patient_id = %s", [number])
            cursor.execute("COMMIT")
    assert errors == []
    assert Delivery.objects.get(event_type="patient.erased").sequence == Timeline.objects.get(pk=number).version
    leaves_nothing(name, number, links)


def waits_for_a_lock(cursor: Any) -> bool:
    cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
    return bool(cursor.fetchone()[0])


@contextmanager
def beside(act: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread of its own until the block ends, and after that to its end."""

    def acting() -> None:
        try:
            act()
        finally:
            connections.close_all()

    thread = threading.Thread(target=acting)
    thread.start()
    yield
    thread.join(30)
    assert not thread.is_alive()


def test_of_two_erasures_at_once_one_is_told_that_there_is_nothing_left(who: Patient) -> None:
    told: list[str] = []

    def erasing() -> None:
        try:
            erase(who, by="ada", reason="asked for it")
        except NothingToErase as error:
            told.append(str(error))

    with beside(erasing):
        erasing()
    assert len(told) == 1
    assert Erasure.objects.count() == 1


def test_a_webhook_that_comes_later_waits_unlinked_like_any_unknown_ones(who: Patient) -> None:
    name = who.external_id
    erase(who, by="ada", reason="asked for it")
    late = announce("oura", "sleep.update", "late", user=name)
    work()
    assert again(late).state == "unlinked"
    assert again(late).link is None


# Vendors and Redis


def test_the_grants_are_ended_at_the_vendors_first(who: Patient, vendors: RunningSandbox) -> None:
    record = erase(who, by="ada", reason="asked for it")
    assert who.external_id not in vendors.granted("oura") + vendors.granted("whoop")
    assert record.removed["grants_revoked"] == 2


def test_a_token_that_has_ended_is_refreshed_to_end_the_grant(who: Patient, vendors: RunningSandbox) -> None:
    vendors.set_clock(timezone.now() + timedelta(days=2))
    Token.objects.update(expires_at=timezone.now())
    erase(who, by="ada", reason="asked for it")
    assert who.external_id not in vendors.granted("oura") + vendors.granted("whoop")


def test_a_vendor_that_is_away_stops_nothing(who: Patient, vendors: RunningSandbox) -> None:
    name, number, links = who.external_id, who.pk, links_of(who)
    vendors.set_faults("oura", error=1.0)
    record = erase(who, by="ada", reason="asked for it")
    assert (record.removed["grants_revoked"], record.removed["grants_not_revoked"]) == (1, 1)
    leaves_nothing(name, number, links)


def test_tokens_that_no_key_opens_stop_nothing(who: Patient) -> None:
    Token.objects.update(access_token="no-key-opens-this", refresh_token="nor-this")
    assert erase(who, by="ada", reason="asked for it").removed["grants_not_revoked"] == 2


def test_documents_kept_in_redis_go_at_once(who: Patient, other: Patient, redis: str, settings: Settings) -> None:
    settings.REDIS_URL = redis
    with redis_client.Redis.from_url(redis) as client:
        for link_id in links_of(who) + links_of(other):
            client.hset(key_of(link_id), "ask", "document")
        erase(who, by="ada", reason="asked for it")
        assert {key.decode() for key in client.keys("auren:documents:*")} == {key_of(id_) for id_ in links_of(other)}


def test_redis_away_stops_nothing(who: Patient, settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert erase(who, by="ada", reason="asked for it").pk


# Whole or not at all


def test_what_fails_midway_has_removed_nothing(who: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    before = all_of(who)
    monkeypatch.setitem(REMOVE, "webhooks_delivery", "DELETE FROM there_is_no_such_table")
    with pytest.raises(Exception, match="there_is_no_such_table"):
        erase(who, by="ada", reason="asked for it")
    assert all_of(who) == before
    assert not Erasure.objects.exists()


# The command


def command(name: str, *more: str) -> str:
    out = StringIO()
    call_command("erase_patient", name, "--reason", "asked for it", *more, stdout=out)
    return out.getvalue()


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    answers: list[str] = []
    monkeypatch.setattr("builtins.input", lambda _: answers.pop())
    yield answers
    assert answers == []


def test_the_command_erases_and_counts(who: Patient) -> None:
    said = command(who.external_id, "--yes", "--by", "ada")
    assert "devices_patient" in said
    assert said.splitlines()[-1].startswith(f"{who.external_id} is erased: record ")
    assert Erasure.objects.get().requested_by == "ada"


def test_the_command_asks_for_the_external_id_once_more(who: Patient, typed: list[str]) -> None:
    typed.append(who.external_id)
    command(who.external_id)
    assert not Patient.objects.filter(pk=who.pk).exists()


def test_the_command_refuses_another_answer(who: Patient, typed: list[str]) -> None:
    typed.append("yes")
    with pytest.raises(CommandError, match="Nothing was erased"):
        command(who.external_id)
    assert Patient.objects.filter(pk=who.pk).exists()


def test_a_second_time_the_command_says_when_it_was_done(who: Patient) -> None:
    command(who.external_id, "--yes", "--by", "ada")
    with pytest.raises(CommandError, match=r"was erased on .* by ada: there is nothing left to erase"):
        command(who.external_id, "--yes")
    assert Erasure.objects.count() == 1


def test_an_unknown_name_is_said_to_be_one(database: str) -> None:
    with pytest.raises(CommandError, match="No patient has the external id 'nobody'"):
        command("nobody", "--yes")
