"""`manage.py subscribe_oura`: check Oura's webhook subscriptions now. The scheduler does it every day."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from auren.audit.models import Verb
from auren.audit.trail import Actor, record
from devices.models import Subscription
from devices.subscriptions import check_now, of_oura, state_of, verdict

ROW = "{:<26} {:<8} {:<11} {:<17} {}"


class Command(BaseCommand):
    help = "Create, renew, mend and remove Oura's webhook subscriptions, and print what stands. Safe to repeat."

    def handle(self, *_: Any, **__: Any) -> None:
        record(Actor.at_a_shell(), Verb.CHECK)
        check = check_now()
        self.stdout.write(ROW.format("data type", "event", "state", "until (UTC)", "error"))
        for row in of_oura():
            self.stdout.write(line(row))
        self.stdout.write(f"Done: {check}." if str(check) else "Nothing was changed.")
        self.stdout.write(verdict())
        if any(row.error for row in of_oura()):
            raise SystemExit(1)


def line(row: Subscription) -> str:
    until = f"{row.expires_at:%Y-%m-%d %H:%M}" if row.expires_at else "-"
    return ROW.format(row.data_type, row.event_type, state_of(row, timezone.now()), until, row.error).rstrip()
