"""An iPhone's uploader: what a watch and the phone itself recorded, as HealthKit batches.

Each person uses one uploader for life: the plain envelope, Open Wearables' SDK, or Health Auto Export (which names no
sample and sums by the hour). Watch and phone both count steps, and overlap. Sample uuids are stable, so that a batch
sent twice holds nothing new.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal
from uuid import NAMESPACE_URL, uuid5

import httpx
import msgspec

from auren.biometrics.metrics import AWAKE, DEEP, LIGHT, REM
from auren.sandbox import observed
from auren.sandbox.physiology import EPOCH_SECONDS, QUARTER, SLOT, Person, number

Envelope = Literal["plain", "open_wearables", "health_auto_export"]
Document = dict[str, Any]

WATCH, PHONE = "Apple Watch", "iPhone"
STAGE_WORDS = {AWAKE: "awake", LIGHT: "asleepCore", DEEP: "asleepDeep", REM: "asleepREM"}
HAE_WORDS = {"awake": "Awake", "asleepCore": "Core", "asleepDeep": "Deep", "asleepREM": "REM"}
HAE_NAMES = {
    "HeartRate": ("heart_rate", "count/min"),
    "StepCount": ("step_count", "count"),
    "HeartRateVariabilitySDNN": ("heart_rate_variability", "ms"),
    "OxygenSaturation": ("blood_oxygen_saturation", "%"),
}
SDNN_PER_RMSSD = 1.15
PATIENCE_SECONDS = (0.5, 1, 2, 4, 8, 15, 30, 60, 60, 60)  # before each further try to reach the bridge


@dataclass(frozen=True, slots=True)
class Reading:
    """A sample as HealthKit holds it; `kind` is its identifier without the prefix, a sleep's `value` a word."""

    kind: str
    value: float | str
    unit: str
    start: datetime
    end: datetime
    source: str

    def uuid(self, who: Person) -> str:
        return str(
            uuid5(NAMESPACE_URL, f"healthkit/{who.user_id}/{self.kind}/{self.source}/{self.start.isoformat()}")
        ).upper()


def envelope_of(who: Person) -> Envelope:
    """Two people in ten use the SDK, two the exporter."""
    drawn = number(who.user_id, "uploader app") % 10
    return "open_wearables" if drawn in {0, 1} else "health_auto_export" if drawn in {2, 3} else "plain"


def readings(who: Person, start: datetime, end: datetime) -> list[Reading]:
    """All that watch and phone recorded and that had ended between `start` (excluded) and `end` (included)."""
    days = [who.local_day(start) + timedelta(days=index) for index in range((end - start).days + 2)]
    found = [reading for day in days for reading in _of_day(who, day)]
    return [reading for reading in found if start < reading.end <= end]


def _of_day(who: Person, day: date) -> Iterable[Reading]:
    yield from _steps(who, day, PHONE)
    if observed.wears(who, "watch", day):
        yield from _steps(who, day, WATCH)
        yield from _heart_rates(who, day)
        yield from _night(who, day)


def _heart_rates(who: Person, day: date) -> Iterable[Reading]:
    """One reading somewhere within each 5 minutes."""
    start = who.day(day).start
    roll = who.dice("reading", day)
    for index, rate in enumerate(observed.heart_rates(who, "watch", day)):
        at = start + index * SLOT + timedelta(seconds=roll.randrange(300))
        if rate is not None:
            yield Reading("HeartRate", rate, "count/min", at, at, WATCH)


def _steps(who: Person, day: date, source: str) -> Iterable[Reading]:
    """Steps by the quarter of an hour. The phone lies about for some of them; the watch is charging for some."""
    truth = who.day(day)
    roll = who.dice("carried", source, day)
    carried, share = (0.7, 0.94) if source == PHONE else (0.93, 0.99)
    for index, count in enumerate(truth.steps):
        counted = round(count * share)
        if roll.random() < carried and counted:
            at = truth.start + index * QUARTER
            yield Reading("StepCount", counted, "count", at, at + QUARTER, source)


def _night(who: Person, day: date) -> Iterable[Reading]:
    """Stages, and SDNN and oxygen saturation by the hour, of the night that ends on `day`."""
    night = observed.night(who, "watch", day)
    if night is None:
        return
    at = night.start
    for stage, count in night.phases:
        ends = at + timedelta(seconds=count * EPOCH_SECONDS)
        yield Reading("SleepAnalysis", STAGE_WORDS[stage], "", at, ends, WATCH)
        at = ends
    roll = who.dice("by the hour", day)
    for hour in range(int((night.end - night.start) / timedelta(hours=1))):
        at = night.start + timedelta(hours=hour, minutes=25)
        variability = round(night.hrv_ms * SDNN_PER_RMSSD + roll.uniform(-4, 4), 2)
        yield Reading("HeartRateVariabilitySDNN", variability, "ms", at, at + timedelta(minutes=1), WATCH)
        saturation = round(min(1.0, (night.spo2_percent + roll.uniform(-0.3, 0.3)) / 100), 4)
        yield Reading("OxygenSaturation", saturation, "%", at, at, WATCH)


def identifier(kind: str) -> str:
    family = "HKCategoryTypeIdentifier" if kind == "SleepAnalysis" else "HKQuantityTypeIdentifier"
    return family + kind


def local(at: datetime, who: Person) -> datetime:
    return at.astimezone(who.zone)


