import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from auren.biometrics import timeline
from auren.biometrics.metrics import BY_NAME, METRICS
from auren.biometrics.models import Sample
from auren.biometrics.timeline import Line, Series, Timeline, Window
from tests.biometrics.stored import NOON, PATIENT, decide, dispute, source, store, store_night

pytestmark = pytest.mark.usefixtures("database")

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
QUARTER = 15 * MINUTE


def read(
    *metrics: str,
    start_at: datetime = NOON - DAY,
    end_at: datetime = NOON + DAY,
    zone: ZoneInfo = BERLIN,
    points: int = 1_000,
    every_source: bool = False,
) -> Timeline:
    window = Window(PATIENT, start_at, end_at, zone, points, every_source)
    return timeline.read(window, [BY_NAME[name] for name in metrics])


def series(metric: str, **asked: object) -> Series:
    return read(metric, **asked).series[0]  # type: ignore[arg-type]


def by_source(lines: list[Line]) -> dict[tuple[int, ...], list[float | None]]:
    return {line.sources: line.value for line in lines}


def test_the_preferred_device_draws_and_the_other_one_fills_its_silence() -> None:
    ring, watch = source("ring"), source("watch")
    for place in range(4):
        store(ring, "heart_rate", 50 + place, NOON + place * 5 * MINUTE)
    store(watch, "heart_rate", 71, NOON + 6 * MINUTE)
    drawn = by_source(series("heart_rate").lines)
    assert drawn == {(ring.pk,): [50, 52, 53], (watch.pk,): [71]}


def test_of_two_devices_of_one_kind_the_lower_number_draws() -> None:
    first, second = source("watch", link_id=1), source("watch", link_id=2)
    store(second, "heart_rate", 80, NOON)
    store(first, "heart_rate", 60, NOON)
    assert by_source(series("heart_rate").lines) == {(first.pk,): [60]}


def test_what_a_person_decided_for_a_moment_draws_there_and_nowhere_else() -> None:
    ring, watch = source("ring"), source("watch")
    for place in range(3):
        store(ring, "heart_rate", 48, NOON + place * 5 * MINUTE)
        store(watch, "heart_rate", 61, NOON + place * 5 * MINUTE)
    decide(ring, metric="heart_rate", since=NOON + 5 * MINUTE, until=NOON + 10 * MINUTE)
    assert by_source(series("heart_rate").lines) == {(ring.pk,): [48], (watch.pk,): [61, 61]}


def test_what_a_person_decided_for_a_metric_draws_from_then_on() -> None:
    ring, watch = source("ring"), source("watch")
    for place in range(3):
        store(ring, "heart_rate", 48, NOON + place * 5 * MINUTE)
        store(watch, "heart_rate", 61, NOON + place * 5 * MINUTE)
    decide(ring, metric="heart_rate", since=NOON + 5 * MINUTE)
    assert by_source(series("heart_rate").lines) == {(watch.pk,): [61], (ring.pk,): [48, 48]}


def test_a_patients_own_order_draws_where_the_devices_agree_too() -> None:
    ring, watch, phone = source("ring"), source("watch"), source("phone")
    for by, value in ((ring, 60), (watch, 61)):
        store(by, "heart_rate", value, NOON)
    for by in (watch, phone):
        store(by, "heart_rate", 62, NOON + HOUR)
    decide(phone, ring)
    assert by_source(series("heart_rate").lines) == {(ring.pk,): [60], (phone.pk,): [62]}


def test_a_decision_for_a_device_that_has_nothing_left_does_not_hide_the_others() -> None:
    ring, watch = source("ring"), source("watch")
    store(watch, "heart_rate", 61, NOON)
    decide(ring, metric="heart_rate", since=NOON, until=NOON + 5 * MINUTE)
    assert by_source(series("heart_rate").lines) == {(watch.pk,): [61]}


def test_an_undone_decision_draws_nothing() -> None:
    ring, watch = source("ring"), source("watch")
    for by, value in ((ring, 60), (watch, 61)):
        store(by, "heart_rate", value, NOON)
    decided = decide(ring)
    decided.undone_at = NOON
    decided.save()
    assert by_source(series("heart_rate").lines) == {(watch.pk,): [61]}


