"""People for load tests: tens of thousands, linked at Oura, at WHOOP and by phone, whom the sandbox knows as well."""

import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import httpx
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction

from auren.sandbox.grants import Tokens, Vendor
from auren.sandbox.physiology import zone_of
from auren.sandbox.remote import RemoteSandbox
from devices.management.commands.seed_demo import display_name, make_api_key, setting
from devices.tokens import seal

PEOPLE = 50_000
BATCH = 1_000  # people whose tokens are granted, sealed and committed together
VENDORS: tuple[Vendor, ...] = ("oura", "whoop")
T = TypeVar("T")

INCOMING = "CREATE TEMPORARY TABLE people (external_id text, display_name text, timezone text) ON COMMIT DROP"
PATIENTS = """
INSERT INTO devices_patient (external_id, display_name, timezone) SELECT external_id, display_name, timezone FROM people
ON CONFLICT (external_id) DO NOTHING
"""
LINKS = """
INSERT INTO devices_link (patient_id, vendor, vendor_user_id)
SELECT patient.id, vendor, external_id
FROM people JOIN devices_patient AS patient USING (external_id),
     unnest(ARRAY['oura', 'whoop', 'healthkit']) AS vendor
ON CONFLICT (vendor, vendor_user_id) DO NOTHING
"""
CONNECTED = """
SELECT link.vendor_user_id FROM devices_link AS link JOIN devices_token AS token ON token.link_id = link.id
WHERE link.vendor = %s AND token.issued_by = %s AND link.status IN ('active', 'stale')
"""
GRANTED = """
CREATE TEMPORARY TABLE granted (
    vendor_user_id text, access_token text, refresh_token text, life double precision, scopes text
) ON COMMIT DROP
"""
TOKENS = """
INSERT INTO devices_token (link_id, access_token, refresh_token, expires_at, issued_by)
SELECT link.id, access_token, refresh_token, now() + make_interval(secs => life), %(issued_by)s
FROM granted JOIN devices_link AS link USING (vendor_user_id) WHERE link.vendor = %(vendor)s
ON CONFLICT (link_id) DO UPDATE
SET access_token = excluded.access_token, refresh_token = excluded.refresh_token, expires_at = excluded.expires_at,
    issued_by = excluded.issued_by, refresh_token_lease = NULL, refresh_until = NULL, updated_at = now()
"""
ACTIVE = """
UPDATE devices_link AS link
SET status = 'active', status_since = CASE link.status WHEN 'active' THEN link.status_since ELSE now() END,
    connected_at = now(), scopes = granted.scopes
FROM granted WHERE link.vendor = %(vendor)s AND link.vendor_user_id = granted.vendor_user_id
"""
ANALYZE = "ANALYZE devices_patient, devices_link, devices_token"


class Made(NamedTuple):
    patients: int
    links: int


class Command(BaseCommand):
    help = (
        "Make people for a load test: user_1 to user_50000, linked at Oura and WHOOP, where the sandbox grants them "
        "tokens, and by phone. Who is there already stays. Runs with AUREN_SANDBOX=1 only, beside a running sandbox."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--people", type=int, default=PEOPLE, help=f"user_1 to user_<people> ({PEOPLE})")
        parser.add_argument(
            "--token-seconds",
            type=int,
            default=0,
            help="spread the ends of the new access tokens evenly over so many seconds, so that a test meets tokens "
            "that expire; 0 leaves each vendor's own life (0)",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        people, token_seconds = options["people"], options["token_seconds"]
        if not settings.SANDBOX:
            raise CommandError("seed_load makes patients who do not exist: it runs with AUREN_SANDBOX=1 only.")
        if people < 1 or token_seconds < 0:
            raise CommandError("--people must be at least 1, and --token-seconds 0 or more.")
        started = time.monotonic()
        users = [f"user_{number}" for number in range(1, people + 1)]
        with RemoteSandbox(sandbox_url()) as sandbox:
            known = {vendor: connected(sandbox, vendor) for vendor in VENDORS}
            make_api_key()
            made = make_people(users)
            for vendor in VENDORS:
                missing = [user for user in users if user not in known[vendor]]
                self.stdout.write(self.connect(sandbox, vendor, missing, people, token_seconds))
        with connection.cursor() as cursor:
            cursor.execute(ANALYZE)
        seconds = time.monotonic() - started
        self.stdout.write(
            f"{people} people in {seconds:.1f} s: {made.patients} made, {people - made.patients} were there already; "
            f"{made.links} links made, {3 * people - made.links} were there already."
        )

    def connect(
        self, sandbox: RemoteSandbox, vendor: Vendor, users: Sequence[str], people: int, token_seconds: int
    ) -> str:
        """Grant, seal and keep the tokens of `users`, a batch at a time; a line that says how many."""
        batches = -(-len(users) // BATCH)
        for number in range(batches):
            chosen = list(users[number::batches])  # from all over, so that any range of people has tokens of every age
            life = max(1, token_seconds * (number + 1) // batches) if token_seconds else None
            keep(vendor, ask(lambda: sandbox.grant_many(vendor, chosen, life)))  # noqa: B023 - called at once
        return f"{vendor}: {len(users)} newly connected, {people - len(users)} were already."


def sandbox_url() -> str:
    """Where the sandbox is: the settings point Oura's and WHOOP's API to it."""
    url = settings.OURA_API_URL.removesuffix("/oura")
    if setting("whoop", "API_URL") != f"{url}/whoop/developer":
        raise CommandError(
            f"OURA_API_URL ({settings.OURA_API_URL}) and WHOOP_API_URL ({settings.WHOOP_API_URL}) are not those of one "
            "sandbox: run this beside `manage.py up`, or set what `manage.py run_sandbox` prints."
        )
    return url


def connected(sandbox: RemoteSandbox, vendor: Vendor) -> set[str]:
    """Whose tokens are here and known to the sandbox: one that has lost its state grants anew."""
    granted = set(ask(lambda: sandbox.granted(vendor)))
    with connection.cursor() as cursor:
        cursor.execute(CONNECTED, [vendor, setting(vendor, "TOKEN_URL")])
        return {user for (user,) in cursor.fetchall()} & granted


def ask(question: Callable[[], T]) -> T:
    try:
        return question()
    except httpx.HTTPError as error:
        raise CommandError(
            f"The sandbox at {sandbox_url()} does not answer as one ({type(error).__name__}: {error}): start "
            "`manage.py up`, or `manage.py run_sandbox` and set what it prints."
        ) from None


def make_people(users: Sequence[str]) -> Made:
    rows = ((user, display_name(number), zone_of(user)) for number, user in enumerate(users, start=1))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(INCOMING)
        copy(cursor, "COPY people FROM STDIN", rows)
        cursor.execute(PATIENTS)
        patients = cursor.rowcount
        cursor.execute(LINKS)
        return Made(patients, cursor.rowcount)


def keep(vendor: Vendor, tokens: Sequence[Tokens]) -> None:
    rows = (
        (each.user_id, seal(each.access_token), seal(each.refresh_token or ""), each.expires_in, " ".join(each.scopes))
        for each in tokens
    )
    names = {"vendor": vendor, "issued_by": setting(vendor, "TOKEN_URL")}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(GRANTED)
        copy(cursor, "COPY granted FROM STDIN", rows)
        cursor.execute(TOKENS, names)
        cursor.execute(ACTIVE, names)


def copy(cursor: Any, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    with cursor.copy(statement) as target:
        for row in rows:
            target.write_row(row)
