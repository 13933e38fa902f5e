"""Deliveries, for whoever keeps them moving: what is stuck, why, and the two things one can do about it."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from auren.admin import log
from auren.audit.models import Verb
from auren.audit.trail import note
from auren.console.api.access import holds, user_of
from auren.console.api.asking import Body, Instant, Listed, Number, Query, Text
from auren.console.api.lists import ListView, page_of
from auren.console.api.problems import Problem
from auren.console.api.views import ApiView
from devices.models import Link
from webhooks import actions
from webhooks.admin import BULKY, why_not_ignored, why_not_retried
from webhooks.models import Attempt as AttemptRow
from webhooks.models import Delivery as DeliveryRow

SEE_DELIVERIES = holds("webhooks.view_delivery")
LIST_FIELDS: tuple[str, ...] = (
    *("id", "vendor", "origin", "event_type", "vendor_user_id", "object_id", "event_time", "link_id", "patient_id"),
    *("state", "received_at", "stored_at", "published_at", "next_attempt_at", "attempts", "failures"),
    *("sample_count", "ignored_count", "error", "error_class"),
)


class Delivery(serializers.ModelSerializer[DeliveryRow]):
    link_id = Number(allow_null=True)
    patient_id = Number(allow_null=True)
    next_attempt_at = serializers.SerializerMethodField()

    class Meta:
        model = DeliveryRow
        fields = LIST_FIELDS

    def get_next_attempt_at(self, delivery: DeliveryRow) -> datetime | None:
        return delivery.next_attempt_at if delivery.state in {"received", "retrying"} else None


class Attempt(serializers.ModelSerializer[AttemptRow]):
    class Meta:
        model = AttemptRow
        fields = ("number", "stage", "started_at", "duration_ms", "outcome", "error_class", "message")


class DeliveryWithAttempts(Delivery):
    tries = Attempt(many=True)

    class Meta(Delivery.Meta):
        fields = (*LIST_FIELDS, "tries")


class Payload(serializers.Serializer[DeliveryRow]):
    body = serializers.SerializerMethodField()
    document = serializers.CharField(allow_null=True)
    refused = serializers.JSONField(allow_null=True)

    def get_body(self, delivery: DeliveryRow) -> str | None:
        return None if delivery.body is None else bytes(delivery.body).decode("utf-8", "replace")


class DeliveriesAsked(Listed):
    state = serializers.ChoiceField(choices=DeliveryRow.STATES, required=False, help_text="In this state.")
    vendor = serializers.ChoiceField(choices=DeliveryRow.VENDORS, required=False, help_text="Of this vendor.")
    origin = serializers.ChoiceField(choices=DeliveryRow.ORIGINS, required=False, help_text="For this reason.")
    link_id = Number(required=False, help_text="Through this link.")
    patient_id = Number(required=False, help_text="Of this patient.")
    from_ = Instant(required=False, help_text="Received at this time or later.")
    to = Instant(required=False, help_text="Received before this time.")


EXAMPLE = {
    "id": 48151,
    "vendor": "oura",
    "origin": "webhook",
    "event_type": "sleep.update",
    "vendor_user_id": "user_7",
    "object_id": "8f9a5221-639e-4a85-81cb-4065ef23f979",
    "event_time": "2026-11-24T06:57:59Z",
    "link_id": 11,
    "patient_id": 7,
    "state": "dead",
    "received_at": "2026-11-24T06:58:03.120154Z",
    "stored_at": None,
    "published_at": None,
    "next_attempt_at": None,
    "attempts": 1,
    "failures": 1,
    "sample_count": 0,
    "ignored_count": 0,
    "error": "oura answered 403",
    "error_class": "http_403",
}
TRY = {
    "number": 1,
    "stage": "fetch",
    "started_at": "2026-11-24T06:58:03.180912Z",
    "duration_ms": 212,
    "outcome": "dead",
    "error_class": "http_403",
    "message": "oura answered 403",
}


class Deliveries(ListView):
    """Newest first. For support and admins."""

    operation = "list_deliveries"
    summary = "Deliveries: what came in, and what became of it"
    example = page_of(EXAMPLE)
    permission_classes = (SEE_DELIVERIES,)
    query = DeliveriesAsked
    shown = Delivery
    order = ("-id",)

    def found(self, request: Request, asked: Mapping[str, Any]) -> QuerySet[DeliveryRow]:  # noqa: ARG002
        found = (
            DeliveryRow.objects.defer(*BULKY)
            .select_related("link")
            .filter(**{name: asked[name] for name in ("state", "vendor", "origin", "link_id") if name in asked})
        )
        if "patient_id" in asked:
            links = Link.objects.filter(patient_id=asked["patient_id"]).values_list("pk", flat=True)
            found = found.filter(link_id__in=list(links))
        return found.filter(_received(asked))


def _received(asked: Mapping[str, Any]) -> Q:
    after = Q(received_at__gte=asked["from"]) if "from" in asked else Q()
    return after & (Q(received_at__lt=asked["to"]) if "to" in asked else Q())


def _one(pk: int) -> DeliveryRow:
    rows = DeliveryRow.objects.defer(*BULKY).annotate(bodiless=Q(body=None)).prefetch_related("tries")
    return get_object_or_404(rows, pk=pk)


class OneDelivery(ApiView):
    operation = "get_delivery"
    summary = "One delivery, with every try at it"
    example = {**EXAMPLE, "tries": [TRY]}
    shown = DeliveryWithAttempts
    permission_classes = (SEE_DELIVERIES,)

    def get(self, request: Request, pk: int) -> Response:
        Query.of(request)
        delivery = _one(pk)
        note(request, delivery)
        return Response(DeliveryWithAttempts(delivery).data)


class DeliveryPayload(ApiView):
    """Health data, and so a right of its own (`webhooks.view_payload`). Null where it is no longer kept."""

    operation = "get_delivery_payload"
    summary = "What a delivery carried"
    example = {"body": '{"event_type":"update","data_type":"sleep"}', "document": None, "refused": None}
    shown = Payload
    permission_classes = (SEE_DELIVERIES, holds("webhooks.view_payload"))

    def get(self, request: Request, pk: int) -> Response:
        Query.of(request)
        kept = DeliveryRow.objects.select_related("link")
        kept = kept.only("body", "document", "refused", "patient_id", "link__patient_id")
        delivery = get_object_or_404(kept, pk=pk)
        note(request, delivery, detail="what it carried")
        return Response(Payload(delivery).data)


class Retry(ApiView):
    """One more try, under the same number. 409 for what a worker has at this moment, what people did, and what cannot
    do without its body after that is gone.
    """

    operation = "retry_delivery"
    summary = "Send a delivery through once more"
    example = {**EXAMPLE, "state": "received", "error": "tried again by sam", "tries": [TRY]}
    shown = DeliveryWithAttempts
    status = 202
    tells = ("not-possible",)
    permission_classes = (SEE_DELIVERIES, holds("webhooks.retry_delivery"))

    def post(self, request: Request, pk: int) -> Response:
        Query.of(request)
        Body.of(request)
        act = lambda chosen: actions.retry(chosen, by=user_of(request))  # noqa: E731 - said in place
        return Response(_acted(request, pk, act, Verb.RETRY, "tried again", why_not_retried), status=202)


class Reason(Body):
    reason = Text(max_length=500, help_text="Stays on the delivery and in the log.")


class Ignore(ApiView):
    """Nothing more is tried. A retry brings it back."""

    operation = "ignore_delivery"
    summary = "Give up on a delivery, with a reason"
    example = {**EXAMPLE, "state": "ignored", "error": "ignored by sam on 2026-11-24: a test account", "tries": [TRY]}
    body = Reason
    shown = DeliveryWithAttempts
    tells = ("not-possible",)
    permission_classes = (SEE_DELIVERIES, holds("webhooks.ignore_delivery"))

    def post(self, request: Request, pk: int) -> Response:
        Query.of(request)
        reason = Reason.of(request)["reason"]
        act = lambda chosen: actions.ignore(chosen, by=user_of(request), reason=reason)  # noqa: E731 - said in place
        return Response(_acted(request, pk, act, Verb.IGNORE, f"ignored: {reason}", why_not_ignored))


def _acted(
    request: Request,
    pk: int,
    act: Callable[[QuerySet[DeliveryRow]], int],
    verb: Verb,
    done: str,
    why_not: Callable[[DeliveryRow], str],
) -> Mapping[str, Any]:
    """Do it and log it as the admin does; the delivery as it is then. Raises `Problem` where it cannot be done."""
    with transaction.atomic():
        delivery = _one(pk)
        if not act(DeliveryRow.objects.filter(pk=pk)):
            raise Problem("not-possible", f"Left as it was: {why_not(delivery)}.")
        log(request, [delivery], verb, f"{done}, through the API")
    return DeliveryWithAttempts(_one(pk)).data
