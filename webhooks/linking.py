"""Saying whose an account is, of which deliveries came before anybody was known by it."""

from django.db import IntegrityError, transaction

from devices.models import Link, Patient
from webhooks.actions import requeue_unlinked
from webhooks.models import Delivery


class Known(Exception):
    """The account is somebody's already. The text is for whoever asked."""


def link_to(delivery: Delivery, patient: Patient) -> tuple[Link, int]:
    """The patient's link for the delivery's account, and how many deliveries go on with it now.

    A phone's deliveries need nothing else. Oura and WHOOP are asked with a token, which only the patient can give:
    their link begins as expired, and its deliveries wait until the patient has connected.
    """
    status = "active" if delivery.vendor == "healthkit" else "expired"
    try:
        with transaction.atomic():
            link = Link.objects.create(
                patient=patient, vendor=delivery.vendor, vendor_user_id=delivery.vendor_user_id, status=status
            )
    except IntegrityError:
        raise Known(f"{delivery.vendor_user_id} is linked already, by somebody else a moment ago.") from None
    return link, requeue_unlinked(delivery.vendor, delivery.vendor_user_id)
