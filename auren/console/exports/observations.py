"""Samples as FHIR R4 Observations (https://hl7.org/fhir/R4/observation.html): plain dicts, ready for JSON.

Ids are made from what a sample is known by, so exporting again gives the same ones. docs/exports.md has the mapping.
"""

from datetime import datetime, timedelta, timezone, tzinfo
from functools import cache
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from auren.biometrics.metrics import BY_NAME, STAGE_LABELS, Metric
from auren.console.exports.nights import DURATION, Night
from auren.console.exports.reading import Entry, Selection

Resource = dict[str, Any]

LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
METRIC, STAGE, STANDING = "urn:auren:metric", "urn:auren:sleep-stage", "urn:auren:standing"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
PROFILES = "http://hl7.org/fhir/StructureDefinition/"
NAMESPACE = uuid5(NAMESPACE_URL, "urn:auren:sample")

SYSTOLIC, DIASTOLIC = BY_NAME["blood_pressure_systolic"], BY_NAME["blood_pressure_diastolic"]
# R4's vital signs (https://hl7.org/fhir/R4/observation-vitalsigns.html): the profile each metric keeps to. Height is
# one too, but its profile wants centimetres, and a pressure without its other half is no panel: category only.
VITAL_SIGNS = {
    "heart_rate": "heartrate",
    "respiratory_rate": "resprate",
    "spo2": "oxygensat",
    "body_temperature": "bodytemp",
    "body_mass": "bodyweight",
    "height": None,
    "blood_pressure_systolic": None,
    "blood_pressure_diastolic": None,
}
LABORATORY = {"blood_glucose"}
UNCATEGORISED = {
    "resting_heart_rate",
    "hrv_rmssd",
    "hrv_sdnn",
    "skin_temperature",
    "skin_temperature_deviation",
    "body_fat",
}
# The oxygen saturation profile wants this code beside the pulse oximeter's own.
MORE_CODES = {"spo2": "2708-6"}
OF_VENDOR = {"oura": "Oura", "whoop": "WHOOP"}


class Observations:
    """Makes the Observations of one selection."""

    def __init__(self, of: Selection) -> None:
        self.subject = {"type": "Patient", "identifier": {"system": "urn:auren:patient", "value": of.external_id}}
        self.zone = of.zone
        self.patient = of.external_id

    def device(self, source_id: int, name: str, kind: str, vendor: str) -> Resource:
        resource: Resource = {
            "resourceType": "Device",
            "id": self.device_id(source_id),
            "identifier": [{"system": "urn:auren:source", "value": str(source_id)}],
        }
        if vendor in OF_VENDOR:
            resource["manufacturer"] = OF_VENDOR[vendor]
        if name.strip():
            resource["deviceName"] = [{"name": name, "type": "user-friendly-name"}]
        if kind:
            resource["type"] = {"text": kind}
        return resource | {"patient": self.subject}

    def single(self, metric: Metric, entry: Entry, unfinished: set[int]) -> Resource:
        row = entry.row
        about = (metric.name, str(row.source_id), row.start_at.isoformat(), row.record)
        resource = self._common(metric.name, [entry], unfinished, about)
        resource |= {"code": code_of(metric), **self._effective(entry, row.start_at, row.end_at)}
        return resource | {"valueQuantity": quantity(metric, row.value)}

    def pressure(self, systolic: Entry, diastolic: Entry, unfinished: set[int]) -> Resource:
        """Both of one moment and device, as R4's blood pressure profile has it."""
        row = systolic.row
        about = ("blood_pressure", str(row.source_id), row.start_at.isoformat(), row.record)
        resource = self._common("blood_pressure", [systolic, diastolic], unfinished, about)
        panel = {"coding": [{"system": LOINC, "code": "85354-9"}, _ours("blood_pressure", "Blood pressure")]}
        resource |= {"code": panel, **self._effective(systolic, row.start_at, row.end_at)}
        parts = ((SYSTOLIC, systolic), (DIASTOLIC, diastolic))
        return resource | {"component": [component(metric, entry.row.value) for metric, entry in parts]}

    def night(self, night: Night, unfinished: set[int]) -> Resource:
        """Totals as quantities and each stage as the period it lasted: nothing is resampled, gaps stay gaps."""
        leading = night.leading.row
        known_by = leading.record if night.totals else night.start_at.isoformat()
        resource = self._common("sleep_night", night.entries, unfinished, ("night", str(night.source_id), known_by))
        timed = {"code": night_code(night), **self._effective(night.leading, night.start_at, night.end_at)}
        totals = [component(metric, entry.row.value) for metric, entry in night.totals]
        return resource | timed | {"component": totals + [self._stage(entry) for entry in night.stages]}

    def _stage(self, entry: Entry) -> Resource:
        label = STAGE_LABELS.get(int(entry.row.value), "unknown")
        coding = {"system": STAGE, "code": label.lower().replace(" ", "-"), "display": label}
        period = {"start": self._local(entry, entry.row.start_at), "end": self._local(entry, entry.row.end_at)}
        return {"code": {"coding": [coding], "text": f"Sleep stage: {label}"}, "valuePeriod": period}

    def _common(self, name: str, entries: list[Entry], unfinished: set[int], about: tuple[str, ...]) -> Resource:
        rows = [entry.row for entry in entries]
        resource: Resource = {
            "resourceType": "Observation",
            "id": self._id(*about),
            "meta": _meta(name, entries),
            "identifier": [{"system": "urn:auren:record", "value": rows[0].record}],
            "status": status_of(entries, unfinished),
            **_category(name),
            "subject": self.subject,
            "device": {"reference": f"urn:uuid:{self.device_id(rows[0].source_id)}"},
            "issued": max(row.revised_at for row in rows).isoformat(),
        }
        if not rows[0].record.strip():
            del resource["identifier"]
        return resource

    def _effective(self, entry: Entry, start_at: datetime, end_at: datetime) -> Resource:
        if start_at == end_at:
            return {"effectiveDateTime": self._local(entry, start_at)}
        return {"effectivePeriod": {"start": self._local(entry, start_at), "end": self._local(entry, end_at)}}

    def _local(self, entry: Entry, at: datetime) -> str:
        minutes = entry.row.utc_offset_minutes
        return at.astimezone(self.zone if minutes is None else _offset(minutes)).isoformat()

    def _id(self, *about: str) -> str:
        return str(uuid5(NAMESPACE, "\0".join((self.patient, *about))))

    def device_id(self, source_id: int) -> str:
        return self._id("device", str(source_id))


