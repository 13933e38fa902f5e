"""Where two sources disagree: the same conflicts whatever the order, the repetition and the batches of arrivals."""

from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from auren.biometrics.conflicts import statements
from auren.biometrics.metrics import BY_NAME
from auren.biometrics.models import Conflict, Preference
from auren.biometrics.store import Incoming
from tests.biometrics.arriving import PATIENTS, Store, hours, sample, source_of, withdrawal

ANY_ORDER = settings(
    max_examples=30,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
KINDS = {1: "ring", 2: "band", 3: "watch", 4: "watch"}  # by link


@pytest.fixture
def patient_id(storing: Store) -> int:
    for link_id, kind in KINDS.items():
        source_of(link_id, kind)
    return next(PATIENTS)


def said(
    by: int, value: float, start: float, end: float | None = None, *, patient_id: int, metric: str, revised: float = 0
) -> Incoming:
    return sample(
        value,
        start,
        end,
        patient_id=patient_id,
        link_id=by,
        source_id=source_of(by, KINDS[by]),
        metric=metric,
        record=f"{metric} {by} {start}",
        revised=revised,
    )


def prefer(
    *kinds: str,
    patient_id: int,
    metric: str = "",
    since: float | None = None,
    until: float | None = None,
    daily: bool = False,
) -> Preference:
    """What a person decided: for a moment with `until`, for a metric with its name alone, else the patient's order."""
    links = {kind: link_id for link_id, kind in KINDS.items()}
    return Preference.objects.create(
        patient_id=patient_id,
        scope="moment" if until is not None else "metric" if metric else "patient",
        metric=BY_NAME[metric].number if metric else None,
        since=None if since is None else hours(since),
        until=None if until is None else hours(until),
        daily=daily if until is not None else None,
        sources=[source_of(links[kind], kind) for kind in kinds],
        made_by="dr.lee",
        note="the strap was loose",
    )


def conflicts(patient_id: int) -> list[tuple[object, ...]]:
    """Metric, start and end in hours, who said what, who won, by which rule, and the state."""
    links = {source_of(link_id, kind): link_id for link_id, kind in KINDS.items()}
    names = {metric.number: name for name, metric in BY_NAME.items()}
    found = Conflict.objects.filter(patient_id=patient_id).order_by("metric", "start_at")
    return [
        (
            names[each.metric],
            (each.start_at - hours(0)).total_seconds() / 3600,
            (each.end_at - hours(0)).total_seconds() / 3600,
            {links[int(source)]: round(value, 6) for source, value in each.values.items()},
            links[each.winner_id],
            each.rule,
            each.state,
        )
        for each in found
    ]


def test_two_nights_that_differ_are_one_conflict_won_by_the_metrics_order(storing: Store, patient_id: int) -> None:
    storing.put(said(1, 25_000, -14, -6, patient_id=patient_id, metric="sleep_duration"))
    changed = storing.put(said(2, 20_000, -13.5, -5, patient_id=patient_id, metric="sleep_duration")).conflicts
    expected = ("sleep_duration", -14, -5, {1: 25_000, 2: 20_000}, 1, "metric_order", "settled")
    assert conflicts(patient_id) == [expected]
    assert [(change.state, change.rule) for change in changed] == [("settled", "metric_order")]


def test_two_nights_within_the_tolerance_agree(storing: Store, patient_id: int) -> None:
    storing.put(said(1, 25_000, -14, -6, patient_id=patient_id, metric="sleep_duration"))
    storing.put(said(2, 26_800, -13.5, -5, patient_id=patient_id, metric="sleep_duration"))
    assert conflicts(patient_id) == []


def test_two_sources_of_one_kind_stay_open_and_the_newer_revision_draws_the_line(
    storing: Store, patient_id: int
) -> None:
    storing.put(said(4, 100, 0, patient_id=patient_id, metric="heart_rate", revised=2))
    storing.put(said(3, 60, 0, patient_id=patient_id, metric="heart_rate", revised=1))
    assert conflicts(patient_id) == [("heart_rate", 0, 1 / 12, {3: 60, 4: 100}, 4, "recency", "open")]


def test_heart_rates_are_compared_over_five_minutes(storing: Store, patient_id: int) -> None:
    at = {"patient_id": patient_id, "metric": "heart_rate"}
    storing.put(said(1, 60, 0, **at), said(1, 70, 2 / 60, **at))  # type: ignore[arg-type]
    storing.put(said(3, 80, 4.9 / 60, **at), said(3, 150, 5 / 60, **at))  # type: ignore[arg-type]
    assert conflicts(patient_id) == [("heart_rate", 0, 1 / 12, {1: 65, 3: 80}, 3, "metric_order", "settled")]


def test_steps_are_added_up_per_quarter_and_a_days_total_says_nothing_about_one(
    storing: Store, patient_id: int
) -> None:
    at = {"patient_id": patient_id, "metric": "steps"}
    storing.put(said(3, 300, 0, 0.1, **at), said(3, 300, 0.1, 0.2, **at))  # type: ignore[arg-type]
    storing.put(said(1, 900, -12, 12, **at), said(1, 100, 0, 0.2, **at))  # type: ignore[arg-type]
    assert conflicts(patient_id) == [("steps", 0, 0.25, {1: 100, 3: 600}, 3, "metric_order", "settled")]


def test_a_days_total_competes_with_what_the_quarters_add_up_to(storing: Store, patient_id: int) -> None:
    at = {"patient_id": patient_id, "metric": "steps"}
    storing.put(said(1, 15_000, -12, 12, **at))  # type: ignore[arg-type]
    assert conflicts(patient_id) == []
    storing.put(said(3, 300, -12, -11.75, **at), said(3, 148, 1, 2, **at))  # type: ignore[arg-type]
    assert conflicts(patient_id) == [("steps", -12, 12, {1: 15_000, 3: 448}, 3, "metric_order", "settled")]


def test_what_the_quarters_add_up_to_is_filled_by_the_next_source_and_counts_nothing_twice(
    storing: Store, patient_id: int
) -> None:
    at = {"patient_id": patient_id, "metric": "steps"}
    storing.put(said(1, 10_000, -12, 12, **at))  # type: ignore[arg-type]
    storing.put(*(said(3, 1_000, hour, hour + 0.25, **at) for hour in range(4)))  # type: ignore[arg-type]
    storing.put(*(said(2, 900, hour, hour + 0.25, **at) for hour in range(2, 6)))  # type: ignore[arg-type]
    daily = [conflict for conflict in conflicts(patient_id) if conflict[2] == 12]
    assert daily == [("steps", -12, 12, {1: 10_000, 3: 5_800}, 3, "metric_order", "settled")]


def test_a_day_and_its_first_quarter_may_both_be_in_conflict(storing: Store, patient_id: int) -> None:
    at = {"patient_id": patient_id, "metric": "steps"}
    storing.put(
        said(1, 9_000, -12, 12, **at),  # type: ignore[arg-type]
        said(2, 300, -12, -11.75, **at),  # type: ignore[arg-type]
        said(3, 600, -12, -11.75, **at),  # type: ignore[arg-type]
    )
    expected = [{1: 9_000, 3: 600}, {2: 300, 3: 600}]
    assert sorted((conflict[3] for conflict in conflicts(patient_id)), key=str) == expected
    storing.put(said(3, 310, -12, -11.75, revised=1, **at))  # type: ignore[arg-type]
    assert [conflict[3] for conflict in conflicts(patient_id)] == [{1: 9_000, 3: 310}]


def test_a_days_total_that_nearly_agrees_is_no_conflict(storing: Store, patient_id: int) -> None:
    at = {"patient_id": patient_id, "metric": "steps"}
    storing.put(said(1, 1_500, -12, 12, **at), said(3, 800, 0, 0.25, **at))  # type: ignore[arg-type]
    assert conflicts(patient_id) == []


def test_daily_values_are_compared_over_the_patients_own_day(storing: Store, patient_id: int) -> None:
    at = {"patient_id": patient_id, "metric": "skin_temperature_deviation"}
    midnight = 23  # hours after noon in UTC: a day in Auckland, 13 hours ahead in November, begins
    storing.put(
        said(1, 0.1, midnight, midnight + 24, **at),  # type: ignore[arg-type]
        said(2, 2, midnight + 23, midnight + 24, **at),  # type: ignore[arg-type]
        said(3, 5, midnight + 24, midnight + 48, **at),  # type: ignore[arg-type]
        zone="Pacific/Auckland",
    )
    [conflict] = conflicts(patient_id)
    assert conflict[1:4] == (midnight, midnight + 24, {1: 0.1, 2: 2})


def test_a_conflict_goes_when_a_revision_agrees(storing: Store, patient_id: int) -> None:
    storing.put(said(1, 25_000, -14, -6, patient_id=patient_id, metric="sleep_duration"))
    storing.put(said(2, 20_000, -13.5, -5, patient_id=patient_id, metric="sleep_duration"))
    gone = storing.put(said(2, 25_000, -13.5, -5, patient_id=patient_id, metric="sleep_duration", revised=1)).conflicts
    assert conflicts(patient_id) == []
    assert [(change.state, change.winner_id) for change in gone] == [("gone", None)]


def test_a_conflict_goes_with_the_last_of_its_samples(storing: Store, patient_id: int) -> None:
    for by, value in ((1, 25_000), (2, 20_000)):
        storing.put(said(by, value, -14, -6, patient_id=patient_id, metric="sleep_duration"))
    both = [withdrawal(9, patient_id=patient_id, link_id=by, record=f"sleep_duration {by} -14") for by in (1, 2)]
    storing.put(*both)
    assert conflicts(patient_id) == []


def test_what_a_person_decided_outlives_new_samples(storing: Store, patient_id: int) -> None:
    for by, value in ((1, 25_000), (2, 20_000)):
        storing.put(said(by, value, -14, -6, patient_id=patient_id, metric="sleep_duration"))
    prefer("band", patient_id=patient_id, metric="sleep_duration")
    storing.put(said(1, 26_000, -14, -6, patient_id=patient_id, metric="sleep_duration", revised=1))
    assert conflicts(patient_id) == [
        ("sleep_duration", -14, -6, {1: 26_000, 2: 20_000}, 2, "person", "overridden"),
    ]


def test_an_edit_that_ends_a_night_earlier_frees_what_came_after(storing: Store, patient_id: int) -> None:
    at = {"patient_id": patient_id, "metric": "sleep_duration"}
    storing.put(said(1, 36_000, -14, -4, **at))  # type: ignore[arg-type]
    storing.put(said(2, 3_000, -5, -4, **at), said(3, 9_000, -5, -3, **at))  # type: ignore[arg-type]
    storing.put(said(1, 20_000, -14, -8, revised=1, **at))  # type: ignore[arg-type]
    assert [each[1:4] for each in conflicts(patient_id)] == [(-5, -3, {2: 3_000, 3: 9_000})]


def test_a_night_in_two_pieces_is_one_night_where_another_source_slept_through(storing: Store, patient_id: int) -> None:
    at = {"patient_id": patient_id, "metric": "sleep_duration"}
    pieces = [said(1, 14_000, -14, -10, **at), said(1, 8_000, -6, -4, **at)]  # type: ignore[arg-type]
    storing.put(*pieces, said(2, 25_000, -14, -5, **at))  # type: ignore[arg-type]
    assert [each[1:4] for each in conflicts(patient_id)] == [(-14, -4, {1: 14_000, 2: 25_000})]


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[str, int, int, int, int, int]]:
    """Metric, link, start and length in quarters of an hour, value, revision; one value a record and revision."""
    metric = draw(st.sampled_from(["sleep_duration", "heart_rate", "steps", "resting_heart_rate"]))
    one = st.tuples(
        st.just(metric),
        st.sampled_from(list(KINDS)),
        st.integers(0, 12),
        st.integers(1, 8),
        st.integers(40, 140),
        st.integers(0, 1),
    )
    return draw(st.lists(one, min_size=2, max_size=6, unique_by=lambda each: (each[1], each[2], each[5])))


