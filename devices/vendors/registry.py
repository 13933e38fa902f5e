"""The vendors: one folder each, with the same parts. Adding one is described in CONTRIBUTING.md."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from devices.vendors.client import Answer, Api, Ask
from devices.vendors.documents import Fields
from devices.vendors.healthkit import client as healthkit_client
from devices.vendors.healthkit import normalise as healthkit_normalise
from devices.vendors.healthkit import webhook as healthkit_webhook
from devices.vendors.normalised import Document, Normalised
from devices.vendors.oura import client as oura_client
from devices.vendors.oura import normalise as oura_normalise
from devices.vendors.oura import webhook as oura_webhook
from devices.vendors.webhook import Interest
from devices.vendors.whoop import client as whoop_client
from devices.vendors.whoop import normalise as whoop_normalise
from devices.vendors.whoop import webhook as whoop_webhook

Fetch = Callable[[Ask, Api], Awaitable[Answer]]
Headers = Mapping[str, str] | None


class Normalise(Protocol):
    def __call__(self, kind: str, document: Document, zone: str = "UTC") -> Normalised: ...


class Webhook(Protocol):
    def interest_in(self, event_type: str) -> Interest: ...


def _never(object_id: str) -> bool:  # noqa: ARG001 - only WHOOP has had an earlier kind of id
    return False


def _nothing(event_type: str, object_id: str) -> list[str]:  # noqa: ARG001 - HealthKit's deletions are in the body
    return []


def _batch(event_type: str) -> tuple[str, str]:  # noqa: ARG001 - HealthKit has one kind of document
    return "batch", "posted"


def _no_body_of_its_own(body: bytes, headers: Headers) -> Document:
    raise NotImplementedError("this vendor's webhook carries no document")


@dataclass(frozen=True)
class Vendor:
    """Everything the bridge knows of a vendor.

    `fields` names, by kind of document, each field that is read and the metric it yields. `history` lists the kinds a
    backfill asks for, the most useful first, each with the days one list call may span; `polled` those that no webhook
    announces, with the seconds between two polls and the days each reaches back. `record_is_final`: a withdrawn
    record's id never comes back.
    """

    name: str
    webhook: Webhook
    fetch: Fetch
    normalise: Normalise
    fields: Mapping[str, Fields]
    kind_and_verb: Callable[[str], tuple[str, str]] = _batch
    withdrawn_by: Callable[[str, str], list[str]] = _nothing
    is_v1_id: Callable[[str], bool] = _never
    document_of: Callable[[bytes, Headers], Document] = _no_body_of_its_own
    history: tuple[tuple[str, int], ...] = ()
    polled: tuple[tuple[str, int, int], ...] = ()
    record_is_final: bool = False


VENDORS: dict[str, Vendor] = {
    "oura": Vendor(
        "oura",
        oura_webhook.WEBHOOK,
        oura_client.fetch,
        oura_normalise.normalise,
        oura_normalise.FIELDS,
        kind_and_verb=oura_webhook.kind_and_verb,
        withdrawn_by=oura_webhook.withdrawn_by,
        history=tuple((kind, oura_client.HISTORY_DAYS_PER_CALL[kind]) for kind in oura_client.HISTORY),
        polled=tuple((kind, *how) for kind, how in oura_client.POLLED.items()),
    ),
    "whoop": Vendor(
        "whoop",
        whoop_webhook.WEBHOOK,
        whoop_client.fetch,
        whoop_normalise.normalise,
        whoop_normalise.FIELDS,
        kind_and_verb=whoop_webhook.kind_and_verb,
        withdrawn_by=whoop_webhook.withdrawn_by,
        is_v1_id=whoop_normalise.is_v1_id,
        history=tuple((kind, whoop_client.HISTORY_DAYS_PER_CALL[kind]) for kind in whoop_client.HISTORY),
        polled=tuple((kind, *how) for kind, how in whoop_client.POLLED.items()),
    ),
    "healthkit": Vendor(
        "healthkit",
        healthkit_webhook.WEBHOOK,
        healthkit_client.fetch,
        healthkit_normalise.normalise,
        healthkit_normalise.FIELDS,
        document_of=healthkit_webhook.document_of,
        record_is_final=True,
    ),
}