def test_a_silence_stays_a_gap_and_is_not_drawn_through() -> None:
    ring = source("ring")
    for minutes in (0, 5, 60, 65):
        store(ring, "heart_rate", 50, NOON + minutes * MINUTE)
    (line,) = series("heart_rate").lines
    assert line.value == [50, 50, None, 50, 50]
    assert (line.start[2], line.end[2]) == (line.end[1], line.start[3])


def test_a_line_with_more_samples_than_points_is_reduced_to_mean_low_and_high() -> None:
    ring = source("ring")
    for place in range(120):
        store(ring, "heart_rate", 60 + place % 3, NOON + place * MINUTE)
    (line,) = series("heart_rate", start_at=NOON, end_at=NOON + 2 * HOUR, points=20).lines
    assert len(line.value) <= 20
    assert (line.value[0], line.low[0], line.high[0]) == (60.9, 60, 62)
    assert line.end[0] - line.start[0] == 600


@pytest.mark.parametrize("points", [10, 37, 500])
def test_no_line_has_more_points_than_asked_for(points: int) -> None:
    ring = source("ring")
    start_at = NOON + 7 * MINUTE
    for place in range(600):
        store(ring, "heart_rate", 60, start_at + place * 13 * timedelta(seconds=1))
    lines = series("heart_rate", start_at=start_at, end_at=start_at + 131 * MINUTE, points=points).lines
    assert 0 < len(lines[0].value) <= points


def test_an_interval_that_began_before_the_window_is_shown_with_its_own_start() -> None:
    ring = source("ring")
    evening = NOON - 13 * HOUR
    store(ring, "hrv_rmssd", 44, evening, evening + 8 * HOUR)
    (line,) = series("hrv_rmssd", start_at=NOON - 9 * HOUR).lines
    assert (line.start, line.value) == ([evening.timestamp()], [44])


def test_what_ended_before_the_window_is_not_shown() -> None:
    ring = source("ring")
    store(ring, "hrv_rmssd", 44, NOON - 20 * HOUR, NOON - 12 * HOUR)
    assert series("hrv_rmssd", start_at=NOON - 12 * HOUR).lines == []


def test_of_two_points_of_one_source_and_instant_the_newer_revision_is_shown() -> None:
    ring = source("ring")
    store(ring, "heart_rate", 50, NOON, record="a", revised_at=NOON + HOUR)
    store(ring, "heart_rate", 90, NOON, record="b", revised_at=NOON)
    assert by_source(series("heart_rate").lines) == {(ring.pk,): [50]}


def test_steps_that_watch_and_phone_both_counted_are_counted_once() -> None:
    watch, phone = source("watch"), source("phone")
    for by, value in ((watch, 100), (phone, 90)):
        store(by, "steps", value, NOON, NOON + QUARTER)
    store(phone, "steps", 40, NOON + QUARTER, NOON + 2 * QUARTER)
    assert by_source(series("steps").lines) == {(watch.pk, phone.pk): [140]}


def test_a_count_over_an_hour_competes_in_each_of_its_quarters() -> None:
    watch, phone = source("watch"), source("phone")
    store(watch, "steps", 400, NOON, NOON + HOUR)
    for place in range(4):
        store(phone, "steps", 90, NOON + place * QUARTER, NOON + (place + 1) * QUARTER)
    assert by_source(series("steps").lines) == {(watch.pk,): [400]}


def test_zero_steps_are_a_bar_of_zero_and_a_day_without_data_has_none() -> None:
    watch = source("watch")
    store(watch, "steps", 0, NOON, NOON + QUARTER)
    assert [line.value for line in series("steps").lines] == [[0]]


def test_a_daily_total_stands_where_its_device_is_preferred_to_those_that_counted() -> None:
    ring, phone = source("ring"), source("phone")
    midnight = datetime(2026, 11, 13, tzinfo=BERLIN)
    store(ring, "steps", 9_000, midnight, midnight + DAY)
    store(phone, "steps", 50, NOON, NOON + QUARTER)
    assert by_source(series("steps").lines) == {(ring.pk,): [9_000]}


def test_a_daily_total_gives_way_to_a_preferred_device_that_counted() -> None:
    ring, watch = source("ring"), source("watch")
    midnight = datetime(2026, 11, 13, tzinfo=BERLIN)
    store(ring, "steps", 9_000, midnight, midnight + DAY)
    store(watch, "steps", 8_500, NOON, NOON + QUARTER)
    assert by_source(series("steps").lines) == {(watch.pk,): [8_500]}


