"""A token of the REST API from the command line, for set-up by script: it prints the token and nothing else."""

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from auren.audit.models import Verb
from auren.audit.trail import Actor, record
from auren.console.models import AccessToken


class Command(BaseCommand):
    help = "Issue a token of the REST API. It is printed once and kept nowhere."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", help="whom the program acts as")
        parser.add_argument("--name", required=True, help="the program that will show it")
        parser.add_argument("--days", type=int, help="how long it is good for (API_TOKEN_DAYS)")

    def handle(self, *_: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"], is_active=True).first()
        if user is None:
            raise CommandError(f"There is no active user {options['username']}.")
        days: int | None = options["days"]
        if days is not None and not 1 <= days <= 3660:
            raise CommandError("--days must be from 1 to 3660.")
        with transaction.atomic():
            token, text = AccessToken.issue(user, options["name"][:100], by="manage.py issue_token", days=days)
            record(Actor.at_a_shell(), Verb.ISSUE, token, detail=f"acts as {user.get_username()}")
        self.stdout.write(text)
