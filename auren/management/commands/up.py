"""`manage.py up`: the whole bridge on this machine."""

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand

from auren import environment as env
from auren.embedded.node import Demo, Node
from auren.embedded.output import Terminal
from auren.embedded.server import BASE_DIR, StartError
from auren.embedded.var import Var, without_up


class Command(BaseCommand):
    help = (
        "Run the whole bridge on this machine, with PostgreSQL, Valkey and a stand-in for Kafka unless DATABASE_URL, "
        "REDIS_URL or KAFKA_BOOTSTRAP_SERVERS name yours, and demo people whose data come from the sandbox. "
        "It listens on 127.0.0.1, PORT or 8000, and keeps its data in AUREN_VAR or var/."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--people", type=int, default=20, help="demo people (20)")
        parser.add_argument("--days", type=int, default=30, help="days of history they bring (30)")
        parser.add_argument("--trickle", type=float, default=2, help="seconds between new data, 0 for none (2)")

    def handle(self, *_: Any, **options: Any) -> None:
        var = Var(settings.VAR_DIR)
        demo = Demo(options["people"], options["days"], options["trickle"])
        try:
            with var.claim():
                forget_last_run(var)
                Node(var, demo, Terminal()).run()
        except (StartError, ImproperlyConfigured, OSError) as error:
            self.stderr.write(str(error))
            raise SystemExit(1) from None


def forget_last_run(var: Var) -> None:
    """Take back what the `up.env` of a run that was killed has put into our environment."""
    if var.environment_file.exists():
        kept = without_up(psutil.Process().environ(), var.environment_file.read_text(encoding="utf-8"))
        os.environ.clear()
        os.environ.update(kept)
        env.load_file(Path(env.text("AUREN_ENV_FILE", str(BASE_DIR / ".env"))))