def test_a_decision_about_the_day_is_between_total_and_sum_and_none_about_its_quarters() -> None:
    ring, watch, phone = source("ring"), source("watch"), source("phone")
    midnight = datetime(2026, 11, 13, tzinfo=BERLIN)
    store(ring, "steps", 9_000, midnight, midnight + DAY)
    for by, value in ((watch, 8_500), (phone, 300)):
        store(by, "steps", value, NOON, NOON + QUARTER)
    decide(ring, metric="steps", since=midnight, until=midnight + DAY, daily=True)
    assert by_source(series("steps").lines) == {(ring.pk,): [9_000]}
    decide(phone, metric="steps", since=midnight, until=midnight + DAY, daily=True)
    assert by_source(series("steps").lines) == {(ring.pk,): [9_000]}
    decide(watch, metric="steps", since=midnight, until=midnight + DAY, daily=True)
    assert by_source(series("steps").lines) == {(watch.pk,): [8_500]}


def test_a_patients_order_decides_quarter_by_quarter() -> None:
    watch, phone = source("watch"), source("phone")
    for place, counted in enumerate([(watch, 100), (phone, 90)]):
        store(counted[0], "steps", counted[1], NOON, NOON + QUARTER)
        store(counted[0], "steps", 7, NOON + (1 + place) * QUARTER, NOON + (2 + place) * QUARTER)
    decide(phone)
    assert by_source(series("steps").lines) == {(watch.pk, phone.pk): [104]}


def test_a_total_of_24_hours_is_one_on_a_day_of_25_too() -> None:
    ring, phone = source("ring"), source("phone")
    midnight = datetime(2026, 10, 25, tzinfo=BERLIN).astimezone(UTC)
    store(ring, "steps", 7_000, midnight, midnight + 24 * HOUR)
    store(phone, "steps", 300, midnight + 9 * HOUR, midnight + 9 * HOUR + QUARTER)
    assert by_source(series("steps", start_at=midnight, end_at=midnight + DAY).lines) == {(ring.pk,): [7_000]}


def test_the_nights_decision_gives_the_stages_where_durations_agree_too() -> None:
    ring, band = source("ring"), source("band")
    evening = NOON - 14 * HOUR
    store_night(ring, evening, 2, 3)
    store_night(band, evening, 2, 4)
    decide(band, metric="sleep_duration", since=evening)
    assert by_source(series("sleep_stage").lines) == {(band.pk,): [2, 4]}


@pytest.mark.parametrize(("day", "hours"), [((2026, 10, 25), 25), ((2026, 3, 29), 23), ((2026, 11, 13), 24)])
def test_a_bar_spans_the_local_day_however_long_it_is(day: tuple[int, int, int], hours: int) -> None:
    watch = source("watch")
    midnight = datetime(*day, tzinfo=BERLIN).astimezone(UTC)
    for place in range(hours):
        store(watch, "steps", 10, midnight + place * HOUR, midnight + (place + 1) * HOUR)
    (line,) = series("steps", start_at=midnight, end_at=midnight + hours * HOUR).lines
    assert line.value == [pytest.approx(hours * 10)]
    assert (line.start[0], line.end[0] - line.start[0]) == (midnight.timestamp(), hours * 3600)


def test_a_daily_total_of_a_25_hour_day_is_known_as_a_total() -> None:
    ring, phone = source("ring"), source("phone")
    midnight = datetime(2026, 10, 25, tzinfo=BERLIN).astimezone(UTC)
    store(ring, "steps", 7_000, midnight, midnight + 25 * HOUR)
    store(phone, "steps", 300, midnight + 9 * HOUR, midnight + 9 * HOUR + QUARTER)
    assert by_source(series("steps", start_at=midnight, end_at=midnight + DAY).lines) == {(ring.pk,): [7_000]}


def test_days_are_the_patients_not_the_servers() -> None:
    watch = source("watch")
    store(watch, "steps", 10, datetime(2026, 11, 13, 18, 30, tzinfo=UTC), datetime(2026, 11, 13, 18, 45, tzinfo=UTC))
    (line,) = series("steps", zone=ZoneInfo("Asia/Kathmandu")).lines
    assert line.start == [datetime(2026, 11, 13, 18, 15, tzinfo=UTC).timestamp()]