def outcome(storing: Store, batches: list[list[tuple[str, int, int, int, int, int]]]) -> list[tuple[object, ...]]:
    patient_id = next(PATIENTS)
    for number, batch in enumerate(batches):
        taken = [
            said(
                by,
                value * (100 if metric in {"sleep_duration", "steps"} else 1),
                start / 4,
                (start + length) / 4 if metric != "heart_rate" else None,
                patient_id=patient_id,
                metric=metric,
                revised=revision,
            )
            for metric, by, start, length, value, revision in batch
        ]
        storing.put(*(msgspec.structs.replace(each, delivery_id=number) for each in taken))
    return conflicts(patient_id)


@given(said_by_all=arrivals(), data=st.data())
@ANY_ORDER
def test_the_conflicts_are_the_same_whatever_the_order_the_repetition_and_the_batches(
    storing: Store, patient_id: int, said_by_all: list[tuple[str, int, int, int, int, int]], data: st.DataObject
) -> None:
    in_one_go = outcome(storing, [said_by_all])
    shuffled = data.draw(st.permutations(said_by_all + data.draw(st.lists(st.sampled_from(said_by_all), max_size=2))))
    assert outcome(storing, [[each] for each in shuffled]) == in_one_go
    cut = data.draw(st.integers(1, len(shuffled)))
    assert outcome(storing, [shuffled[:cut], shuffled[cut:]] if shuffled[cut:] else [shuffled]) == in_one_go


def compared_in_vain(node: dict[str, Any]) -> int:
    """Pairs of rows that a plan put side by side and threw away."""
    own = node.get("Rows Removed by Join Filter", 0) * node["Actual Loops"]
    return int(own) + sum(compared_in_vain(child) for child in node.get("Plans", []))


@pytest.mark.parametrize("statement", [0, 1, 2], ids=["fixed", "nights", "counts"])
def test_a_young_table_without_statistics_is_settled_bucket_by_bucket(
    storing: Store, patient_id: int, database: str, statement: int
) -> None:
    buckets = 1500
    storing.put(
        *(said(3, 60, place / 12, patient_id=patient_id, metric="heart_rate") for place in range(buckets)),
        *(said(3, 9, place / 4, place / 4 + 0.2, patient_id=patient_id, metric="steps") for place in range(buckets)),
    )
    text, given_ = statements({patient_id: "Europe/Berlin"})[statement]
    with psycopg.connect(database) as connection:
        connection.execute(
            "CREATE TEMP TABLE touched AS SELECT patient_id, metric, start_at, end_at FROM biometrics_sample"
        )
        row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", given_).fetchone()
        connection.rollback()
    assert row is not None
    assert compared_in_vain(row[0][0]["Plan"]) < 100 * buckets
