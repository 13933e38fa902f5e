import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from zoneinfo import ZoneInfo

import msgspec
import psycopg
import pytest
import redis as redis_client
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from prometheus_client import REGISTRY

from auren.biometrics import reads, windows
from auren.biometrics.metrics import BY_NAME
from auren.biometrics.models import Sample, Source
from auren.biometrics.timeline import Timeline, Window
from auren.biometrics.windows import Rendered
from auren.embedded.server import free_port
from devices.models import Link, Patient
from tests.biometrics.stored import NOON, PATIENT, decide, raise_version, source, store
from webhooks.erasure import erase

pytestmark = pytest.mark.usefixtures("database")

HOUR = timedelta(hours=1)
WINDOW = Window(PATIENT, NOON - 12 * HOUR, NOON + 12 * HOUR, ZoneInfo("Europe/Berlin"))
METRICS = [BY_NAME["heart_rate"], BY_NAME["steps"]]


@pytest.fixture(autouse=True)
def unknown_redis() -> Iterator[None]:
    """Whether Redis is there is found out anew in each test."""
    windows._kept.cache_clear()
    yield
    windows._kept.cache_clear()


def drawn(timeline: Timeline) -> bytes:
    lines = [(line.sources, line.value) for series in timeline.series for line in series.lines]
    return msgspec.json.encode([lines, {source.name: source.kind for source in timeline.sources.values()}])


def names(timeline: Timeline) -> bytes:
    return msgspec.json.encode([series.metric.name for series in timeline.series])


def ask(window: Window = WINDOW, known: str = "") -> Rendered:
    return windows.rendered(window, METRICS, drawn, known=known)


def asked_of_samples(window: Window = WINDOW) -> int:
    with CaptureQueriesContext(connection) as asked:
        ask(window)
    return len([query for query in asked.captured_queries if "biometrics_sample" in query["sql"]])


def beat(value: float, patient_id: int = PATIENT) -> None:
    store(source("ring"), "heart_rate", value, NOON, patient_id=patient_id)


def outcomes() -> dict[str, float]:
    def total(metric: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"{metric}_total", labels) or 0

    told = {name: total("auren_windows", outcome=name) for name in ("hit", "miss", "unchanged", "too_large")}
    return told | {"faults": total("auren_window_faults")}


