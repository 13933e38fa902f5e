"""The devices that sent something in the range, and how their links stand."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from auren.biometrics.metrics import METRICS, Metric
from auren.biometrics.models import Source
from devices.models import Link

_SENT = """
    SELECT source_id, count(*), min(start_at), max(end_at) FROM biometrics_sample
    WHERE patient_id = %(patient)s AND metric = %(metric)s AND start_at >= %(start)s AND start_at < %(end)s
    GROUP BY source_id
    """


@dataclass(slots=True)
class Sent:
    """What one device sent in the range."""

    samples: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Device:
    """`sent` is None for a link without a device that sent anything in the range."""

    name: str
    kind: str
    vendor: str
    link: str
    sent: Sent | None


def read(asked: dict[str, Any], into: dict[int, Sent]) -> Iterator[int]:
    """Fill `into` by device; yields how many samples there are, metric by metric."""
    for metric in METRICS:
        yield sum(_read_metric(asked, metric, into))


def _read_metric(asked: dict[str, Any], metric: Metric, into: dict[int, Sent]) -> Iterator[int]:
    with connection.cursor() as cursor:
        cursor.execute(_SENT, asked | {"metric": metric.number})
        rows = cursor.fetchall()
    for device, samples, first_at, last_at in rows:
        sent = into.setdefault(device, Sent(0, first_at, last_at))
        sent.samples += samples
        sent.first_at, sent.last_at = min(sent.first_at, first_at), max(sent.last_at, last_at)
        yield samples


def listed(patient_id: int, sent: dict[int, Sent]) -> list[Device]:
    """Those that sent something, by vendor and name, then the links of which nothing came."""
    links = {link.pk: link for link in Link.objects.filter(patient_id=patient_id).order_by("vendor", "id")}
    sources = Source.objects.in_bulk(sent)
    found = [_device(sources.get(number), number, links, sent[number]) for number in sent]
    silent = links.keys() - {source.link_id for source in sources.values()}
    quiet = [_silent(links[number]) for number in links if number in silent]
    return sorted(found, key=lambda one: (one.vendor, one.name, one.kind)) + quiet


def _silent(link: Link) -> Device:
    return Device("", "", link.get_vendor_display(), state_of(link), None)


def _device(source: Source | None, number: int, links: dict[int, Link], sent: Sent) -> Device:
    if source is None:
        return Device(f"device {number}", "", "", "removed", sent)
    link = links.get(source.link_id)
    vendor = link.get_vendor_display() if link else ""
    return Device(source.name, source.kind, vendor, state_of(link) if link else "removed", sent)


def state_of(link: Link) -> str:
    if link.paused_at:
        return f"{link.status}, paused"
    return link.status


def names_of(patient_id: int) -> dict[int, str]:
    """Every device of the patient by its number."""
    links = Link.objects.filter(patient_id=patient_id)
    return dict(Source.objects.filter(link_id__in=links.values("pk")).values_list("pk", "name"))
