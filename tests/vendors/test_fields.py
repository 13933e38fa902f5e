"""What each normaliser declares to read, held against the recorded payloads: it is so, and there is nothing else."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from auren.biometrics.metrics import BY_NAME, METRICS
from devices.vendors.healthkit import health_auto_export, vocabulary
from devices.vendors.healthkit.normalise import normalise as normalise_batch
from devices.vendors.healthkit.vocabulary import TYPES
from devices.vendors.normalised import Document, Normalised
from devices.vendors.registry import VENDORS
from tests.vendors.recorded import Payload, payloads_in

ASKED = ("oura", "whoop")  # whose documents have fields; a phone's samples have types
DECLARED = [
    (vendor, kind, field, metric)
    for vendor in ASKED
    for kind, fields in VENDORS[vendor].fields.items()
    for field, metric in fields
]
TIMES = ("2026-10-05T01:00:00Z", "2026-10-05T02:00:00Z")


def documents(vendor: str, kind: str) -> list[Document]:
    """Recorded ones, each by itself."""
    found = [each for each in payloads_in(Path(__file__).parent / vendor) if kind_of(each) == kind]
    pages = [each.document.get("data") or each.document.get("records") or [each.document] for each in found]
    return [document for page in pages for document in page]


def kind_of(payload: Payload) -> str:
    """`vO2_max` is how a path writes it, not another kind."""
    return str(payload.expected["kind"]).lower()


def yielded(vendor: str, kind: str, document: Document) -> set[str]:
    return {sample.metric for sample in VENDORS[vendor].normalise(kind, document).samples}


def parts_of(field: str) -> list[list[str]]:
    """The paths a field stands for: one, the terms of a sum, or the two ends of a time."""
    return [name.split(".") for name in field.replace("..", " + ").split(" + ")]


def with_only(document: Document, kept: str, fields: Sequence[tuple[str, str]]) -> Document:
    """The document without the other declared fields. What says when it was stays: nothing yields a sample without."""
    left = deepcopy(document)
    keep = parts_of(kept)
    for field, _ in fields:
        for path in parts_of(field):
            if path not in keep and ".." not in field:
                remove(left, path)
    return left


def remove(document: Document, path: list[str]) -> None:
    *inner, last = path
    part: Any = document
    for name in inner:
        part = part.get(name) or {}
    part.pop(last, None)


@pytest.mark.parametrize(("vendor", "kind", "field", "metric"), DECLARED, ids=str)
def test_a_declared_field_alone_yields_its_metric(vendor: str, kind: str, field: str, metric: str) -> None:
    fields = VENDORS[vendor].fields[kind]
    spans = {name for written, name in fields if ".." in written}
    of_its_parts = {name for written, name in fields if parts_of(written)[0] in parts_of(field)}
    found = [yielded(vendor, kind, with_only(document, field, fields)) for document in documents(vendor, kind)]
    assert any(metric in metrics for metrics in found)
    for metrics in found:
        assert metrics <= spans | of_its_parts


@pytest.mark.parametrize("vendor", ASKED)
def test_no_metric_comes_from_a_field_that_is_not_declared(vendor: str) -> None:
    for kind, fields in VENDORS[vendor].fields.items():
        for document in documents(vendor, kind):
            assert yielded(vendor, kind, document) <= {metric for _, metric in fields}
            assert yielded(vendor, kind, with_only(document, "", fields)) <= {name for at, name in fields if ".." in at}


@pytest.mark.parametrize("vendor", ASKED)
def test_every_kind_that_is_recorded_is_declared(vendor: str) -> None:
    recorded = {kind_of(each) for each in payloads_in(Path(__file__).parent / vendor)}
    assert recorded <= set(VENDORS[vendor].fields)


def test_every_metric_has_a_field_that_feeds_it_and_every_field_a_metric() -> None:
    fed = {metric for vendor in VENDORS.values() for fields in vendor.fields.values() for _, metric in fields}
    assert fed == set(BY_NAME)


# HealthKit


def plausible(metric: str) -> float:
    return min(max(2.0, BY_NAME[metric].low), BY_NAME[metric].high)


def named(result: Normalised) -> set[str]:
    assert not result.refused
    return {sample.metric for sample in result.samples}


@pytest.mark.parametrize(("name", "metric"), vocabulary.FIELDS)
def test_a_declared_type_of_healthkit_yields_its_metric(name: str, metric: str) -> None:
    sample = {"type": name, "value": plausible(metric), "startDate": TIMES[0], "endDate": TIMES[1]}
    assert named(normalise_batch("batch", {"samples": [sample]})) == {metric}


def test_healthkit_has_no_other_types_but_our_own_names_and_other_spellings() -> None:
    declared = {name for name, _ in vocabulary.FIELDS}
    ours = {metric.name for metric in METRICS}
    spellings = {f"HK{kind}TypeIdentifier{name}" for kind in ("Quantity", "Category") for name in declared}
    assert set(TYPES) - ours - declared - spellings == set(vocabulary.WORKOUTS) - declared


def exported(field: str) -> Document:
    """A body of Health Auto Export with one field."""
    name, _, part = field.partition(".")
    start, end = TIMES
    if name == "workouts":
        return {"data": {"workouts": [{"name": "Run", "start": start, "end": end, part: 600}]}}
    if name == "blood_pressure":
        return metric_with(name, {"systolic": None, "diastolic": None, part: 100})
    if name == "sleep_analysis":
        night = {"sleepStart": start, "sleepEnd": end, part: 0.5}
        return metric_with(name, night if part else {"value": "core", "endDate": end})
    return metric_with(name, {"qty": plausible(dict(health_auto_export.FIELDS)[field])})


def metric_with(name: str, point: Document) -> Document:
    return {"data": {"metrics": [{"name": name, "data": [{"date": TIMES[0], **point}]}]}}


@pytest.mark.parametrize(("field", "metric"), health_auto_export.FIELDS)
def test_a_declared_field_of_health_auto_export_yields_its_metric(field: str, metric: str) -> None:
    assert named(normalise_batch("batch", exported(field))) == {metric}


def test_recorded_exports_yield_nothing_that_is_not_declared() -> None:
    declared = {metric for fields in VENDORS["healthkit"].fields.values() for _, metric in fields}
    for each in payloads_in(Path(__file__).parent / "healthkit"):
        found = normalise_batch("batch", each.document).samples
        assert {sample.metric for sample in found} <= declared
