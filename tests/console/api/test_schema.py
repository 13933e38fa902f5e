"""The description of the API holds: nothing that schemathesis makes of it is answered otherwise than it says.

The examples are the same in each run. `schemathesis` sends what fits the description and what does not.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from django.conf import settings as django_settings
from django.core.wsgi import get_wsgi_application
from drf_spectacular.renderers import OpenApiYamlRenderer
from drf_spectacular.validation import validate_schema
from hypothesis import HealthCheck, settings
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.generation import GenerationMode

from auren.audit.trail import Actor
from auren.biometrics.models import Conflict, Source, Timeline
from auren.console.api.described import description
from auren.console.exports.asking import Wanted, ask
from auren.console.models import Export
from devices.models import Link, Patient
from tests.biometrics.stored import dispute, store
from tests.console.api.conftest import Caller
from webhooks.models import Attempt, Delivery

COPY = Path(__file__).parents[3] / "docs" / "api" / "openapi.yaml"
KNOWN = 7  # the number of everything there is
NOON = datetime(2026, 11, 13, 12, tzinfo=UTC)
# What no description can say: which cursors we have signed, that one time comes before another, what has changed.
BEYOND_DESCRIPTION = {f"urn:auren:problem:{slug}" for slug in ("bad-cursor", "bad-range", "changed")}


def test_the_committed_copy_is_the_description() -> None:
    made = OpenApiYamlRenderer().render(description(), renderer_context={})  # type: ignore[no-untyped-call]
    assert COPY.read_bytes() == made, "manage.py spectacular --file docs/api/openapi.yaml"


def test_the_description_is_openapi_3_1() -> None:
    assert description()["openapi"].startswith("3.1")
    validate_schema(description())  # type: ignore[no-untyped-call]


def test_every_operation_has_an_example_of_what_it_answers() -> None:
    for path, operations in description()["paths"].items():
        for operation in operations.values():
            best = operation["responses"][min(operation["responses"])]
            if "text/csv" not in best["content"]:  # a file
                assert best["content"]["application/json"]["examples"], path


@pytest.fixture
def anything(ada: Caller, monkeypatch: pytest.MonkeyPatch) -> Caller:
    """An admin, who may do everything, and something behind every address."""
    for setting in ("API_RATE_LIMIT", "API_COSTLY_RATE_LIMIT"):
        monkeypatch.setattr(django_settings, setting, "0")
    patient = Patient.objects.create(pk=KNOWN, external_id="user_7", display_name="Ada", timezone="Europe/Berlin")
    link = Link.objects.create(pk=KNOWN, patient=patient, vendor="oura", vendor_user_id="user_7")
    ring = Source.objects.create(pk=KNOWN, link_id=link.pk, name="Oura ring", kind="ring")
    band = Source.objects.create(pk=KNOWN + 1, link_id=link.pk, name="WHOOP band", kind="band")
    Timeline.objects.create(patient_id=patient.pk, version=3)
    for place in range(5):
        store(ring, "heart_rate", 50 + place, NOON + place * timedelta(minutes=1), patient_id=patient.pk)
    conflict = dispute("heart_rate", NOON, NOON + timedelta(minutes=5), {ring: 50, band: 70}, ring, patient_id=KNOWN)
    Conflict.objects.filter(pk=conflict.pk).update(id=KNOWN)
    Delivery.objects.create(
        pk=KNOWN, vendor="oura", dedup_key="7", event_type="sleep.update", vendor_user_id="user_7", link=link,
        patient_id=KNOWN, body=b"{}", state="dead", refused=[{"what": "x", "why": "y"}],
    )  # fmt: skip
    ask(ada.user, patient, Wanted(NOON, NOON + timedelta(days=1), "fhir"), who=Actor())
    Export.objects.update(id=KNOWN)
    Attempt.objects.create(
        delivery_id=KNOWN, number=1, stage="fetch", started_at=NOON, duration_ms=3, outcome="dead", message="no"
    )
    return ada


def known(parameters: dict[str, Any] | None, *names: str) -> Any:
    """Every other number that might be one is the number of what is there."""
    for name in names:
        value = (parameters or {}).get(name)
        if isinstance(value, int) and 1 <= value < 2**63 and value % 2:
            parameters[name] = KNOWN  # type: ignore[index]
    return parameters


def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    return known(path_parameters, "id")


def map_query(context: Any, query: Any) -> Any:
    return known(query, "patient_id", "link_id", "source_id")


@schemathesis.check
def refused_only_for_what_no_description_can_say(context: Any, response: Any, case: Any) -> None:
    fits = case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE
    if fits and response.status_code in {400, 412}:
        assert response.json()["type"] in BEYOND_DESCRIPTION, response.json()


def described() -> Any:
    generation = GenerationConfig(max_examples=10, deterministic=True, database="none")
    projects = ProjectsConfig(default=ProjectConfig(generation=generation))
    schema = schemathesis.openapi.from_dict(description(), config=SchemathesisConfig(seed=1, projects=projects))
    schema.app = get_wsgi_application()
    schema.config.checks.positive_data_acceptance.expected_statuses.extend(["400", "412"])  # see the check above
    schema.hook(map_path_parameters)
    schema.hook(map_query)
    return schema


@described().parametrize()
# What it sends changes little, so that it needs no fresh tables each time.
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])
def test_schemathesis_finds_nothing(case: Any, anything: Caller) -> None:
    case.call_and_validate(headers=anything.headers)
