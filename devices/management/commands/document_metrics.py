"""`manage.py document_metrics`: write docs/metrics.md anew."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from devices.metrics_page import metrics_page


class Command(BaseCommand):
    help = "Write docs/metrics.md anew, out of the metric catalogue and the fields that each vendor's normaliser reads."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--check", action="store_true", help="write nothing, fail where the page is behind")
        parser.add_argument(
            "--page", type=Path, default=settings.BASE_DIR / "docs" / "metrics.md", help="the file (docs/metrics.md)"
        )

    def handle(self, *_: Any, **options: Any) -> None:
        page, now = options["page"], metrics_page()
        behind = not page.exists() or page.read_text(encoding="utf-8") != now
        if behind and options["check"]:
            raise CommandError(f"{page} is behind the code: run manage.py document_metrics.")
        if behind:
            page.write_text(now, encoding="utf-8")
        self.stdout.write(f"{page} is {'written' if behind else 'up to date'}.")
