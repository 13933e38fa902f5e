"""Where two sources disagree: the same conflicts whatever the order, the repetition and the batches of arrivals."""

from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from auren.biometrics import timeline
from auren.biometrics.conflicts import statements
from auren.biometrics.metrics import BY_NAME
from auren.biometrics.models import Conflict, Preference, Sample
from auren.biometrics.store import Incoming, Withdrawal
from devices.models import Patient
from tests.biometrics.arriving import PATIENTS, Store, hours, sample, source_of, withdrawal
from webhooks.overriding import settle_touched

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
    links = {kind: link_id for link_id, kind in reversed(KINDS.items())}
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


def test_a_conflict_of_a_moment_goes_with_a_sample_too(storing: Store, patient_id: int) -> None:
    at = {"patient_id": patient_id, "metric": "resting_heart_rate"}
    storing.put(said(1, 50, 0, **at), said(2, 70, 0, **at))  # type: ignore[arg-type]
    assert [each[3] for each in conflicts(patient_id)] == [{1: 50, 2: 70}]
    storing.put(withdrawal(9, patient_id=patient_id, link_id=2, record="resting_heart_rate 2 0"))
    assert conflicts(patient_id) == []


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


def test_a_decision_holds_when_its_conflict_goes_and_comes_back(storing: Store, patient_id: int) -> None:
    at: dict[str, Any] = {"patient_id": patient_id, "metric": "sleep_duration"}
    prefer("band", since=-14, until=-6, **at)
    storing.put(said(1, 25_000, -14, -6, **at), said(2, 20_000, -14, -6, **at))
    storing.put(said(2, 25_000, -14, -6, revised=1, **at))
    assert conflicts(patient_id) == []
    storing.put(said(2, 18_000, -14, -6, revised=2, **at))
    assert conflicts(patient_id) == [("sleep_duration", -14, -6, {1: 25_000, 2: 18_000}, 2, "person", "overridden")]


def test_a_device_that_has_withdrawn_its_data_does_not_win_until_it_speaks_again(
    storing: Store, patient_id: int
) -> None:
    at: dict[str, Any] = {"patient_id": patient_id, "metric": "sleep_duration"}
    prefer("watch", since=-14, until=-6, **at)
    storing.put(*(said(by, value, -14, -6, **at) for by, value in ((1, 25_000), (2, 20_000), (3, 15_000))))
    storing.put(withdrawal(1, patient_id=patient_id, link_id=3, record="sleep_duration 3 -14"))
    assert [each[4:] for each in conflicts(patient_id)] == [(1, "metric_order", "settled")]
    storing.put(said(3, 15_000, -14, -6, revised=2, **at))
    assert [each[4:] for each in conflicts(patient_id)] == [(3, "person", "overridden")]


def test_a_moment_goes_before_a_metric_and_that_before_the_patients_order(storing: Store, patient_id: int) -> None:
    at: dict[str, Any] = {"patient_id": patient_id, "metric": "heart_rate"}
    prefer("band", since=2, until=2 + 1 / 12, **at)
    prefer("ring", since=1, **at)
    prefer("watch", "band", patient_id=patient_id)
    prefer("band", "watch", patient_id=patient_id)
    for hour in range(3):
        storing.put(*(said(by, value, hour, **at) for by, value in ((1, 50), (2, 70), (3, 90))))
    decided = [each[4:] for each in conflicts(patient_id)]
    assert decided == [(2, "patient_order", "settled"), (1, "person", "overridden"), (2, "person", "overridden")]


def test_a_count_that_reaches_over_quarters_is_spread_before_it_is_compared(storing: Store, patient_id: int) -> None:
    at: dict[str, Any] = {"patient_id": patient_id, "metric": "steps"}
    storing.put(
        said(3, 2_400, 0, 1, **at), *(said(2, 610, quarter / 4, quarter / 4 + 0.25, **at) for quarter in range(4))
    )
    assert conflicts(patient_id) == []
    storing.put(said(2, 20, 0.5, 0.75, revised=1, **at))
    assert [each[1:5] for each in conflicts(patient_id)] == [(0.5, 0.75, {2: 20, 3: 600}, 3)]


def test_what_is_longer_than_an_hour_counts_in_the_days_sum_and_disputes_no_quarter(
    storing: Store, patient_id: int
) -> None:
    at: dict[str, Any] = {"patient_id": patient_id, "metric": "steps"}
    storing.put(said(1, 15_000, -12, 12, **at), said(3, 8_000, 0, 8, **at), said(2, 900, 0, 0.25, **at))
    assert [each[2:4] for each in conflicts(patient_id)] == [(12, {1: 15_000, 3: 8_000})]


