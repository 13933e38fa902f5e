"""`manage.py backfill`: ask the vendors for history, and watch it come in."""

import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet
from tqdm import tqdm

from auren.audit.models import Verb
from auren.audit.trail import Actor, record
from devices.models import Link
from webhooks.backfill import Progress, file_backfill, progress_of

LOOK_SECONDS = 1.0


class Command(BaseCommand):
    help = (
        "File the last days of links as deliveries of origin backfill, which the workers process when there is room, "
        "and show how far they are. Ctrl-C stops the watching only; what is filed goes on."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("users", nargs="*", help="external ids of patients; all active links without any")
        parser.add_argument("--vendor", choices=[vendor for vendor, _ in Link.VENDORS if vendor != "healthkit"])
        parser.add_argument("--days", type=int, default=settings.BACKFILL_DAYS, help="how far back (BACKFILL_DAYS)")
        parser.add_argument("--status", action="store_true", help="file nothing, only show how far it is")
        parser.add_argument("--no-wait", action="store_true", help="do not watch")

    def handle(self, *_: Any, **options: Any) -> None:
        links = self.chosen(options["users"], options["vendor"])
        if not options["status"]:
            record(Actor.at_a_shell(), Verb.BACKFILL, patients=links.values_list("patient_id", flat=True))
            filed = sum(file_backfill(link, days=options["days"]) for link in links)
            self.stdout.write(f"{filed} lists filed for {len(links)} links; those filed before are not asked again.")
        if options["no_wait"]:
            self.stdout.write(f"Backfill: {progress_of(links)}.")
        else:
            self.watch(links)

    def chosen(self, users: list[str], vendor: str | None) -> QuerySet[Link]:
        """Links that can be asked. Raises `CommandError` where a user has none."""
        links = Link.objects.filter(status__in=["active", "stale"], paused_at=None).exclude(vendor="healthkit")
        links = links.filter(vendor=vendor) if vendor else links
        if not users:
            return links
        links = links.filter(patient__external_id__in=users)
        known = set(links.values_list("patient__external_id", flat=True))
        if missing := sorted(set(users) - known):
            raise CommandError(f"No link that can be asked: {', '.join(missing)}. The admin says why.")
        return links

    def watch(self, links: QuerySet[Link]) -> None:
        """Until all is done but what waits for a score. The lists are not known beforehand: pages follow pages."""
        progress = progress_of(links)
        with tqdm(unit=" lists", initial=progress.done, total=progress.filed, dynamic_ncols=True) as bar:
            show(bar, progress)
            while not progress.is_over:
                time.sleep(LOOK_SECONDS)
                progress = progress_of(links)
                show(bar, progress)


def show(bar: "tqdm[Any]", progress: Progress) -> None:
    bar.total = progress.filed
    bar.n = progress.done
    bar.set_postfix(dead=progress.dead, unscored=progress.unscored, samples=progress.samples, refresh=False)
    bar.refresh()
