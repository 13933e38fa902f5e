"""`manage.py rotate_token_keys`: seal every stored vendor token anew with the newest of TOKEN_KEYS."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from auren.audit.models import Verb
from auren.audit.trail import Actor, record
from devices.rotation import Rotation


class Command(BaseCommand):
    help = "Seal every stored vendor token anew with the newest of TOKEN_KEYS. Safe to repeat, and while workers run."

    def handle(self, *_: Any, **__: Any) -> None:
        if not settings.TOKEN_KEYS:
            raise CommandError("TOKEN_KEYS is not set: there is no key to re-encrypt with.")
        record(Actor.at_a_shell(), Verb.ROTATE)
        rotation = Rotation()
        rotation.run()
        second_factors(self)
        self.stdout.write(f"{rotation.rotated} re-encrypted, {rotation.already} were already.")
        if rotation.unreadable:
            self.stderr.write(
                f"{len(rotation.unreadable)} open with none of TOKEN_KEYS: put the key they were written with back as "
                f"the last one, or have these links connected again: {numbers(rotation.unreadable)}."
            )
        if rotation.busy:
            self.stderr.write(
                f"{len(rotation.busy)} are being refreshed at this moment, run this once more: links "
                f"{numbers(rotation.busy)}."
            )
        if not rotation.is_whole:
            raise CommandError("Keep the older keys in TOKEN_KEYS for now.")


def second_factors(command: BaseCommand) -> None:
    """Those of people who sign in. The console stands above `devices`: asked for here alone."""
    from auren.console.second_factor import seal_anew  # noqa: PLC0415 - see above

    sealed, unreadable = seal_anew()
    if sealed:
        command.stdout.write(f"{sealed} keys of second factors re-encrypted.")
    if unreadable:
        command.stderr.write(f"{unreadable} keys of second factors open with none of TOKEN_KEYS: an admin resets them.")


def numbers(link_ids: list[int]) -> str:
    return ", ".join(str(link_id) for link_id in sorted(link_ids))