def test_a_long_count_disputes_no_quarter_that_another_source_fills_later(storing: Store, patient_id: int) -> None:
    storing.put(said(3, 6_000, 0, 6, patient_id=patient_id, metric="steps"))
    storing.put(said(4, 900, 5, 5.25, patient_id=patient_id, metric="steps"))
    assert conflicts(patient_id) == []


def test_a_count_of_half_an_hour_disputes_the_quarter_it_reaches_into(storing: Store, patient_id: int) -> None:
    storing.put(said(3, 1_000, 4.75, 5.25, patient_id=patient_id, metric="steps"))
    storing.put(said(4, 900, 5, 5.25, patient_id=patient_id, metric="steps"))
    assert [(start, end) for _, start, end, *_ in conflicts(patient_id)] == [(5, 5.25)]


def test_a_count_over_midnight_counts_in_both_days(storing: Store, patient_id: int) -> None:
    at: dict[str, Any] = {"patient_id": patient_id, "metric": "steps"}
    for midnight in (-12, 12):
        storing.put(said(1, 9_000, midnight, midnight + 24, **at))
    storing.put(said(3, 400, 11.75, 12.25, **at))
    assert [each[3] for each in conflicts(patient_id)] == [{1: 9_000, 3: 200}, {1: 9_000, 3: 200}]


def test_a_days_total_is_one_on_days_of_23_and_25_hours(storing: Store, patient_id: int) -> None:
    at: dict[str, Any] = {"patient_id": patient_id, "metric": "steps"}
    for noon in (-19 * 24, -229 * 24):  # 25 October and 29 March 2026 in Berlin, an hour or two before UTC
        midnight = noon - (14 if noon == -19 * 24 else 13)
        storing.put(
            said(1, 9_000, midnight, midnight + 24, **at), said(3, 100, noon, noon + 0.25, **at), zone="Europe/Berlin"
        )
    assert sorted((each[2] - each[1], each[3][1]) for each in conflicts(patient_id)) == [(23, 9_000), (25, 9_000)]  # type: ignore[operator, index]


def test_zero_is_a_count_that_nobody_fills(storing: Store, patient_id: int) -> None:
    at: dict[str, Any] = {"patient_id": patient_id, "metric": "steps"}
    storing.put(said(1, 5_000, -12, 12, **at), said(3, 0, 0, 0.25, **at), said(2, 90, 0, 0.25, **at))
    assert [each[3] for each in conflicts(patient_id)] == [{1: 5_000, 3: 0}]


def test_a_day_that_begins_at_bedtime_is_compared_as_the_day_it_is_of(storing: Store, patient_id: int) -> None:
    at: dict[str, Any] = {"patient_id": patient_id, "metric": "total_energy"}
    storing.put(said(1, 2_000, -12, 12, **at), said(2, 2_900, -13.5, 10.5, **at))
    assert [each[1:4] for each in conflicts(patient_id)] == [(-12, 12, {1: 2_000, 2: 2_900})]


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


# What may happen to one patient: a value said, a record withdrawn, a decision made. Times are quarters of an hour.
Said = tuple[str, int, int, int, int, int]  # metric, link, start, length, value, revision
Gone = tuple[str, int, int]  # metric, link, start: withdrawn after revision 0 and before revision 1
Decided = tuple[str, tuple[int, ...], int]  # scope, links in their order, since
Event = Said | Gone
METRICS = ("sleep_duration", "heart_rate", "steps", "resting_heart_rate")
MIDNIGHT = -48


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Event], list[Decided]]:
    """Of one record and revision there is one value. The same value comes in two revisions, too."""
    metric = draw(st.sampled_from(METRICS))
    start, revision = st.integers(0, 10), st.integers(0, 1)
    value = st.sampled_from([60, 64, 100, 140])
    one = st.tuples(
        st.just(metric), st.sampled_from(list(KINDS)), start, st.sampled_from([0, 1, 2, 5]), value, revision
    )
    said = draw(st.lists(one, min_size=2, max_size=7, unique_by=lambda each: (each[1], each[2], each[5])))
    if metric == "steps":
        total = st.tuples(st.just(metric), st.sampled_from([1, 3]), st.just(MIDNIGHT), st.just(96), value, revision)
        said += draw(st.lists(total, max_size=2, unique_by=lambda each: (each[1], each[5])))
    gone = draw(st.lists(st.sampled_from([each[:3] for each in said]), max_size=2))
    order = st.permutations(list(KINDS)).map(lambda links: tuple(links[:2]))
    decided = draw(st.lists(st.tuples(st.sampled_from(["moment", "metric", "patient"]), order, start), max_size=2))
    return [*said, *gone], decided


