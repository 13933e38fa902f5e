"""How samples are cut by time: made ahead, dropped whole after the retention, and nothing lost in between."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import OperationalError, connection

from auren.biometrics import partitions
from auren.biometrics.models import Conflict, Record, Sample
from auren.biometrics.partitions import (
    Part,
    create_missing,
    drop_expired,
    empty_default,
    existing,
    horizon,
    stray_samples,
    wanted,
)
from tests.biometrics.arriving import PATIENTS, Store, sample, withdrawal
from tests.biometrics.stored import NOON, dispute, source

TODAY = datetime.now(UTC).date()


@pytest.fixture(autouse=True)
def whole_again(database: str) -> Iterator[None]:
    """What a test drops or adds is as it was before."""
    before = existing()
    yield
    settings.SAMPLE_RETENTION_YEARS = 0
    with connection.cursor() as cursor:
        for part in existing():
            if part not in before:
                cursor.execute(f"DROP TABLE {part.name}")
    create_missing()
    assert existing() == before


@pytest.fixture
def two_years(monkeypatch: pytest.MonkeyPatch) -> date:
    """SAMPLE_RETENTION_YEARS=2; the first day that is kept."""
    monkeypatch.setattr(settings, "SAMPLE_RETENTION_YEARS", 2)
    return date(TODAY.year - 2, 1, 1)


def noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


def hours_from_now(at: datetime) -> float:
    return (at - NOON).total_seconds() / 3600


def lies_in(patient_id: int) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tableoid::regclass::text FROM biometrics_sample WHERE patient_id = %s ORDER BY start_at",
            [patient_id],
        )
        return [name for (name,) in cursor.fetchall()]


# Made ahead


@pytest.mark.parametrize("today", [date(2026, 1, 1), date(2026, 11, 30), date(2027, 12, 31), date(2028, 2, 29)])
def test_partitions_follow_each_other_without_a_gap_to_three_months_ahead(today: date) -> None:
    parts = list(wanted(today))
    assert parts[0].start is None
    assert [part.end for part in parts[:-1]] == [part.start for part in parts[1:]]
    assert parts[-1].end == partitions.months_from(today, 4)
    assert [part.end for part in parts if part.end <= date(2015, 1, 1)] == [date(2014, 1, 1), date(2015, 1, 1)]
    assert sum(len(part.name) == len("biometrics_sample_2026_01") for part in parts) == 28


def test_what_was_cut_by_the_month_stays_so_when_it_is_old() -> None:
    later = date(TODAY.year + 2, TODAY.month, 1)
    create_missing(later)
    parts = existing()
    assert [part.end for part in parts[:-1]] == [part.start for part in parts[1:]]
    assert parts[-1].end == partitions.months_from(later, 4)
    assert create_missing(later) == []


def test_a_month_is_made_while_others_read_and_write_the_table(database: str) -> None:
    coming = partitions.months_from(TODAY, 4)
    with psycopg.connect(database) as other:
        other.execute(f"SELECT FROM biometrics_sample WHERE start_at >= '{TODAY}Z' AND start_at < '{TODAY} 23:59Z'")
        other.execute("LOCK TABLE ONLY biometrics_sample IN ROW EXCLUSIVE MODE")
        assert create_missing(partitions.months_from(TODAY, 1)) == [f"biometrics_sample_{coming:%Y_%m}"]


# In no partition


def test_a_sample_of_a_time_nobody_expected_is_moved_out_by_the_command(
    storing: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    patient_id, at = next(PATIENTS), noon(date(TODAY.year + 4, 5, 6))
    storing.put(sample(60, hours_from_now(at), patient_id=patient_id))
    assert (lies_in(patient_id), stray_samples()) == (["biometrics_sample_default"], 1)
    call_command("empty_default_partition")
    assert (lies_in(patient_id), stray_samples()) == ([f"biometrics_sample_{at:%Y_%m}"], 0)
    assert f"made biometrics_sample_{at:%Y_%m}" in capsys.readouterr().out
    call_command("empty_default_partition")
    assert "is empty" in capsys.readouterr().out
    storing.put(sample(61, hours_from_now(at), patient_id=patient_id, revised=1))
    assert [each.value for each in Sample.objects.filter(patient_id=patient_id)] == [61]


def test_a_coming_month_takes_its_samples_out_of_the_default_partition(storing: Store) -> None:
    patient_id, at = next(PATIENTS), noon(partitions.months_from(TODAY, 4))
    storing.put(sample(60, hours_from_now(at), patient_id=patient_id))
    assert lies_in(patient_id) == ["biometrics_sample_default"]
    create_missing(partitions.months_from(TODAY, 1))
    assert lies_in(patient_id) == [f"biometrics_sample_{at:%Y_%m}"]


def test_a_partition_years_ahead_does_not_keep_the_next_months_from_being_made(storing: Store) -> None:
    storing.put(sample(60, hours_from_now(noon(date(TODAY.year + 4, 5, 6))), patient_id=next(PATIENTS)))
    empty_default()
    assert create_missing(partitions.months_from(TODAY, 1)) == [
        f"biometrics_sample_{partitions.months_from(TODAY, 4):%Y_%m}"
    ]


# Retention


def test_without_a_retention_nothing_is_dropped() -> None:
    assert (horizon(TODAY), drop_expired()) == (None, [])


def test_what_ends_before_the_retention_is_dropped_whole_and_stays_away(two_years: date, storing: Store) -> None:
    patient_id = next(PATIENTS)
    for day in (two_years - timedelta(days=1), two_years, TODAY):
        storing.put(sample(60, hours_from_now(noon(day)), patient_id=patient_id, record=str(day)))
    dropped = drop_expired()
    assert {"biometrics_sample_before", "biometrics_sample_2014"} <= set(dropped)
    assert [part for part in existing() if part.end <= two_years] == []
    assert [each.start_at for each in Sample.objects.filter(patient_id=patient_id).order_by("start_at")] == [
        noon(two_years),
        noon(TODAY),
    ]
    assert (create_missing(), drop_expired()) == ([], [])


def test_a_partition_that_somebody_uses_is_dropped_another_time(
    two_years: date, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT", "10ms")
    before = existing()
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM biometrics_sample_2014")
        reader.execute("LOCK TABLE biometrics_sample IN ACCESS SHARE MODE")
        with pytest.raises(OperationalError):
            drop_expired()
    assert existing() == before
    assert "biometrics_sample_2014" in drop_expired()


def test_records_and_conflicts_go_with_their_samples_and_no_others(two_years: date, storing: Store) -> None:
    patient_id, watch, phone = next(PATIENTS), source("watch"), source("phone")
    old, young = noon(two_years - timedelta(days=1)), noon(two_years)
    for at in (old, young):
        storing.put(sample(60, hours_from_now(at), patient_id=patient_id, record=f"seen {at:%Y}"))
        storing.put(withdrawal(int(hours_from_now(at)), patient_id=patient_id, record=f"gone {at:%Y}"))
        dispute("heart_rate", at, at + timedelta(minutes=5), {watch: 1, phone: 2}, watch, patient_id=patient_id)
    drop_expired()
    forgetting = partitions.Forgetting()
    while forgetting.forget_some()[1]:
        pass
    left = Record.objects.filter(patient_id=patient_id).order_by("record").values_list("record", flat=True)
    assert list(left) == [f"gone {young:%Y}", f"seen {young:%Y}"]
    assert [each.start_at for each in Conflict.objects.filter(patient_id=patient_id)] == [young]
    assert forgetting.forget_some() == (0, False)


# For Citus

KEYS = """
SELECT indrelid::regclass::text, indexrelid::regclass::text,
       (SELECT attname FROM pg_attribute WHERE attrelid = indrelid AND attnum = indkey[0])
FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
WHERE (indisunique OR indisprimary) AND relname LIKE 'biometrics\\_%' AND NOT relispartition
"""
FOREIGN_KEYS = """
SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint
WHERE contype = 'f' AND concat(conrelid::regclass, ' ', confrelid::regclass) LIKE '%biometrics\\_%'
"""
# Small, and the same everywhere: what Citus calls a reference table. A conflict's id is for the admin's address.
EXCEPTIONS = {"biometrics_source", "biometrics_conflict_pkey"}


def test_every_key_of_what_belongs_to_a_patient_starts_with_the_patient(database: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(KEYS)
        keys = cursor.fetchall()
    assert {table for table, _, _ in keys} >= {"biometrics_sample", "biometrics_record", "biometrics_conflict"}
    others = [key for key in keys if EXCEPTIONS.isdisjoint(key[:2]) and key[2] != "patient_id"]
    assert others == []


def test_no_foreign_key_leads_into_or_out_of_these_tables(database: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(FOREIGN_KEYS)
        assert cursor.fetchall() == []


def test_parts_overlap_when_they_share_a_day() -> None:
    first = Part("a", date(2024, 1, 1), date(2024, 11, 1))
    assert not first.overlaps(Part("b", date(2024, 11, 1), date(2024, 12, 1)))
    assert first.overlaps(Part("b", None, date(2024, 1, 2)))