def test_the_preferred_device_that_has_stages_draws_the_night() -> None:
    ring, band = source("ring"), source("band")
    evening = NOON - 14 * HOUR
    store_night(ring, evening, 2, 3, 2, 4)
    store_night(band, evening + 5 * MINUTE, 2, 2, 3, 4)
    assert by_source(series("sleep_stage").lines) == {(ring.pk,): [2, 3, 2, 4]}


def test_a_device_that_only_knows_asleep_gives_way_to_one_with_stages() -> None:
    ring, phone = source("ring"), source("phone")
    evening = NOON - 14 * HOUR
    store_night(ring, evening, 6, 6)
    store_night(phone, evening, 2, 3)
    assert by_source(series("sleep_stage").lines) == {(phone.pk,): [2, 3]}


def test_the_nights_one_conflict_decides_its_stages_too() -> None:
    ring, band = source("ring"), source("band")
    evening = NOON - 14 * HOUR
    store_night(ring, evening, 2, 3)
    store_night(band, evening, 2, 4)
    dispute("sleep_duration", evening, evening + HOUR, {ring: 25_000, band: 21_000}, band)
    found = read("sleep_stage")
    assert by_source(found.series[0].lines) == {(band.pk,): [2, 4]}
    assert [conflict.winner_id for conflict in found.conflicts] == [band.pk]


def test_a_hypnogram_of_many_stages_keeps_within_its_points_and_covers_the_night() -> None:
    ring = source("ring")
    evening = NOON - 14 * HOUR
    store_night(ring, evening, *[2, 3, 4] * 40, minutes=2)
    (line,) = series("sleep_stage", points=50).lines
    assert len(line.value) <= 50
    assert (line.start[0], line.end[-1]) == (evening.timestamp(), (evening + 4 * HOUR).timestamp())


def test_every_source_comes_on_request_beside_the_settled_line() -> None:
    ring, watch = source("ring"), source("watch")
    store(ring, "heart_rate", 48, NOON)
    store(watch, "heart_rate", 61, NOON)
    found = series("heart_rate", every_source=True)
    assert by_source(found.lines) == {(watch.pk,): [61]}
    assert by_source(found.every_source or []) == {(ring.pk,): [48], (watch.pk,): [61]}
    assert series("heart_rate").every_source is None


def test_nobody_elses_samples_and_conflicts_are_read() -> None:
    ring = source("ring")
    store(ring, "heart_rate", 48, NOON, patient_id=PATIENT + 1)
    dispute("heart_rate", NOON, NOON + 5 * MINUTE, {ring: 48}, ring, patient_id=PATIENT + 1)
    found = read("heart_rate", "steps", "sleep_stage")
    assert not found.has_data
    assert found.conflicts == []


def test_the_list_of_conflicts_says_when_it_was_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MOST_CONFLICTS", 2)
    ring = source("ring")
    for place in range(3):
        dispute("heart_rate", NOON + place * HOUR, NOON + place * HOUR + MINUTE, {ring: 1}, ring)
    found = read("heart_rate")
    assert (len(found.conflicts), found.more_conflicts) == (2, True)


def test_the_last_sample_is_found_within_ninety_days_or_ever() -> None:
    ring = source("ring")
    old, recent = datetime(2020, 5, 1, tzinfo=UTC), datetime.now(UTC) - HOUR
    store(ring, "heart_rate", 48, old)
    store(ring, "heart_rate", 48, recent, patient_id=PATIENT + 1)
    metrics = [BY_NAME["heart_rate"], BY_NAME["steps"]]
    assert timeline.last_sample_at([PATIENT, PATIENT + 1], metrics) == {PATIENT + 1: recent}
    assert timeline.last_sample_ever(PATIENT, metrics) == old


def test_a_daily_value_of_today_does_not_make_the_last_sample_lie_in_the_future() -> None:
    ring = source("ring")
    now = datetime.now(UTC)
    store(ring, "steps", 48, now - HOUR, now + 10 * HOUR)
    assert timeline.last_sample_at([PATIENT], [BY_NAME["steps"]])[PATIENT] - now < MINUTE


@pytest.mark.parametrize("metric", [metric.name for metric in METRICS])
def test_every_metric_of_the_catalogue_can_be_asked_for(metric: str) -> None:
    ring = source("ring")
    store(ring, metric, 3, NOON, NOON + HOUR)
    (line,) = series(metric, every_source=True).lines
    assert line.value == [pytest.approx(3)]


