"""The process: leases, kills, cancellations, bounds. Another process is another Maker, or a real one."""

import os
import signal
import subprocess
import sys
import threading
import uuid
import zlib
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now
from pytest_django import Settings

from auren.audit.trail import Actor
from auren.biometrics.models import Sample, Source
from auren.console.exports import making, reading
from auren.console.exports.asking import Wanted, ask
from auren.console.exports.formats import FORMATS
from auren.console.exports.making import Lost, Maker, expire
from auren.console.exports.models import Export, ExportPart
from auren.console.exports.reading import Piece
from auren.console.exports.selecting import selection_of
from auren.embedded.server import BASE_DIR
from devices.models import Assignment, Erasure, Patient
from tests.console.exports.asked import NOON, csv_text
from tests.webhooks.living import until
from webhooks.erasure import erase

STOP = threading.Event()
SAMPLES = 1_000


@pytest.fixture(autouse=True)
def everything_is_long(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.SHORT_EXPORT_SAMPLES = 0
    monkeypatch.setattr(reading, "PAGE", 250)


@pytest.fixture
def history(patient: Patient, ring: Source, assigned: Assignment) -> Patient:
    fill(patient, ring, SAMPLES)
    return patient


def fill(patient: Patient, by: Source, count: int) -> None:
    samples = []
    for number in range(count):
        at = NOON + timedelta(seconds=number)
        record = str(uuid.uuid4())
        values = {"value": number % 97 + 40, "revised_at": NOON, "delivery_id": 1, "record": record}
        samples.append(Sample(patient_id=patient.pk, metric=1, start_at=at, end_at=at, source=by, **values))
    Sample.objects.bulk_create(samples)


def asked(user: User, person: Patient, kind: str = "csv") -> Export:
    return ask(user, person, Wanted(NOON, NOON + timedelta(days=1), kind, ("heart_rate",)), who=Actor())


def maker(lease: float = 30, part: int = 64) -> Maker:
    return Maker(lease=lease, poll=0.05, part=part)


def content(export: Export) -> str:
    """What the parts unpack to: one gzip stream."""
    packed = b"".join(part.content for part in export.parts.order_by("offset"))
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    text = unpacker.decompress(packed) + unpacker.flush()
    assert unpacker.eof
    assert not unpacker.unused_data
    assert (len(packed), len(text)) == (export.stored_size, export.size)
    return text.decode()


def fresh(export: Export) -> Export:
    return Export.objects.get(pk=export.pk)


def run_out(export: Export) -> None:
    """As if its maker had been silent for longer than the lease."""
    Export.objects.filter(pk=export.pk).update(lease_until=Now() - timedelta(seconds=1))


def test_a_long_export_waits_is_made_in_parts_and_is_whole(clinician: User, history: Patient) -> None:
    export = asked(clinician, history)
    assert (export.state, export.direct) == ("waiting", False)
    assert maker().turn(STOP)
    made = fresh(export)
    assert (made.state, made.samples_total, made.samples_done, made.entries, made.percent) == (
        "done",
        *3 * (SAMPLES,),
        100,
    )
    assert made.parts.count() > 1
    assert content(made) == csv_text(selection_of(made))
    assert made.expires_at is not None
    assert made.lease_token is None
    assert not maker().turn(STOP)


def test_two_makers_share_the_work_and_never_one_export(clinician: User, history: Patient) -> None:
    exports = [asked(clinician, history) for _ in range(2)]
    first, second = maker()._claim(uuid.uuid4()), maker()._claim(uuid.uuid4())
    assert [first, second] == exports
    assert maker()._claim(uuid.uuid4()) is None


def abandoned(export: Export, pages: int) -> tuple[Maker, uuid.UUID]:
    """A maker that has kept some pages, and was then heard of no more."""
    silent, token = maker(part=1), uuid.uuid4()
    held = silent._claim(token)
    assert held == export
    assert held is not None
    for number in range(pages):
        silent._keep(held, token, bytearray(f"page {number}".encode()), least=1)
    return silent, token


def test_a_dead_makers_export_is_begun_anew_without_a_doubled_row(clinician: User, history: Patient) -> None:
    export = asked(clinician, history)
    abandoned(export, pages=3)
    assert not maker().turn(STOP)  # its lease still runs
    run_out(export)
    assert maker().turn(STOP)
    made = fresh(export)
    assert made.starts == 2
    assert content(made) == csv_text(selection_of(made))


def test_one_that_was_only_slow_writes_nothing_after_another_took_over(clinician: User, history: Patient) -> None:
    export = asked(clinician, history)
    slow, token = abandoned(export, pages=1)
    run_out(export)
    other = maker()._claim(uuid.uuid4())
    assert other is not None
    with pytest.raises(Lost):
        slow._keep(export, token, bytearray(b"late"), least=1)
    assert not ExportPart.objects.exists()


def test_after_five_interruptions_it_is_given_up(clinician: User, history: Patient) -> None:
    export = asked(clinician, history)
    for _ in range(making.MOST_STARTS):
        abandoned(export, pages=1)
        run_out(export)
    assert not maker().turn(STOP)
    assert fresh(export).state == "failed"
    assert "interrupted 5 times" in fresh(export).error
    assert not ExportPart.objects.exists()


def test_a_stopped_maker_hands_its_export_back_and_leaves_nothing(clinician: User, history: Patient) -> None:
    export, stop = asked(clinician, history), threading.Event()
    stop.set()
    assert maker().turn(stop)
    back = fresh(export)
    assert (back.state, back.starts, back.lease_token) == ("waiting", 0, None)
    assert not ExportPart.objects.exists()
    assert maker().turn(STOP)
    assert fresh(export).state == "done"


def test_a_cancelled_export_stops_at_the_next_page_and_keeps_nothing(clinician: User, history: Patient) -> None:
    export = asked(clinician, history)
    held_by, token = abandoned(export, pages=2)
    assert export.cancel(who=Actor())
    with pytest.raises(Lost):
        held_by._keep(export, token, bytearray(b"more"), least=1)
    assert fresh(export).state == "cancelled"
    assert not ExportPart.objects.exists()
    assert not export.cancel(who=Actor())


def test_erasing_the_patient_removes_exports_even_while_one_is_made(clinician: User, history: Patient) -> None:
    done, running = asked(clinician, history), asked(clinician, history)
    maker().turn(STOP)
    assert fresh(done).parts.exists()
    held_by, token = abandoned(running, pages=2)
    erase(history, by="ada", reason="asked for it")
    assert not Export.objects.exists()
    assert not ExportPart.objects.exists()
    assert Erasure.objects.get().removed["console_export"] == 2
    with pytest.raises(Lost):
        held_by._keep(running, token, bytearray(b"more"), least=1)


def test_a_file_that_grows_too_large_fails_and_says_what_to_do(
    clinician: User, history: Patient, settings: Settings
) -> None:
    settings.MAX_EXPORT_BYTES = 200
    export = asked(clinician, history)
    maker().turn(STOP)
    assert fresh(export).state == "failed"
    assert "Ask for a shorter range" in fresh(export).error
    assert not ExportPart.objects.exists()


def test_a_fault_of_ours_fails_the_export_and_not_the_maker(
    clinician: User, history: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = asked(clinician, history)
    Sample.objects.filter(start_at=NOON + timedelta(minutes=30)).update(utc_offset_minutes=5)
    monkeypatch.delitem(FORMATS, "csv")
    assert maker().turn(STOP)
    assert fresh(export).state == "failed"
    assert "KeyError" in fresh(export).error
    assert not maker().turn(STOP)


def test_a_page_renews_the_lease_and_says_how_far_it_is(clinician: User, history: Patient) -> None:
    export = asked(clinician, history)
    one, token = maker(), uuid.uuid4()
    held = one._claim(token)
    assert held is not None
    Export.objects.update(samples_total=40)
    one._count(held, Piece(b"x", 10, 10))
    one._keep(held, token, bytearray(), least=1)
    assert (fresh(export).percent, fresh(export).samples_done) == (25, 10)
    assert Export.objects.filter(lease_until__gt=Now() + timedelta(seconds=20)).exists()


def test_what_is_past_its_time_is_removed_and_the_row_stays(clinician: User, history: Patient) -> None:
    export, kept = asked(clinician, history), asked(clinician, history)
    maker().run_until_idle(STOP)
    Export.objects.filter(pk=export.pk).update(expires_at=Now() - timedelta(seconds=1))
    assert expire() == 1
    assert (fresh(export).state, fresh(kept).state) == ("expired", "done")
    assert {part.export_id for part in ExportPart.objects.all()} == {kept.pk}
    assert fresh(export).requested_by == "clara"


def test_without_its_asker_an_export_still_says_who_asked(clinician: User, history: Patient) -> None:
    export = asked(clinician, history)
    clinician.delete()
    assert (fresh(export).user, fresh(export).requested_by) == (None, "clara")


def run_command(*arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(BASE_DIR / "manage.py"), "make_exports", *arguments]
    return subprocess.Popen(
        command, env={**os.environ, "EXPORT_LEASE": "1", "DJANGO_SETTINGS_MODULE": "auren.settings"}
    )


def test_the_command_makes_what_waits_and_ends_on_sigterm(clinician: User, history: Patient) -> None:
    export = asked(clinician, history)
    process = run_command()
    until(lambda: fresh(export).state == "done")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert content(fresh(export)) == csv_text(selection_of(export))


def test_killed_in_the_middle_it_is_made_by_the_next_one(clinician: User, history: Patient, ring: Source) -> None:
    Sample.objects.all().delete()
    fill(history, ring, 50_000)
    export = asked(clinician, history)
    process = run_command("--until-idle")
    until(lambda: fresh(export).samples_done > 0)
    process.kill()
    process.wait()
    assert fresh(export).state == "running"
    until(lambda: Export.objects.filter(lease_until__lt=Now()).exists())
    second = run_command("--until-idle")
    assert second.wait(120) == 0
    made = fresh(export)
    assert (made.state, made.starts) == ("done", 2)
    rows = content(made).splitlines()[1:]
    assert len(rows) == len(set(rows)) == 50_000
