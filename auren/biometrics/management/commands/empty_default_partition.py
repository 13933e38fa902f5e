"""`manage.py empty_default_partition`: samples of a time nobody expected get partitions of their own."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from auren.biometrics.partitions import LOCK_TIMEOUT, empty_default


class Command(BaseCommand):
    help = "Move samples out of the default partition, into one for each of their months."

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        try:
            made = empty_default()
        except OperationalError as error:
            raise CommandError(
                f"The table could not be had within {LOCK_TIMEOUT}: run it again. ({type(error).__name__})"
            ) from None
        self.stdout.write("\n".join(f"made {name}" for name in made) or "The default partition is empty.")
