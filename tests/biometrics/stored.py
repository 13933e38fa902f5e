"""Samples and conflicts as the worker would have stored them."""

from datetime import UTC, datetime, timedelta

from django.db.models import F

from auren.biometrics.metrics import BY_NAME
from auren.biometrics.models import Conflict, Preference, Sample, Source, Timeline

PATIENT = 7
NOON = datetime(2026, 11, 13, 12, tzinfo=UTC)


def raise_version(patient_id: int) -> None:
    Timeline.objects.get_or_create(patient_id=patient_id)
    Timeline.objects.filter(patient_id=patient_id).update(version=F("version") + 1)


def source(kind: str, link_id: int = 1) -> Source:
    names = {"ring": "Oura ring", "band": "WHOOP band", "watch": "Apple Watch", "phone": "iPhone"}
    return Source.objects.get_or_create(link_id=link_id, name=names[kind], defaults={"kind": kind})[0]


def store(
    by: Source,
    metric: str,
    value: float,
    start_at: datetime,
    end_at: datetime | None = None,
    *,
    patient_id: int = PATIENT,
    record: str = "",
    revised_at: datetime = NOON,
) -> Sample:
    raise_version(patient_id)
    return Sample.objects.create(
        patient_id=patient_id,
        metric=BY_NAME[metric].number,
        start_at=start_at,
        end_at=end_at or start_at,
        source=by,
        record=record or f"{metric}:{start_at:%s}",
        value=value,
        revised_at=revised_at,
        delivery_id=1,
    )


def store_night(by: Source, evening: datetime, *stages: int, minutes: int = 30) -> None:
    """Stages that follow each other from `evening` on, each `minutes` long."""
    for place, stage in enumerate(stages):
        start_at = evening + timedelta(minutes=minutes * place)
        store(by, "sleep_stage", stage, start_at, start_at + timedelta(minutes=minutes))


def dispute(
    metric: str,
    start_at: datetime,
    end_at: datetime,
    values: dict[Source, float],
    winner: Source,
    *,
    patient_id: int = PATIENT,
    rule: str = "person",
    state: str = "overridden",
) -> Conflict:
    raise_version(patient_id)
    return Conflict.objects.create(
        patient_id=patient_id,
        metric=BY_NAME[metric].number,
        start_at=start_at,
        end_at=end_at,
        values={str(by.pk): value for by, value in values.items()},
        winner=winner,
        rule=rule,
        state=state,
    )


def decide(
    *sources: Source,
    metric: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    daily: bool = False,
    patient_id: int = PATIENT,
) -> Preference:
    """What a person decided: for a moment with `until`, for a metric with its name alone, else the patient's order."""
    raise_version(patient_id)
    return Preference.objects.create(
        patient_id=patient_id,
        scope="moment" if until else "metric" if metric else "patient",
        metric=BY_NAME[metric].number if metric else None,
        since=since,
        until=until,
        daily=daily if until else None,
        sources=[by.pk for by in sources],
        made_by="dr.lee",
        note="the strap was loose",
    )
