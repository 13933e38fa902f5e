"""`manage.py erase_patient <external id> --reason …`: remove all that is known of a patient, for good."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from auren.audit.trail import shell_user
from webhooks.erasure import NothingToErase, erase, find


class Command(BaseCommand):
    help = "Remove all that is known of a patient, for good, and tell Kafka. Asks for the external id once more."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("external_id", help="whom to erase, as in HealthKit bodies and Kafka keys")
        parser.add_argument("--reason", required=True, help="stays in the record: no name, nothing about health")
        parser.add_argument("--by", default="", help="who asks for it (the user of this shell)")
        parser.add_argument("--yes", action="store_true", help="do not ask again")

    def handle(self, *_: Any, external_id: str, reason: str, by: str, yes: bool, **__: Any) -> None:
        try:
            patient = find(external_id)
            if not yes and input("Type the external id once more to erase for good: ").strip() != external_id:
                raise CommandError("That is not the external id. Nothing was erased.")
            record = erase(patient, by=by or shell_user(), reason=reason)
        except NothingToErase as error:
            raise CommandError(str(error)) from None
        for table, count in sorted(record.removed.items()):
            self.stdout.write(f"{count:>12,} {table}")
        self.stdout.write(f"{external_id} is erased: record {record.pk}, delivery {record.delivery_id} tells Kafka.")
