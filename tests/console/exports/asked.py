"""Selections and files, as the tests ask for them."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from fhir.resources.R4B.bundle import Bundle

from auren.console.exports import fhir, spreadsheet
from auren.console.exports.reading import Selection, chosen_metrics
from devices.models import Patient

NOON = datetime(2026, 11, 13, 12, tzinfo=UTC)
Resource = dict[str, Any]


def selection(
    person: Patient, *names: str, days: float = 1, start_at: datetime = NOON, every_source: bool = True
) -> Selection:
    return Selection(
        person.pk,
        person.external_id,
        ZoneInfo(person.timezone),
        start_at,
        start_at + timedelta(days=days),
        chosen_metrics(list(names)),
        every_source,
    )


def csv_text(of: Selection) -> str:
    return b"".join(piece.content for piece in spreadsheet.pieces(of)).decode()


def csv_rows(of: Selection) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text(of), newline="")))


def bundle(of: Selection) -> Resource:
    """The Bundle, which `fhir.resources` finds nothing wrong with."""
    content = b"".join(piece.content for piece in fhir.pieces(of))
    Bundle.model_validate_json(content)
    found: Resource = json.loads(content)
    return found


def resources(of: Selection, kind: str = "Observation") -> list[Resource]:
    entries = [entry["resource"] for entry in bundle(of).get("entry", [])]
    return [resource for resource in entries if resource["resourceType"] == kind]