def gained(before: dict[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in outcomes().items() if value != before[name]}


def test_a_window_asked_for_again_comes_from_redis_and_is_the_same(redis: str) -> None:
    beat(48)
    before = outcomes()
    first = ask()
    assert asked_of_samples() == 0
    assert ask() == first
    assert gained(before) == {"miss": 1, "hit": 2}


def test_after_a_store_the_window_is_read_anew(redis: str) -> None:
    beat(48)
    first = ask()
    Sample.objects.update(value=61)
    raise_version(PATIENT)
    second = ask()
    assert b"61" in (second.body or b"")
    assert second.etag != first.etag


def test_a_caller_that_has_the_window_already_is_told_so_without_reading(redis: str) -> None:
    beat(48)
    first = ask()
    before = outcomes()
    assert ask(known=first.etag) == Rendered(None, first.etag)
    assert ask(known=f'"other", {first.etag.removeprefix("W/")}').body is None
    assert ask(known="*").body is None
    assert gained(before) == {"unchanged": 3}
    assert ask(known='"other", "W/"').body == ask(known=first.etag[1:]).body == first.body


def test_whatever_shapes_the_answer_is_in_the_key(redis: str) -> None:
    beat(48)
    shaped = [
        WINDOW,
        replace(WINDOW, start_at=NOON),
        replace(WINDOW, end_at=NOON + HOUR),
        replace(WINDOW, zone=ZoneInfo("Asia/Kolkata")),
        replace(WINDOW, points=10),
        replace(WINDOW, every_source=True),
        replace(WINDOW, patient_id=PATIENT + 1),
    ]
    etags = {ask(window).etag for window in shaped}
    etags.add(windows.rendered(WINDOW, METRICS[:1], drawn).etag)
    etags.add(windows.rendered(WINDOW, METRICS, names).etag)
    assert len(etags) == len(shaped) + 2


def test_what_is_stored_while_a_window_is_read_is_not_hidden_from_the_next_one(redis: str) -> None:
    beat(48)

    def meanwhile(timeline: Timeline) -> bytes:
        with closing(psycopg.connect(settings.DATABASE_URL, autocommit=True)) as worker:
            worker.execute("UPDATE biometrics_sample SET value = 61 WHERE value = 48")
            worker.execute("UPDATE biometrics_timeline SET version = 2")
        return drawn(timeline)

    first = windows.rendered(WINDOW, METRICS, meanwhile)
    assert b"48" in (first.body or b"")
    second = windows.rendered(WINDOW, METRICS, meanwhile)
    assert b"61" in (second.body or b"")
    assert second.etag != first.etag


def test_what_is_stored_between_the_lookup_and_the_reading_is_kept_under_its_own_version(redis: str) -> None:
    beat(48)
    old = windows._fresh(WINDOW, METRICS, drawn, known=0)
    assert old == ask()


def test_a_conflict_decided_otherwise_is_drawn_anew(redis: str) -> None:
    ring, watch = source("ring"), source("watch")
    for by, value in ((ring, 48), (watch, 61)):
        store(by, "heart_rate", value, NOON)
    assert b"61" in (ask().body or b"")
    decide(ring, metric="heart_rate")
    assert b"48" in (ask().body or b"")


def test_a_device_renamed_or_of_another_kind_is_drawn_anew(redis: str) -> None:
    patient = Patient.objects.create(external_id="user_7", display_name="Ada")
    link = Link.objects.create(patient=patient, vendor="oura", vendor_user_id="7")
    ring = Source.objects.create(link_id=link.pk, name="Oura ring", kind="ring")
    store(ring, "heart_rate", 48, NOON, patient_id=patient.pk)
    window = replace(WINDOW, patient_id=patient.pk)
    for change in ({"name": "Ada's ring"}, {"kind": "band"}):
        ask(window)
        Source.objects.filter(pk=ring.pk).update(**change)
        assert next(iter(change.values())).encode() in (ask(window).body or b"")


def test_of_an_erased_patient_nothing_is_served(redis: str) -> None:
    patient = Patient.objects.create(external_id="user_7", display_name="Ada")
    beat(48, patient_id=patient.pk)
    window = replace(WINDOW, patient_id=patient.pk)
    assert b"48" in (ask(window).body or b"")
    erase(patient, by="sam", reason="asked for")
    assert ask(window).body == b"[[],{}]"


def test_windows_go_from_redis_by_themselves(redis: str) -> None:
    ask()
    with redis_client.Redis.from_url(redis) as client:
        (key,) = client.keys("auren:windows:*")
        assert 0 < client.ttl(key) <= windows.KEPT_SECONDS


def test_a_window_too_large_for_redis_is_rendered_each_time(redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MOST_BYTES", 10)
    beat(48)
    before = outcomes()
    assert ask() == ask()
    assert gained(before) == {"miss": 2, "too_large": 2}


def test_what_lies_broken_in_redis_is_rendered_anew(redis: str) -> None:
    beat(48)
    first = ask()
    with redis_client.Redis.from_url(redis) as client:
        (key,) = client.keys("auren:windows:*")
        for broken in (b"", b"nonsense", zlib.compress(b"cut" * 1_000)[:-3]):
            client.set(key, broken)
            assert ask() == first


def test_with_redis_away_postgresql_is_asked_and_redis_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    beat(48)
    before = outcomes()
    assert ask() == ask()
    assert gained(before) == {"miss": 2, "faults": 1}


def test_without_redis_postgresql_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "REDIS_URL", "")
    beat(48)
    before = outcomes()
    assert b"48" in (ask().body or b"")
    assert gained(before) == {"miss": 1}


def test_the_version_is_read_in_the_snapshot_that_is_drawn(redis: str) -> None:
    beat(48)
    with CaptureQueriesContext(connection) as asked:
        ask()
    statements = [query["sql"] for query in asked.captured_queries]
    opened = next(place for place, sql in enumerate(statements) if "REPEATABLE READ, READ ONLY" in sql)
    assert "biometrics_timeline" in statements[opened + 1]
    assert any("biometrics_sample" in sql for sql in statements[opened + 2 :])
    assert reads.database() == "default"