def arrived(event: Event, patient_id: int) -> Incoming | Withdrawal:
    if len(event) == 3:
        metric, by, start = event
        return withdrawal(0.5, patient_id=patient_id, link_id=by, record=f"{metric} {by} {start / 4}")
    metric, by, start, length, value, revision = event
    value *= 100 if metric in {"sleep_duration", "steps"} else 1
    end = None if metric == "heart_rate" else (start + length) / 4
    return said(by, value, start / 4, end, patient_id=patient_id, metric=metric, revised=revision)


def decide(decided: Decided, metric: str, patient_id: int) -> None:
    scope, links, since = decided
    about: dict[str, Any] = {} if scope == "patient" else {"metric": metric, "since": since / 4}
    until: dict[str, Any] = {"until": (since + 1) / 4} if scope == "moment" else {}
    with transaction.atomic():
        preference = prefer(*(KINDS[link] for link in links), patient_id=patient_id, **about, **until)
        settle_touched(Patient(pk=patient_id, timezone="UTC"), preference)


def standing(patient_id: int) -> list[tuple[object, ...]]:
    samples = Sample.objects.filter(patient_id=patient_id)
    return sorted(samples.values_list("metric", "start_at", "end_at", "source_id", "record", "value", "revised_at"))


def drawn(patient_id: int, metric: str) -> list[tuple[object, ...]]:
    """Who draws what on the timeline: sources, start, end, value."""
    window = timeline.Window(patient_id, hours(-12), hours(12), ZoneInfo("UTC"))
    lines = timeline.read(window, [BY_NAME[metric]]).series[0].lines
    points = [(line.sources, *point) for line in lines for point in zip(line.start, line.end, line.value, strict=True)]
    return sorted(point for point in points if point[-1] is not None)


def outcome(storing: Store, metric: str, steps: list[list[Event] | Decided]) -> tuple[object, ...]:
    """What is left of `steps`, each of them a batch that arrives or a decision that is made."""
    patient_id = next(PATIENTS)
    for step in steps:
        if isinstance(step, tuple):
            decide(step, metric, patient_id)
        else:
            storing.put(*(arrived(event, patient_id) for event in step))
    for conflict in Conflict.objects.filter(patient_id=patient_id):
        draws_the_line(conflict, metric)
    return conflicts(patient_id), standing(patient_id), drawn(patient_id, metric)


def draws_the_line(conflict: Conflict, metric: str) -> None:
    """Wherever there is a conflict, what is drawn in it is the winner's."""
    start, end = conflict.start_at.timestamp(), conflict.end_at.timestamp()
    inside = [point for point in drawn(conflict.patient_id, metric) if start <= point[1] < end]  # type: ignore[operator]
    if metric != "steps":
        assert {point[0] for point in inside} == {(conflict.winner_id,)}
    elif conflict.daily:
        [(sources, _, _, value)] = inside
        assert conflict.winner_id in sources  # type: ignore[operator]
        assert round(value, 6) == round(conflict.values[str(conflict.winner_id)], 6)  # type: ignore[call-overload]


@given(history=histories(), data=st.data())
@ANY_ORDER
def test_what_stands_is_the_same_whatever_the_order_the_repetition_the_batches_and_when_people_decided(
    storing: Store, patient_id: int, history: tuple[list[Event], list[Decided]], data: st.DataObject
) -> None:
    events, decided = history
    metric = events[0][0]
    expected = outcome(storing, metric, [*decided, events])
    shuffled = data.draw(st.permutations(events + data.draw(st.lists(st.sampled_from(events), max_size=2))))
    assert outcome(storing, metric, [*([event] for event in shuffled), *decided]) == expected
    cut = data.draw(st.integers(0, len(shuffled)))
    halves = [batch for batch in (shuffled[:cut], shuffled[cut:]) if batch]
    assert outcome(storing, metric, [*halves[:1], *decided, *halves[1:]]) == expected


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
        *(
            said(by, 9, 24 * place, 24 * place + 8, patient_id=patient_id, metric="sleep_duration")
            for place in range(buckets // 10)
            for by in (1, 2)
        ),
    )
    touched = Sample.objects.values_list("patient_id", "metric", "start_at", "end_at")
    text, given_ = list(statements(touched, {patient_id: "Europe/Berlin"}))[statement]
    with psycopg.connect(database) as connection:
        row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", given_).fetchone()
        connection.rollback()
    assert row is not None
    assert compared_in_vain(row[0][0]["Plan"]) < 100 * buckets
