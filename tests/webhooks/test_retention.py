"""What comes from before the retention, and what happens to samples that belong to no partition."""

from datetime import UTC, date, datetime, timedelta

import pytest
from django.conf import settings

from auren.biometrics.models import Record
from tests.webhooks.entry import counted
from tests.webhooks.living import NOON, again, heart_rate, push, samples, values, work
from webhooks.schedule import chores, watch_default_partition

FIRST = date(datetime.now(UTC).year - 2, 1, 1)
LATE = datetime(FIRST.year, 1, 1, tzinfo=UTC) - timedelta(minutes=1)


@pytest.fixture
def two_years(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SAMPLE_RETENTION_YEARS", 2)


def test_what_is_older_than_the_retention_is_refused_and_says_so(database: str, two_years: None) -> None:
    delivery = push(heart_rate(60, LATE), heart_rate(61, LATE + timedelta(minutes=1)), heart_rate(62))
    work()
    assert values() == [61, 62]
    assert (again(delivery).state, again(delivery).sample_count) == ("stored", 2)
    assert again(delivery).refused == [
        {"what": "1 samples", "why": f"they are from before {FIRST}, and SAMPLE_RETENTION_YEARS is 2"}
    ]


def test_a_delivery_of_nothing_else_is_ignored_and_leaves_no_record(database: str, two_years: None) -> None:
    delivery = push(heart_rate(60, LATE))
    work()
    assert (again(delivery).state, again(delivery).error) == ("ignored", "no sample in it: 1 refused")
    assert (samples(), Record.objects.count()) == ([], 0)


def test_a_record_edited_to_a_time_before_the_retention_leaves_nothing_behind(database: str, two_years: None) -> None:
    push(heart_rate(60, uuid="edited"))
    work()
    delivery = push(heart_rate(60, LATE, uuid="edited"))
    work()
    assert samples() == []
    assert again(delivery).state == "stored"  # its withdrawal is published


def test_the_scheduler_counts_samples_in_no_partition(database: str, caplog: pytest.LogCaptureFixture) -> None:
    push(heart_rate(60, NOON + timedelta(days=4 * 365)))
    work()
    watch_default_partition()
    assert counted("auren_samples_default_partition") == 1
    assert "manage.py empty_default_partition" in caplog.text


def test_the_scheduler_looks_after_partitions_and_retention() -> None:
    assert {chore.name for chore in chores()} >= {
        "partitions made ahead",
        "samples in the default partition",
        "partitions past their retention",
        "records and conflicts past their retention",
    }