def test_every_statement_over_the_samples_walks_the_key() -> None:
    names = ("heart_rate", "hrv_rmssd", "oura_sleep_score", "sleep_stage", "steps")
    with CaptureQueriesContext(
        connection,
    ) as asked:
        read(*names)
        timeline.last_sample_at([PATIENT], [BY_NAME["steps"]])
    statements = [query["sql"] for query in asked.captured_queries if "biometrics_sample" in query["sql"]]
    assert len(statements) == len(names) + 1
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")  # the tables of a test are too small to be worth an index
        for statement in statements:
            cursor.execute(f"EXPLAIN {statement}")
            plan = "\n".join(line for (line,) in cursor.fetchall())
            assert "Seq Scan on biometrics_sample" not in plan
            assert "Index Cond: ((patient_id = " in plan
        cursor.execute("RESET enable_seqscan")


def rounded(values: list[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 9) for value in values]


@pytest.mark.parametrize("points", [10, 60, 1_000])
@pytest.mark.parametrize("every_source", [False, True])
@pytest.mark.parametrize("metric", ["heart_rate", "blood_glucose"])
def test_a_wide_window_is_settled_and_reduced_as_a_narrow_one_is(
    metric: str, every_source: bool, points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring, watch, phone = source("ring"), source("watch"), source("phone")
    for place in range(150):
        store(watch, metric, 60 + place % 7, NOON + place * timedelta(seconds=97))
    for place in range(40):
        at = NOON - HOUR + place * 9 * MINUTE
        store(ring, metric, 80 + place % 5, at, at + 3 * MINUTE, record=f"ring {place}")
    store(ring, metric, 99, NOON - HOUR, NOON - HOUR + 3 * MINUTE, record="newer", revised_at=NOON + DAY)
    store(phone, metric, 70, NOON - 2 * HOUR, NOON + 20 * MINUTE)
    for place in (0, 3, 4):
        at = NOON + place * 5 * MINUTE
        dispute(metric, at, at + 5 * MINUTE, {ring: 80, watch: 60}, ring)
    found = {}
    for wide in (timedelta(0), 1_000 * DAY):
        monkeypatch.setattr(timeline, "WIDE", wide)
        around = {"start_at": NOON - HOUR + 61 * timedelta(seconds=1), "end_at": NOON + 5 * HOUR}
        drawn = series(metric, points=points, every_source=every_source, **around)
        found[wide] = [
            (line.sources, line.start, line.end, rounded(line.value), line.low, line.high)
            for line in drawn.lines + (drawn.every_source or [])
        ]
    assert found[timedelta(0)] == found[1_000 * DAY]
    assert len(found[timedelta(0)]) >= 2


ZONES = ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Auckland", "Africa/Cairo"]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("year_half", [(2026, 3), (2026, 4), (2026, 9), (2026, 10), (2026, 11)])
def test_every_day_of_a_month_is_the_patients_own_whatever_the_clocks_do(zone: str, year_half: tuple[int, int]) -> None:
    year, month = year_half
    watch = source("watch")
    home = ZoneInfo(zone)
    days = [datetime(year, month, day, tzinfo=home).astimezone(UTC) for day in range(1, 29)]
    days.append(datetime(year, month, 29, tzinfo=home).astimezone(UTC))
    for start_at, end_at in itertools.pairwise(days):
        store(watch, "steps", 1, start_at, start_at + QUARTER)
        store(watch, "steps", 2, end_at - QUARTER, end_at)
    (line,) = series("steps", start_at=days[0], end_at=days[-1], zone=home).lines
    assert line.start == [day.timestamp() for day in days[:-1]]
    assert line.end == [day.timestamp() for day in days[1:]]
    assert line.value == [pytest.approx(3)] * 28


@pytest.mark.parametrize(
    ("day", "hours"), [((2026, 4, 5), 24.5), ((2026, 10, 4), 23.5)], ids=["clocks back", "clocks on"]
)
def test_a_day_whose_clocks_move_by_half_an_hour_keeps_its_total_and_its_score(
    day: tuple[int, int, int], hours: float
) -> None:
    home = ZoneInfo("Australia/Lord_Howe")
    start_at = datetime(*day, tzinfo=home).astimezone(UTC)
    end_at = start_at + timedelta(hours=hours)
    for metric in ("steps", "oura_activity_score"):
        store(source("ring"), metric, 70, start_at, end_at)
        (line,) = series(metric, start_at=start_at, end_at=end_at, zone=home).lines
        assert (line.start, line.end, line.value) == ([start_at.timestamp()], [end_at.timestamp()], [70])


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"])
@pytest.mark.parametrize("length", [MINUTE, 5 * HOUR, DAY, 14 * DAY, 366 * DAY])
def test_an_aligned_window_holds_the_one_asked_for_and_not_one_more_day(zone: str, length: timedelta) -> None:
    home = ZoneInfo(zone)
    for moved in (timedelta(0), timedelta(seconds=1), timedelta(hours=7, seconds=13), timedelta(minutes=59)):
        start_at = datetime(2026, 4, 4, tzinfo=home).astimezone(UTC) + moved
        asked = Window(PATIENT, start_at, start_at + length, home)
        wider = asked.aligned()
        assert wider.start_at <= asked.start_at
        assert asked.end_at <= wider.end_at
        assert wider.end_at - wider.start_at - length < max(length / 100, 2 * MINUTE)
        assert wider.whole_days() == asked.whole_days()
        assert wider.aligned() == wider


def test_windows_that_end_a_few_seconds_apart_are_mostly_one() -> None:
    start_at = NOON + timedelta(seconds=1)
    asked = [Window(PATIENT, start_at + n * MINUTE, start_at + 14 * DAY + n * MINUTE, BERLIN) for n in range(14)]
    assert len({window.aligned() for window in asked}) == 1


@pytest.mark.parametrize("points", [2, 10])
def test_a_day_of_a_value_every_five_seconds_keeps_within_few_points_and_loses_no_peak(points: int) -> None:
    ring = source("ring")
    about = {"patient_id": PATIENT, "metric": 1, "source": ring, "revised_at": NOON, "delivery_id": 1}
    times = [NOON - DAY + place * timedelta(seconds=5) for place in range(17_280)]
    Sample.objects.bulk_create(
        Sample(start_at=at, end_at=at, record=f"{at:%s}", value=200 if place == 9_000 else 60, **about)
        for place, at in enumerate(times)
    )
    (line,) = series("heart_rate", start_at=NOON - DAY, end_at=NOON, points=points).lines
    assert 0 < len(line.value) <= points
    assert max(value for value in line.high if value is not None) == 200
    assert min(value for value in line.low if value is not None) == 60


def test_a_window_in_the_future_and_one_without_data_are_empty() -> None:
    store(source("ring"), "heart_rate", 50, NOON)
    for start_at in (NOON + DAY, datetime(2099, 1, 1, tzinfo=UTC)):
        found = read("heart_rate", "steps", "sleep_stage", "hrv_rmssd", start_at=start_at, end_at=start_at + DAY)
        assert (found.has_data, found.conflicts, found.sources) == (False, [], {})


def test_an_interval_that_reaches_over_both_ends_of_the_window_is_shown_whole() -> None:
    for metric in ("hrv_rmssd", "spo2", "sleep_stage"):
        store(source("ring"), metric, 3, NOON - 4 * HOUR, NOON + 4 * HOUR)
        for length in (MINUTE, 3 * HOUR):
            (line,) = series(metric, start_at=NOON - HOUR, end_at=NOON - HOUR + length).lines
            assert (line.start, line.end) == (
                [(NOON - 4 * HOUR).timestamp()],
                [(NOON + 4 * HOUR).timestamp()],
            )


def test_of_a_count_that_reaches_over_the_windows_days_only_their_part_counts() -> None:
    midnight = datetime(2026, 11, 13, tzinfo=BERLIN)
    store(source("watch"), "steps", 300, midnight - HOUR, midnight + 2 * HOUR)
    (line,) = series("steps", start_at=midnight, end_at=midnight + DAY).lines
    assert line.value == [pytest.approx(200)]


def test_a_zero_stays_zero_where_a_line_is_reduced_and_a_gap_stays_a_gap() -> None:
    meter = source("ring")
    for place in range(100):
        store(meter, "spo2", 0, NOON + place * MINUTE)
        store(meter, "spo2", 0, NOON + 12 * HOUR + place * MINUTE)
    (line,) = series("spo2", start_at=NOON, end_at=NOON + DAY, points=100).lines
    assert set(line.value) == {0, None}
    assert line.value.count(None) == 1
