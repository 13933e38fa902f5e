"""What support does to a link: what each action says and does, and where it makes no sense."""

from typing import Any

from django import forms
from django.utils import timezone

from devices.disconnecting import Ending, disconnect
from devices.models import Link
from devices.oauth import VENDORS
from webhooks.actions import requeue_unlinked

LONGEST_BACKFILL_DAYS = 365
MOST_DISCONNECTED = 20  # at once: each may wait for its vendor until the time limit
TO_DO = "STILL TO DO"
LONGEST_LOG = 500


class Days(forms.Form):
    days = forms.IntegerField(
        min_value=1,
        max_value=LONGEST_BACKFILL_DAYS,
        label="Days back",
        help_text=f"1 to {LONGEST_BACKFILL_DAYS}. What is stored already is not stored twice.",
    )


BACKFILLING = {
    "action": "backfill",
    "title": "Fetch history",
    "consequence": "The vendor is asked for these days again, beside live data and no faster than its limits allow.",
    "button": "Fetch it",
}
DISCONNECTING: dict[str, Any] = {
    "action": "disconnect",
    "title": "Disconnect",
    "consequence": "The vendor is asked to end the patient's grant and to stop its webhooks, and the token is deleted. "
    "Nothing more is fetched. What is stored stays. Only the patient can connect again, with an invitation.",
    "button": "Disconnect",
    "danger": True,
}


def why_not(action: str, link: Link) -> str:
    """Why an action makes no sense for a link, "" where it does."""
    if link.vendor not in VENDORS and action not in {"pause", "resume"}:
        return "a phone pushes by itself and is stopped by revoking its key"
    if action in {"sync_now", "backfill"} and link.status not in {"active", "stale"}:
        return f"it is {link.status}: send a reconnect invitation first"
    if action in {"sync_now", "backfill"} and link.paused_at:
        return "it is paused: resume it first"
    if action == "pause" and link.status == "revoked":
        return "it is revoked: nothing is fetched from it"
    return {
        "pause": "it was paused before" if link.paused_at else "",
        "resume": "" if link.paused_at else "it is not paused",
        "disconnect": "it was disconnected before" if link.status == "revoked" else "",
    }.get(action, "")


def filed(number: int, days: int) -> str:
    if not number:
        return f"the last {days} days have been asked for today already"
    return f"asked for the last {days} days in {number} lists"


def pause(link: Link) -> str:
    Link.objects.filter(pk=link.pk, paused_at=None).update(paused_at=timezone.now())
    return "paused"


def resume(link: Link) -> str:
    Link.objects.filter(pk=link.pk).update(paused_at=None)
    number = requeue_unlinked(link.vendor, link.vendor_user_id)
    return f"resumed, {number} waiting deliveries go on"


def end(link: Link) -> str:
    ending = disconnect(link)
    if ending is not Ending.UNASKED:
        return f"disconnected: {ending.value}" if ending is not Ending.RECONNECTED else ending.value
    name, how = link.get_vendor_display(), VENDORS[link.vendor].manage
    return (
        f"disconnected here, but {ending.value}. {TO_DO}: ask the patient to end the sharing {how}; until then {name} "
        "may go on sending webhooks, which are set aside"
    )