def status_of(entries: list[Entry], unfinished: set[int]) -> str:
    """Preliminary while the vendor has not finished the document, or a person has not decided a conflict."""
    open_ = any(entry.conflict == "open" or entry.row.delivery_id in unfinished for entry in entries)
    return "preliminary" if open_ else "final"


def quantity(metric: Metric, value: float) -> Resource:
    whole = value.is_integer() and abs(value) < 1e15  # 61 and 61.0 are two decimals in FHIR: the second claims more
    return {"value": int(value) if whole else value, "unit": metric.unit, "system": UCUM, "code": metric.unit}


def component(metric: Metric, value: float) -> Resource:
    return {"code": code_of(metric), "valueQuantity": quantity(metric, value)}


@cache
def code_of(metric: Metric) -> Resource:
    """LOINC first where there is a code, then our own."""
    codes = [metric.loinc] if metric.loinc else []
    more = [MORE_CODES[metric.name]] if metric.name in MORE_CODES else []
    standard = [{"system": LOINC, "code": code} for code in codes]
    others = [{"system": LOINC, "code": code} for code in more]
    return {"coding": [*standard, _ours(metric.name, metric.label), *others], "text": metric.label}


def night_code(night: Night) -> Resource:
    """LOINC's code for sleep duration where the duration is among the components; stages alone have none."""
    lasted = any(metric is DURATION for metric, _ in night.totals)
    standard = [{"system": LOINC, "code": DURATION.loinc}] if lasted else []
    return {"coding": [*standard, _ours("sleep_night", "One night's sleep")], "text": "Sleep"}


def _ours(code: str, display: str) -> Resource:
    return {"system": METRIC, "code": code, "display": display}


def _meta(name: str, entries: list[Entry]) -> Resource:
    """Where it comes from, the profile it keeps to, how the timeline treats it."""
    meta: Resource = {"source": f"urn:auren:delivery:{entries[0].row.delivery_id}"}
    profile = "bp" if name == "blood_pressure" else VITAL_SIGNS.get(name)
    if profile:
        meta["profile"] = [PROFILES + profile]
    settled = next((word for word in ("no", "partly") if any(entry.settled == word for entry in entries)), "yes")
    conflicts = {entry.conflict for entry in entries} - {""}
    meta["tag"] = [_tag(f"settled-{settled}"), *(_tag(f"conflict-{state}") for state in sorted(conflicts))]
    return meta


@cache
def _tag(code: str) -> Resource:
    return {"system": STANDING, "code": code}


@cache
def _category(name: str) -> Resource:
    if name in VITAL_SIGNS or name == "blood_pressure":
        code = "vital-signs"
    elif name in LABORATORY:
        code = "laboratory"
    elif name in UNCATEGORISED:
        return {}
    else:
        code = "activity"  # "bodily activity that … maintains physical fitness and overall health … e.g. sleep data"
    return {"category": [{"coding": [{"system": CATEGORY, "code": code}]}]}


@cache
def _offset(minutes: int) -> tzinfo:
    return timezone(timedelta(minutes=minutes))


def bundle_id(of: Selection) -> UUID:
    names = ",".join(metric.name for metric in of.metrics)
    about = (of.external_id, of.start_at.isoformat(), of.end_at.isoformat(), names, str(of.every_source))
    return uuid5(NAMESPACE, "\0".join(("bundle", *about)))
