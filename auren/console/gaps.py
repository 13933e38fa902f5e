"""Why a line has a gap, decided from what is stored: nobody is asked, and what is not known is called unknown.

What is looked at, in this order: the link of the device that was silent (removed, disconnected, expired, paused, not
connected yet), other data of that time from the same device (it was alive, and this was not measured), what came
later from it and from its link (not synced yet, or gone).
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from django.db.utils import DEFAULT_DB_ALIAS

from auren.biometrics import reads, timeline
from auren.biometrics.metrics import BY_NAME, BY_NUMBER
from auren.biometrics.models import Source
from auren.biometrics.timeline import Series, Timeline, Window
from devices.models import Link

Why = Literal[
    "not_worn", "not_synced", "not_connected", "expired", "disconnected", "paused", "removed", "device_gone", "unknown"
]
WHYS: tuple[Why, ...] = Why.__args__  # type: ignore[attr-defined]

DAY, HOUR = 86_400.0, 3_600.0
MISSING_DAY = 20 * HOUR  # of bars: a local day is 23 hours or more
MISSING_NIGHT = 36 * HOUR
MOST_OF_SERIES, MOST = 30, 120
LOOK_BEFORE = timedelta(days=90)
NEWEST_ROWS = 300  # of each metric, among which a device's newest is looked for
GONE_AFTER = 3 * DAY
# By these a device shows that it was alive. Dense ones are looked through only for short gaps.
ALIVE = tuple(
    BY_NAME[name].number
    for name in (
        *("steps", "active_energy", "total_energy", "sleep_duration", "sleep_stage", "resting_heart_rate"),
        *("hrv_rmssd", "hrv_sdnn", "spo2", "respiratory_rate", "skin_temperature", "day_strain", "oura_activity_score"),
        "heart_rate",
    )
)
# Measured now and then: that there is nothing for days says nothing.
OCCASIONAL = frozenset(
    BY_NAME[name].number
    for name in (
        *("body_temperature", "vo2_max", "body_mass", "body_fat", "height", "blood_glucose"),
        *("blood_pressure_systolic", "blood_pressure_diastolic", "workout_duration", "workout_strain"),
    )
)
DENSE = (BY_NAME["heart_rate"].number,)
DENSE_FOR = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Gap:
    """Without data from `start` to `end` (Unix seconds) in all lines of a series; `text` is a sentence."""

    start: float
    end: float
    why: Why
    text: str


@dataclass(frozen=True, slots=True)
class Silence:
    """A gap before it is explained: the device whose data end there, and the one whose data follow; None at an edge."""

    metric: int
    start: float
    end: float
    before: int | None
    after: int | None

    @property
    def device(self) -> int | None:
        return self.after if self.before is None else self.before

    @property
    def trails(self) -> bool:
        """Whether the device says nothing after it in the window."""
        return self.after != self.device


def stand(patient_id: int) -> str:
    """What gaps are explained by beside the timeline, as a text that is another one when that changes."""
    links = Link.objects.filter(patient_id=patient_id).order_by("pk")
    facts = links.values_list("pk", "status", "status_since", "connected_at", "paused_at", "last_delivery_at")
    return f"{_CODE} {list(facts)}"


def of(found: Timeline, now: datetime | None = None) -> dict[int, list[Gap]]:
    """By number of each metric that is measured all the time, in order of time.

    To be called where `found` was read: it reads more of the same snapshot.
    """
    until = min(found.window.end_at, now or datetime.now(UTC)).timestamp() // 60 * 60
    regular = [series for series in found.series if series.metric.number not in OCCASIONAL]
    silences = [one for series in regular for one in silent(series, found.window, until)]
    silences += _never_begun(regular, found.window, until)
    longest = sorted(silences, key=lambda one: one.start - one.end)[:MOST]
    gaps: dict[int, list[Gap]] = {series.metric.number: [] for series in regular}
    for silence, gap in explained(found.window, sorted(longest, key=lambda one: one.start)):
        gaps[silence.metric].append(gap)
    return gaps


def silent(series: Series, window: Window, until: float) -> list[Silence]:
    """Where no settled line of the series has a value for longer than a line is drawn through."""
    spans = sorted(_spans(series))
    if not spans:
        return []
    longest, edge = _longest(series, window)
    start, number = window.start_at.timestamp(), series.metric.number
    found = [Silence(number, start, spans[0][0], None, spans[0][2])] if spans[0][0] - start > edge else []
    begun, ended, device = spans[0]
    for span in spans[1:]:
        if span[0] - begun > longest and span[0] > ended:
            found.append(Silence(number, ended, span[0], device, span[2]))
        begun = span[0]
        if span[1] >= ended:
            ended, device = span[1], span[2]
    if until - ended > edge:
        found.append(Silence(number, ended, until, device, None))
    return sorted(found, key=lambda one: one.start - one.end)[:MOST_OF_SERIES]


def explained(window: Window, silences: Sequence[Silence]) -> Iterator[tuple[Silence, Gap]]:
    """Each with why. Two statements for all of them, and two for devices and links."""
    if not silences:
        return
    known = Known.of(window, silences)
    for place, silence in enumerate(silences):
        yield silence, known.explain(place, silence)


def _spans(series: Series) -> Iterator[tuple[float, float, int]]:
    for line in series.lines:
        device = line.sources[0]
        for start, end, value in zip(line.start, line.end, line.value, strict=True):
            if value is not None:
                yield start, max(start, end), device


def _longest(series: Series, window: Window) -> tuple[float, float]:
    """Seconds beyond which there is a gap: from one value's start to the next's, and at the window's edges."""
    if series.shape == "bars":
        return DAY + HOUR * 2, MISSING_DAY
    if series.shape == "stages" or series.metric.bucket == HOUR:  # of an hour: by many devices at night alone
        return MISSING_NIGHT, MISSING_NIGHT
    silence = timeline.longest_silence(window, series.metric)
    return silence, silence


