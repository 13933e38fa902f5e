from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import LiteralString
from zoneinfo import ZoneInfo

import psycopg
import pytest
from django.conf import settings
from django.db import connections, transaction
from prometheus_client import REGISTRY

from auren.biometrics import baseline, reads, timeline
from auren.biometrics.metrics import BY_NAME
from auren.biometrics.models import Sample
from auren.embedded.server import free_port
from auren.environment import database as entry
from tests.biometrics.standby import Standby
from tests.biometrics.stored import NOON, PATIENT, raise_version, source, store
from tests.conftest import GIVEN, PASSWORD, VAR

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture(scope="module")
def standby(database_server: str, migrated_database: object) -> Iterator[Standby]:
    if "DATABASE_URL" in GIVEN:
        pytest.skip("a server from outside may not take a base backup")
    var = VAR / "standby"  # within reach of the ordinary user that PostgreSQL runs as
    var.mkdir(mode=0o711)
    with Standby(var, PASSWORD, database_server) as server:
        yield server


def use(url: str) -> Iterator[None]:
    connections.settings[reads.REPLICA] = connections.configure_settings(
        {"default": settings.DATABASES["default"], reads.REPLICA: entry("DATABASE_REPLICA_URL", url)}
    )[reads.REPLICA]
    reads._not_asked_until = 0.0
    yield
    connections[reads.REPLICA].close()
    del connections[reads.REPLICA]
    del connections.settings[reads.REPLICA]
    reads._not_asked_until = 0.0


@pytest.fixture
def replica(database: str, standby: Standby) -> Iterator[Standby]:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    standby.resume()
    for _ in use(standby.url_of(str(name))):
        yield standby


@pytest.fixture
def dead_replica(database: str) -> Iterator[None]:
    yield from use(f"postgresql://auren@127.0.0.1:{free_port()}/auren")


def beat(value: float) -> None:
    store(source("ring"), "heart_rate", value, NOON + value * MINUTE)


def on_primary(statement: LiteralString) -> None:
    """Committed on a connection of its own."""
    with closing(psycopg.connect(settings.DATABASE_URL, autocommit=True)) as primary:
        primary.execute(statement)


def values() -> list[float | None]:
    window = timeline.Window(PATIENT, NOON, NOON + 24 * HOUR, ZoneInfo("UTC"))
    lines = timeline.read(window, [BY_NAME["heart_rate"]]).series[0].lines
    return [value for line in lines for value in line.value if value is not None]


def counted() -> dict[tuple[str, str], float]:
    known = [("replica", ""), ("primary", "none"), ("primary", "behind"), ("primary", "away"), ("primary", "cancelled")]
    labels = [{"database": database, "why": why} for database, why in known]
    return {
        pair: REGISTRY.get_sample_value("auren_reads_total", one) or 0 for pair, one in zip(known, labels, strict=True)
    }


