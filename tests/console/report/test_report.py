"""What a report says, out of stored samples."""

from dataclasses import replace
from datetime import date

import pytest

from auren.biometrics.models import Source
from auren.console.report import libraries
from auren.console.report.assembly import span_of
from auren.console.report.rendering import Unmakeable, rendered
from devices.models import Link, Patient
from tests.biometrics.stored import dispute, store
from tests.console.report.reported import DAY, FIRST, HOUR, a_night, at, figures, of, page, read
from webhooks.models import Delivery


def test_a_figure_says_how_many_days_it_rests_on_and_how_it_changed(week: Patient) -> None:
    pulse = figures(of(week))["resting_heart_rate"]
    assert (pulse.sufficiency, pulse.average, pulse.extremes, pulse.changed) == (
        "9 of 10",
        "51 bpm",
        "51 bpm",
        "+1 bpm",
    )


def test_of_too_few_days_there_is_no_average_anywhere(week: Patient) -> None:
    shown = page(of(week, days=30))
    assert "not enough data: 9 of 30 days" in shown
    assert figures(of(week, days=30))["resting_heart_rate"].mean is None


def test_a_night_is_of_the_day_it_ends_on_and_naps_add_to_it(patient: Patient, ring: Source) -> None:
    a_night(ring, patient, FIRST, sleep_duration=25_200, sleep_efficiency=90)
    for name, value in (("sleep_duration", 1_800), ("sleep_efficiency", 50)):
        store(ring, name, value, at(FIRST, 14), at(FIRST, 15), patient_id=patient.pk, record="nap")
    found = figures(of(patient))
    assert found["sleep_duration"].values == {FIRST: 27_000}
    assert found["sleep_efficiency"].values == {FIRST: 90}


def test_a_day_of_25_hours_is_one_day(patient: Patient, ring: Source, watch: Source) -> None:
    autumn = date(2026, 10, 25)
    store(ring, "oura_sleep_score", 80, at(autumn), at(autumn, 25), patient_id=patient.pk)
    store(watch, "steps", 100, at(autumn, 24), at(autumn, 24.25), patient_id=patient.pk)
    found = figures(of(patient, autumn, days=1))
    assert found["oura_sleep_score"].values == {autumn: 80}
    assert found["steps"].values == {autumn: 100}
    assert found["steps"].asked == 1


def test_many_values_a_day_are_their_mean_and_zero_counts(patient: Patient, ring: Source, watch: Source) -> None:
    for hour, value in ((1, 95), (9, 97)):
        store(watch, "spo2", value, at(FIRST, hour), patient_id=patient.pk)
    store(watch, "steps", 0, at(FIRST, 9), at(FIRST, 9.25), patient_id=patient.pk)
    found = figures(of(patient))
    assert found["spo2"].values == {FIRST: 96}
    assert found["steps"].values == {FIRST: 0}


def test_stages_alone_make_a_nights_totals(patient: Patient, watch: Source) -> None:
    for hour, stage in ((-1, 2), (1, 3), (3, 4), (4, 1), (4.5, 5)):
        store(watch, "sleep_stage", stage, at(FIRST, hour), at(FIRST, hour + 0.5), patient_id=patient.pk)
    found = figures(of(patient))
    assert found["sleep_duration"].values == {FIRST: 3_600}  # what lies before a pause of an hour ended the day before
    assert found["sleep_deep"].values == {FIRST: 1_800}


def test_the_settled_device_counts_and_another_does_not(patient: Patient, ring: Source, watch: Source) -> None:
    for by, value in ((ring, 50.0), (watch, 70.0)):
        a_night(by, patient, FIRST, resting_heart_rate=value)
    assert figures(of(patient))["resting_heart_rate"].values == {FIRST: 50}


def test_conflicts_are_counted_by_who_won_and_open_ones_come_first(
    patient: Patient, ring: Source, watch: Source
) -> None:
    for hour, state, rule in ((1, "settled", "metric_order"), (2, "settled", "metric_order"), (3, "open", "recency")):
        said = {ring: 50.0, watch: 90.0 - 10 * hour}
        start_at = at(FIRST, hour)
        dispute(
            "heart_rate", start_at, start_at + HOUR / 12, said, watch, patient_id=patient.pk, rule=rule, state=state
        )
    content = read(of(patient)).content()
    [tally] = content.conflicts
    assert (tally.count, tally.devices) == (3, "Oura ring, Apple Watch")
    assert tally.settled == [
        "2 by the metric's order of devices: Apple Watch",
        "1 open, waits for a person: Apple Watch",
    ]
    assert [one.said for one in content.notable][-1] == "Oura ring 50 bpm, Apple Watch 60 bpm"


def test_devices_say_when_they_first_and_last_sent(week: Patient) -> None:
    [device] = read(of(week)).content().devices
    assert (device.name, device.vendor, device.link) == ("Oura ring", "Oura", "active")
    assert device.sent is not None
    assert (device.sent.samples, device.sent.first_at) == (16, at(FIRST + DAY, -1))


def test_days_without_any_data_are_listed_with_why(week: Patient, link: Link) -> None:
    Link.objects.update(status="expired", status_since=at(FIRST + 9 * DAY), connected_at=at(FIRST - 60 * DAY))
    [silence] = read(of(week, days=12)).content().silences
    assert (silence.first, silence.last) == (FIRST + 9 * DAY, FIRST + 11 * DAY)
    assert silence.why == "The link to Oura expired 10 Nov 2026, 00:00: the patient must connect it again."


def test_documents_the_vendor_has_not_finished_are_told(week: Patient) -> None:
    who = {"vendor": "whoop", "dedup_key": "a", "event_type": "cycle", "vendor_user_id": "1", "patient_id": week.pk}
    Delivery.objects.create(**who, state="retrying", planned_wait=True)
    assert "1 document of the vendors is not finished yet" in page(of(week))


def test_a_patient_without_any_data_has_a_report_that_says_so(patient: Patient) -> None:
    shown = page(of(patient))
    assert "There are no data of these days." in shown
    assert "<svg" not in shown


def test_names_are_text_and_never_markup(patient: Patient) -> None:
    evil = '<script>alert(1)</script><img src="http://127.0.0.1/x">\u202e\x07'
    shown = page(replace(of(patient), name=evil, external_id=evil, asked_by=evil))
    assert "<script" not in shown
    assert "<img" not in shown
    assert not set(shown) & {"\u202e", "\x07"}


def test_days_to_come_were_never_asked_for(patient: Patient) -> None:
    span = span_of(of(patient, days=3))
    assert (span.first, span.last, span.days) == (FIRST, FIRST + 2 * DAY, 3)
    assert [day.day for day in span.each()] == [1, 2, 3]
    assert span.before().last == FIRST - DAY


def test_without_a_library_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(libraries.LIBRARIES, "libnowhere.so.0", "libpango-1.0-0")
    assert "the system lacks libpango-1.0-0." in libraries.lacking()
    with pytest.raises(Unmakeable, match=r"apt-get install libpango-1\.0-0"):
        next(rendered("<p>"))
