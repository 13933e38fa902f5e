"""Which revision stands: whatever the order of arrival, and however arrivals fall into batches."""

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import msgspec
import psycopg
import pytest
from django.db import connection
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from auren.biometrics.models import Record, Sample
from auren.biometrics.store import Incoming, Withdrawal
from tests.biometrics.arriving import PATIENTS, Store, hours, sample, source_of, withdrawal

ANY_ORDER = settings(
    max_examples=30,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


@pytest.fixture
def patient_id() -> int:
    return next(PATIENTS)


def stored(patient_id: int) -> list[tuple[float, float]]:
    """Hour and value of every sample, in order."""
    found = Sample.objects.filter(patient_id=patient_id).order_by("start_at", "source_id", "record")
    return [((each.start_at - hours(0)).total_seconds() / 3600, each.value) for each in found]


@dataclass(frozen=True)
class Revision:
    """A document as it was at `at` (hours): its samples by hour, or None once it was withdrawn."""

    at: int
    samples: tuple[tuple[int, int], ...] | None

    def arrivals(self, patient_id: int, delivery_id: int) -> list[Incoming | Withdrawal]:
        if self.samples is None:
            return [withdrawal(self.at, patient_id=patient_id, delivery_id=delivery_id)]
        return [
            sample(value, hour, patient_id=patient_id, revised=self.at, delivery_id=delivery_id, place=place)
            for place, (hour, value) in enumerate(self.samples)
        ]


HOURS = st.dictionaries(st.integers(-6, 6), st.integers(50, 90), min_size=1, max_size=4).map(
    lambda by_hour: tuple(sorted(by_hour.items()))
)
HISTORIES = st.lists(st.one_of(HOURS, st.none()), min_size=1, max_size=5).map(
    lambda states: [Revision(at, state) for at, state in enumerate(states)]
)


@given(history=HISTORIES, data=st.data())
@ANY_ORDER
def test_the_latest_revision_stands_whatever_the_order_and_the_batches(
    storing: Store, history: list[Revision], data: st.DataObject
) -> None:
    patient_id = next(PATIENTS)
    repeated = history + data.draw(st.lists(st.sampled_from(history), max_size=2))
    arrivals = data.draw(st.permutations(repeated))
    batch: list[Incoming | Withdrawal] = []
    for number, revision in enumerate(arrivals):
        batch += revision.arrivals(patient_id, number)
        if data.draw(st.booleans()):
            storing.put(*batch)
            batch = []
    if batch:
        storing.put(*batch)
    assert stored(patient_id) == list(history[-1].samples or ())


def test_every_order_of_three_revisions_and_a_deletion_ends_the_same(storing: Store) -> None:
    history = [
        Revision(0, ((0, 60), (1, 61), (2, 62))),
        Revision(1, None),
        Revision(2, ((0, 70), (5, 75))),
        Revision(3, ((0, 80),)),
    ]
    for order in permutations(history):
        patient_id = next(PATIENTS)
        for number, revision in enumerate(order):
            storing.put(*revision.arrivals(patient_id, number))
        assert stored(patient_id) == [(0, 80)]


def test_a_night_edited_shorter_leaves_nothing_behind(storing: Store, patient_id: int) -> None:
    storing.put(*(sample(60 + hour, hour, patient_id=patient_id, place=hour) for hour in range(8)))
    storing.put(*(sample(70 + hour, hour, patient_id=patient_id, revised=1, place=hour) for hour in range(2, 5)))
    assert stored(patient_id) == [(2, 72), (3, 73), (4, 74)]


def test_a_document_moved_to_another_day_leaves_nothing_behind(storing: Store, patient_id: int) -> None:
    storing.put(sample(60, 0, patient_id=patient_id))
    storing.put(sample(60, 24 * 40, patient_id=patient_id, revised=1))
    assert stored(patient_id) == [(24 * 40, 60)]


def test_a_document_that_moves_to_another_partition_within_one_batch_is_there_once(
    storing: Store, patient_id: int
) -> None:
    month = 24 * 40
    storing.put(sample(60, -month, patient_id=patient_id))
    storing.put(
        sample(61, 0, patient_id=patient_id, revised=1, delivery_id=2),
        sample(62, month, patient_id=patient_id, revised=2, delivery_id=3),
    )
    assert stored(patient_id) == [(month, 62)]


def test_devices_of_one_name_under_two_links_are_two(storing: Store, patient_id: int) -> None:
    ours, theirs = source_of(1, "watch", "Apple Watch"), source_of(2, "watch", "Apple Watch")
    storing.put(
        sample(60, patient_id=patient_id, link_id=1, source_id=ours),
        sample(70, patient_id=patient_id, link_id=2, source_id=theirs),
    )
    storing.put(withdrawal(1, patient_id=patient_id, link_id=2))
    assert stored(patient_id) == [(0, 60)]


def test_a_withdrawal_that_comes_before_its_sample_keeps_it_out(storing: Store, patient_id: int) -> None:
    storing.put(withdrawal(2, patient_id=patient_id))
    result = storing.put(sample(60, patient_id=patient_id, revised=1, delivery_id=5))
    assert stored(patient_id) == []
    assert (result.counts, result.lost) == ({}, {(5, "r", hours(1))})


def test_a_late_fetch_after_a_deletion_does_not_bring_it_back(storing: Store, patient_id: int) -> None:
    storing.put(sample(60, patient_id=patient_id, revised=0))
    storing.put(withdrawal(2, patient_id=patient_id))
    storing.put(sample(61, patient_id=patient_id, announced=1, revised=3))  # asked for after it, told of before it
    assert stored(patient_id) == []


def test_a_record_made_again_after_its_deletion_stands(storing: Store, patient_id: int) -> None:
    storing.put(withdrawal(2, patient_id=patient_id))
    storing.put(sample(61, patient_id=patient_id, announced=3, revised=4))
    assert stored(patient_id) == [(0, 61)]
    assert Record.objects.get(patient_id=patient_id).withdrawn_at is None


def test_a_phones_deletion_is_final(storing: Store, patient_id: int) -> None:
    storing.put(sample(60, patient_id=patient_id, revised=5, final=True))
    storing.put(withdrawal(2, patient_id=patient_id, final=True))  # the phone's clock is behind
    storing.put(sample(60, patient_id=patient_id, revised=9, final=True))
    assert stored(patient_id) == []


@pytest.mark.parametrize(("withdrawn", "left"), [(1, []), (-1, [(0.0, 60.0)])])
def test_a_sample_and_its_withdrawal_in_one_batch(
    storing: Store, patient_id: int, withdrawn: int, left: list[tuple[float, float]]
) -> None:
    result = storing.put(sample(60, patient_id=patient_id), withdrawal(withdrawn, patient_id=patient_id))
    assert stored(patient_id) == left
    assert result.gone == (set() if left else {(1, "r")})


def test_a_withdrawal_that_a_later_revision_has_overtaken_changes_nothing(storing: Store, patient_id: int) -> None:
    storing.put(sample(60, patient_id=patient_id, revised=5))
    result = storing.put(withdrawal(4, patient_id=patient_id))
    assert stored(patient_id) == [(0, 60)]
    assert result.gone == set()


def test_a_withdrawal_takes_only_the_records_of_its_own_link(storing: Store, patient_id: int) -> None:
    storing.put(sample(60, patient_id=patient_id, link_id=1))
    storing.put(sample(61, patient_id=patient_id, link_id=2))
    storing.put(withdrawal(9, patient_id=patient_id, link_id=2))
    assert stored(patient_id) == [(0, 60)]


def test_the_same_batch_again_changes_nothing(storing: Store, patient_id: int) -> None:
    batch = [sample(60 + hour, hour, patient_id=patient_id, record=f"r{hour}") for hour in range(5)]
    storing.put(*batch)
    before = rows_of(patient_id)
    again = storing.put(*batch)
    assert rows_of(patient_id) == before
    assert (again.counts, again.lost, again.conflicts) == ({1: 5}, set(), [])


def test_what_another_delivery_has_stored_already_is_no_news(storing: Store, patient_id: int) -> None:
    batch = [sample(60 + hour, hour, patient_id=patient_id, record=f"r{hour}") for hour in range(2)]
    storing.put(*batch)
    before = rows_of(patient_id)
    more = sample(70, 9, patient_id=patient_id, record="new", delivery_id=2)
    again = storing.put(more, *(msgspec.structs.replace(each, delivery_id=2) for each in batch))
    assert set(before) < set(rows_of(patient_id))
    assert (again.counts, again.lost) == ({2: 1}, {(2, "r0", hours(0)), (2, "r1", hours(0))})


def rows_of(patient_id: int) -> list[str]:
    """Every row with the transaction that wrote it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT xmin, s.*::text FROM biometrics_sample s WHERE patient_id = %s ORDER BY 2", [patient_id])
        return [str(row) for row in cursor.fetchall()]


def test_of_two_samples_with_one_key_in_a_batch_the_later_one_counts(storing: Store, patient_id: int) -> None:
    result = storing.put(*(sample(60 + place, patient_id=patient_id, place=place) for place in range(3)))
    assert stored(patient_id) == [(0, 62)]
    assert result.counts == {1: 1}


def test_two_revisions_of_one_record_in_one_delivery_leave_the_newer_one(storing: Store, patient_id: int) -> None:
    older = [sample(60, hour, patient_id=patient_id, place=hour) for hour in range(3)]
    result = storing.put(sample(70, 0, patient_id=patient_id, revised=1, place=9), *older)
    assert stored(patient_id) == [(0, 70)]
    assert (result.counts, result.lost) == ({1: 1}, {(1, "r", hours(0))})
    storing.put(sample(80, 1, patient_id=patient_id, revised=2), *older)
    assert stored(patient_id) == [(1, 80)]


def test_one_record_from_two_links_is_two_records(storing: Store, patient_id: int) -> None:
    storing.put(sample(60, patient_id=patient_id, link_id=1))
    storing.put(sample(70, patient_id=patient_id, link_id=2, revised=-1))
    assert stored(patient_id) == [(0, 60), (0, 70)]


def test_patients_in_one_batch_do_not_mix(storing: Store, patient_id: int) -> None:
    other = next(PATIENTS)
    storing.put(sample(60, patient_id=patient_id), sample(70, patient_id=other))
    storing.put(withdrawal(1, patient_id=other), sample(61, patient_id=patient_id, revised=1))
    assert (stored(patient_id), stored(other)) == ([(0, 61)], [])


def test_no_sample_ever_lands_in_the_default_partition(storing: Store, patient_id: int, database: str) -> None:
    storing.put(
        *(sample(60, days * 24, patient_id=patient_id, record=str(days)) for days in (-9_000, -900, -30, 0, 60))
    )
    with psycopg.connect(database) as other:
        assert other.execute("SELECT count(*) FROM biometrics_sample_default").fetchone() == (0,)
    assert len(stored(patient_id)) == 5


def test_what_adds_to_its_record_leaves_the_earlier_samples(storing: Store, patient_id: int) -> None:
    storing.put(sample(90.7, 1, patient_id=patient_id, metric="body_mass", revised=1, adds=True))
    storing.put(sample(89.5, 2, patient_id=patient_id, metric="body_mass", revised=2, adds=True))
    assert stored(patient_id) == [(1, 90.7), (2, 89.5)]
    storing.put(withdrawal(3, patient_id=patient_id))
    assert stored(patient_id) == []


def test_a_document_that_shrinks_to_one_value_keeps_none_of_the_others(storing: Store, patient_id: int) -> None:
    day: dict[str, Any] = {"patient_id": patient_id, "start": 0, "end": 24}
    storing.put(
        sample(88, metric="oura_readiness_score", **day),
        sample(0.2, metric="skin_temperature_deviation", place=1, **day),
    )
    storing.put(sample(0.3, metric="skin_temperature_deviation", revised=1, **day))
    assert stored(patient_id) == [(0, 0.3)]


def test_a_documents_only_value_that_becomes_another_metric_replaces_it(storing: Store, patient_id: int) -> None:
    day: dict[str, Any] = {"patient_id": patient_id, "start": 0, "end": 24}
    storing.put(sample(88, metric="oura_readiness_score", **day))
    storing.put(sample(0.3, metric="skin_temperature_deviation", revised=1, **day))
    assert stored(patient_id) == [(0, 0.3)]