def answered(before: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    return {key: value - before[key] for key, value in counted().items() if value != before[key]}


def test_a_standby_that_has_replayed_all_of_a_patient_answers(replica: Standby) -> None:
    beat(48)
    replica.catch_up()
    before = counted()
    assert values() == [48]
    assert answered(before) == {("replica", ""): 1}


def test_a_standby_whose_replay_is_paused_is_not_asked_about_what_it_lacks(replica: Standby) -> None:
    beat(48)
    replica.catch_up()
    replica.pause()
    beat(61)
    before = counted()
    assert values() == [48, 61]
    assert answered(before) == {("primary", "behind"): 1}
    replica.resume()
    replica.catch_up()
    assert values() == [48, 61]
    assert answered(before) == {("primary", "behind"): 1, ("replica", ""): 1}


def test_a_standby_behind_with_others_still_answers_for_a_patient_it_is_not_behind_with(replica: Standby) -> None:
    beat(48)
    replica.catch_up()
    replica.pause()
    raise_version(PATIENT + 1)
    before = counted()
    assert values() == [48]
    assert answered(before) == {("replica", ""): 1}
    replica.resume()


def test_a_list_of_patients_is_read_where_all_of_them_are_current(replica: Standby) -> None:
    recent = datetime.now(UTC) - HOUR
    for patient_id in (PATIENT, PATIENT + 1):
        store(source("ring"), "heart_rate", 50, recent, patient_id=patient_id)
    replica.catch_up()
    replica.pause()
    Sample.objects.filter(patient_id=PATIENT + 1).update(start_at=recent + HOUR / 2, end_at=recent + HOUR / 2)
    raise_version(PATIENT + 1)
    last = timeline.last_sample_at([PATIENT, PATIENT + 1], [BY_NAME["heart_rate"]])
    assert last == {PATIENT: recent, PATIENT + 1: recent + HOUR / 2}
    replica.resume()


def test_a_replica_that_is_away_is_asked_once_and_then_left_alone(dead_replica: None) -> None:
    beat(48)
    before = counted()
    assert (values(), values()) == ([48], [48])
    assert answered(before) == {("primary", "away"): 2}
    assert reads._not_asked_until > 0


def test_a_replica_killed_while_it_answers_costs_the_reader_nothing(replica: Standby) -> None:
    beat(48)
    replica.catch_up()
    asked: list[str] = []

    def ask() -> list[float | None]:
        asked.append(reads.database())
        if reads.database() == reads.REPLICA:
            replica.kill()
        return values()

    try:
        assert reads.consistent([PATIENT], ask) == [48]
        assert asked == ["replica", "default"]
        assert values() == [48]
    finally:
        replica.start()
    reads._not_asked_until = 0.0
    before = counted()
    assert values() == [48]
    assert answered(before) == {("replica", ""): 1}


def test_what_replay_cancels_on_the_standby_the_primary_answers(replica: Standby) -> None:
    beat(48)
    on_primary("CREATE TABLE in_the_way ()")
    replica.catch_up()
    before = counted()

    def ask() -> list[float | None]:
        if reads.database() == reads.REPLICA:
            with connections[reads.REPLICA].cursor() as cursor:
                cursor.execute("SELECT * FROM in_the_way")
            on_primary("DROP TABLE in_the_way")
            replica.catch_up()
        return values()

    assert reads.consistent([PATIENT], ask) == [48]
    assert answered(before) == {("primary", "cancelled"): 1}
    assert reads._not_asked_until == 0.0


def test_all_statements_of_one_answer_see_one_snapshot(database: str) -> None:
    beat(48)

    def ask() -> tuple[list[float | None], dict[int, int], list[float | None]]:
        first = values()
        on_primary("UPDATE biometrics_sample SET value = 99")
        on_primary("UPDATE biometrics_timeline SET version = version + 1")
        return first, reads.versions([PATIENT]), values()

    assert reads.consistent([PATIENT], ask) == ([48], {PATIENT: 1}, [48])
    assert values() == [99]


def test_nothing_can_be_written_by_what_only_reads(database: str) -> None:
    with pytest.raises(Exception, match="read-only transaction"):
        reads.consistent([PATIENT], lambda: beat(48))


def test_within_a_transaction_of_the_callers_its_own_writes_are_seen(database: str) -> None:
    with transaction.atomic():
        beat(48)
        assert values() == [48]


def test_a_metric_nobody_has_is_not_looked_for_in_all_rows_of_a_month(database: str) -> None:
    beats = [
        Sample(
            patient_id=PATIENT,
            metric=BY_NAME["heart_rate"].number,
            start_at=NOON + place * timedelta(seconds=5),
            end_at=NOON + place * timedelta(seconds=5),
            source=source("watch"),
            record=str(place),
            value=60,
            revised_at=NOON,
            delivery_id=1,
        )
        for place in range(20_000)
    ]
    Sample.objects.bulk_create(beats)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("ANALYZE biometrics_sample")

    def ask() -> int:
        assert baseline.daily({PATIENT: ZoneInfo("UTC")}, NOON + timedelta(days=2), [BY_NAME["hrv_rmssd"]]) == {}
        scans = "SELECT sum(seq_tup_read) FROM pg_stat_xact_user_tables WHERE relname LIKE 'biometrics_sample_%%'"
        return int(reads.fetch(scans, {})[0][0])

    assert reads.consistent([PATIENT], ask) == 0