def plain(who: Person, found: list[Reading]) -> Document:
    samples = [
        {
            "uuid": reading.uuid(who),
            "type": identifier(reading.kind),
            "value": reading.value,
            "unit": reading.unit,
            "startDate": local(reading.start, who).isoformat(),
            "endDate": local(reading.end, who).isoformat(),
            "source": {"name": reading.source, "productType": product(reading.source)},
        }
        for reading in found
    ]
    return {"user_id": who.user_id, "samples": samples}


def product(source: str) -> str:
    return "Watch7,5" if source == WATCH else "iPhone15,2"


def open_wearables(who: Person, found: list[Reading], now: datetime) -> Document:
    records = [_ow_shared(who, each) | _ow_value(each) for each in found if each.kind != "SleepAnalysis"]
    sleep = [_ow_shared(who, each) | {"stage": _ow_stage(each)} for each in found if each.kind == "SleepAnalysis"]
    return {
        "provider": "apple",
        "sdkVersion": "1.0.0",
        "syncTimestamp": now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "data": {"records": records, "sleep": sleep, "workouts": []},
    }


def _ow_shared(who: Person, reading: Reading) -> Document:
    return {
        "id": reading.uuid(who),
        "startDate": reading.start.isoformat().replace("+00:00", "Z"),
        "endDate": reading.end.isoformat().replace("+00:00", "Z"),
        "zoneOffset": local(reading.start, who).isoformat()[-6:],
        "source": {
            "name": reading.source,
            "bundleIdentifier": "com.apple.health",
            "deviceManufacturer": "Apple Inc.",
            "deviceModel": "Watch" if reading.source == WATCH else "iPhone",
            "productType": product(reading.source),
        },
    }


def _ow_value(reading: Reading) -> Document:
    return {"type": identifier(reading.kind), "unit": reading.unit, "value": reading.value}


def _ow_stage(reading: Reading) -> str:
    """The SDK's own words leave `asleep` out: core, deep, rem, awake."""
    return {"asleepCore": "core", "asleepDeep": "deep", "asleepREM": "rem"}.get(str(reading.value), "awake")


def health_auto_export(who: Person, found: list[Reading]) -> Document:
    """Points without ids; steps summed by the hour over both devices, as the app does when asked to."""
    metrics = [
        {"name": name, "units": unit, "data": [_hae_point(who, each) for each in found if each.kind == kind]}
        for kind, (name, unit) in HAE_NAMES.items()
        if kind != "StepCount"
    ]
    stages = [_hae_stage(who, reading) for reading in found if reading.kind == "SleepAnalysis"]
    metrics.append({"name": "sleep_analysis", "units": "hr", "data": stages})
    metrics.append({"name": "step_count", "units": "count", "data": _hae_steps(who, found)})
    return {"data": {"metrics": metrics, "workouts": []}}


def _hae_date(at: datetime, who: Person) -> str:
    return local(at, who).strftime("%Y-%m-%d %H:%M:%S %z")


def _hae_point(who: Person, reading: Reading) -> Document:
    point: Document = {"date": _hae_date(reading.start, who), "source": reading.source}
    if reading.kind == "HeartRate":
        return point | {"Min": reading.value, "Avg": reading.value, "Max": reading.value}
    return point | {"qty": reading.value}


def _hae_stage(who: Person, reading: Reading) -> Document:
    span = {"startDate": _hae_date(reading.start, who), "endDate": _hae_date(reading.end, who)}
    return span | {"value": HAE_WORDS[str(reading.value)], "source": reading.source}


def _hae_steps(who: Person, found: list[Reading]) -> list[Document]:
    hours: dict[datetime, float] = {}
    for reading in found:
        if reading.kind == "StepCount" and reading.source == WATCH and isinstance(reading.value, int):
            hour = reading.start.replace(minute=0)
            hours[hour] = hours.get(hour, 0) + reading.value
    return [{"date": _hae_date(hour, who), "qty": count, "source": WATCH} for hour, count in sorted(hours.items())]


@dataclass(frozen=True, slots=True)
class Batch:
    """A body ready to post, and the headers that go with its envelope."""

    body: bytes
    headers: dict[str, str]


def whole_hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def batch(who: Person, start: datetime, end: datetime, key: str) -> Batch | None:
    """What was recorded after `start` and up to `end`, in the person's uploader's envelope; None where nothing was."""
    envelope = envelope_of(who)
    if envelope == "health_auto_export":
        start, end = whole_hour(start), whole_hour(end)  # a sum is sent once its hour is over
    found = readings(who, start, end)
    if not found:
        return None
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    if envelope == "plain":
        return Batch(msgspec.json.encode(plain(who, found)), headers)
    headers["X-User-Id"] = who.user_id
    if envelope == "open_wearables":
        return Batch(msgspec.json.encode(open_wearables(who, found, end)), headers)
    headers |= {"automation-name": "AUREN", "automation-aggregation": "Hours"}
    return Batch(msgspec.json.encode(health_auto_export(who, found)), headers)


async def post(client: httpx.AsyncClient, url: str, sent: Batch) -> int:
    """Post a batch until the bridge answers anything but 5xx, with patience; 0 when that ran out."""
    for wait in (*PATIENCE_SECONDS, None):
        try:
            reply = await client.post(url, content=sent.body, headers=sent.headers, timeout=30)
            if reply.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                return reply.status_code
        except httpx.HTTPError:
            pass  # not up yet, or just restarting: the phone tries again
        if wait is not None:
            await asyncio.sleep(wait)
    return 0