def _never_begun(regular: Sequence[Series], window: Window, until: float) -> list[Silence]:
    """Metrics without a value in the window that the patient had before."""
    empty = [series.metric.number for series in regular if not series.lines]
    start = window.start_at.timestamp()
    if not empty or until <= start:
        return []
    asked = {"patient": window.patient_id, "metrics": empty, "start": window.start_at}
    rows = reads.fetch(_BEFORE, asked | {"since": window.start_at - LOOK_BEFORE})
    return [Silence(metric, start, until, device, None) for metric, device in rows]


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored about the devices of some silences, each thing read once."""

    zone: ZoneInfo
    devices: dict[int, Source]
    links: dict[int, Link]
    alive: dict[int, int]  # a metric by the silence's place
    newest: dict[int, float]  # when a device's newest data end

    @classmethod
    def of(cls, window: Window, silences: Sequence[Silence]) -> "Known":
        alias = reads.database()
        links = Link.objects.using(DEFAULT_DB_ALIAS).filter(patient_id=window.patient_id)
        by_number = {link.pk: link for link in links}
        devices = Source.objects.using(alias).filter(link_id__in=by_number)
        silent = {one.device for one in silences} - {None}
        there = {one.pk: one for one in devices} | Source.objects.using(alias).in_bulk(silent)
        return cls(window.zone, there, by_number, _alive(window, silences), _newest(window, silences))

    def explain(self, place: int, silence: Silence) -> Gap:
        source = self.devices.get(silence.device or 0)
        why, text = self._why(place, silence, source) if source else ("unknown", "Why is not known.")
        return Gap(silence.start, silence.end, why, text)

    def _why(self, place: int, silence: Silence, source: Source) -> tuple[Why, str]:
        link = self.links.get(source.link_id)
        if link is None:
            return "removed", f"The link of {source.name} was removed."
        found = self._by_link(silence, link)
        if found:
            return found
        if place in self.alive:
            other = BY_NUMBER[self.alive[place]].label
            return "not_worn", f"Not worn, or nothing measured: {source.name} sent other data of this time ({other})."
        return self._by_news(silence, source, link)

    def _by_link(self, silence: Silence, link: Link) -> tuple[Why, str] | None:
        vendor = link.get_vendor_display()
        connected_at, since = link.connected_at.timestamp(), link.status_since.timestamp()
        if link.status == "revoked" and since < silence.end:
            return "disconnected", f"{vendor} has been disconnected since {self._at(since)}."
        if link.status == "expired" and since < silence.end:
            return "expired", f"The link to {vendor} expired {self._at(since)}: the patient must connect it again."
        if link.paused_at and silence.trails and link.paused_at.timestamp() < silence.end:
            return "paused", f"{vendor} has been paused since {self._at(link.paused_at.timestamp())}."
        if silence.before is None and connected_at > silence.start:
            return "not_connected", f"{vendor} was connected {self._at(connected_at)}; no older data were fetched."
        if not silence.trails and silence.start < connected_at <= silence.end < connected_at + DAY:
            return "not_connected", f"{vendor} was not connected until {self._at(connected_at)}."
        return None

    def _by_news(self, silence: Silence, source: Source, link: Link) -> tuple[Why, str]:
        newest = self.newest.get(source.pk, silence.start)
        if not silence.trails or newest > silence.end:
            return "unknown", f"Why is not known: {source.name} has sent data since, but nothing of this time."
        if newest > silence.start:
            return "unknown", f"Why is not known: {source.name} has sent other data, up to {self._at(newest)}."
        if silence.end - silence.start > GONE_AFTER and self._others_went_on(silence, source):
            vendor = link.get_vendor_display()
            return "device_gone", f"Nothing from {source.name} any more, while {vendor} still sends of other devices."
        return "not_synced", f"Not synced: the newest data of {source.name} are of {self._at(newest)}."

    def _others_went_on(self, silence: Silence, source: Source) -> bool:
        beside = (one.pk for one in self.devices.values() if one.link_id == source.link_id and one.pk != source.pk)
        return any(self.newest.get(number, 0) > silence.start + DAY for number in beside)

    def _at(self, seconds: float) -> str:
        local = datetime.fromtimestamp(seconds, self.zone)
        return f"{local.day} {local:%b %Y, %H:%M}"


def _alive(window: Window, silences: Sequence[Silence]) -> dict[int, int]:
    """By the place of a silence, another metric of which its device has data of that time."""
    asked: dict[str, Any] = {
        "patient": window.patient_id,
        "places": list(range(len(silences))),
        "metrics": [one.metric for one in silences],
        "devices": [one.device for one in silences],
        "starts": [datetime.fromtimestamp(one.start, UTC) for one in silences],
        "ends": [datetime.fromtimestamp(one.end, UTC) for one in silences],
        "alive": list(ALIVE),
        "dense": list(DENSE),
        "dense_for": DENSE_FOR,
    }
    return dict(reads.fetch(_ALIVE, asked))


def _newest(window: Window, silences: Sequence[Silence]) -> dict[int, float]:
    trailing = [one.start for one in silences if one.trails]
    if not trailing:
        return {}
    since = datetime.fromtimestamp(min(trailing), UTC) - timedelta(days=1)
    asked = {"patient": window.patient_id, "alive": list(ALIVE), "since": since, "rows": NEWEST_ROWS}
    return {device: ended.timestamp() for device, ended in reads.fetch(_NEWEST, asked)}


_CODE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]

_BEFORE = """
    SELECT metric, source_id
    FROM unnest(%(metrics)s::smallint[]) AS metric, LATERAL (
        SELECT source_id FROM biometrics_sample s
        WHERE s.patient_id = %(patient)s AND s.metric = metric.metric
          AND s.start_at >= %(since)s AND s.start_at < %(start)s
        ORDER BY s.start_at DESC LIMIT 1
    ) newest
    """
# A total of the day says nothing about an hour of it: only data as short as the gap show that the device was alive.
_ALIVE = """
    SELECT gap.place, found.metric
    FROM unnest(%(places)s::int[], %(metrics)s::smallint[], %(devices)s::bigint[], %(starts)s::timestamptz[],
                %(ends)s::timestamptz[]) AS gap (place, metric, device, starts, ends),
    LATERAL (
        SELECT other.metric
        FROM unnest(%(alive)s::smallint[]) WITH ORDINALITY AS other (metric, rank)
        WHERE other.metric <> gap.metric
          AND (other.metric <> ALL (%(dense)s::smallint[]) OR gap.ends - gap.starts <= %(dense_for)s)
          AND EXISTS (
            SELECT FROM biometrics_sample s
            WHERE s.patient_id = %(patient)s AND s.metric = other.metric AND s.source_id = gap.device
              AND s.start_at >= gap.starts - interval '1 day' AND s.start_at < gap.ends
              AND (s.end_at > gap.starts OR s.start_at > gap.starts)
              AND s.end_at - s.start_at <= gap.ends - gap.starts + interval '1 hour'
          )
        ORDER BY other.rank LIMIT 1
    ) found
    """
# A running day's total ends at midnight, which says nothing about when it came.
_NEWEST = """
    SELECT source_id, max(end_at)
    FROM unnest(%(alive)s::smallint[]) AS metric, LATERAL (
        SELECT s.source_id, s.end_at FROM biometrics_sample s
        WHERE s.patient_id = %(patient)s AND s.metric = metric.metric AND s.start_at >= %(since)s
        ORDER BY s.start_at DESC LIMIT %(rows)s
    ) newest
    WHERE end_at <= now()
    GROUP BY 1
    """
