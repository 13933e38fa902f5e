"""Demo people: logins, patients with both their devices linked, the phones' key, and the history to begin with."""

import hashlib
import os
from argparse import ArgumentParser
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.management.base import BaseCommand, CommandError

from auren.sandbox.physiology import zone_of
from devices.models import ApiKey, Assignment, Link, Patient, Token
from devices.tokens import store_grant

VENDORS = ("oura", "whoop")
API_KEY = "test_api_key"
# login: (groups, is_staff, is_superuser). Its password is in DEMO_<LOGIN>_PASSWORD; without that it stays as it is.
LOGINS = {
    "support": ("support", True, False),
    "clinician": ("clinician", False, False),
    "admin": ("admin", True, True),
}
# Beyond the first twenty the names come round again; the initial is then another one.
FIRST_NAMES = (
    *("Amara", "Benedikt", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hamza", "Ines", "Jonas"),
    *("Katya", "Leandro", "Mireille", "Nadia", "Oskar", "Priya", "Quentin", "Rosa", "Samuel", "Tove"),
)
INITIALS = "KMSBTRLWHDNPVGACEFJO"
OAUTH_STATE = "seed-demo"
# Where a browser would be sent back to. Nobody goes there: the code is read from the redirect.
SANDBOX_CLIENT = "http://127.0.0.1"


class Command(BaseCommand):
    help = "Make the sandbox's demo people: logins, patients, links with tokens, and deliveries for their history."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--people", type=int, default=20, help="user_1 to user_<people> (20)")
        parser.add_argument("--days", type=int, default=30, help="days of history to ask the vendors for (30)")

    def handle(self, *_: Any, **options: Any) -> None:
        if not settings.SANDBOX:
            raise CommandError("seed_demo makes logins with known names: it runs with AUREN_SANDBOX=1 only.")
        clinician = make_logins()["clinician"]
        make_api_key()
        patients = [make_patient(number, clinician) for number in range(1, options["people"] + 1)]
        with httpx.Client(timeout=settings.VENDOR_TIMEOUT) as http:
            linked = [link for patient in patients for vendor in VENDORS if (link := make_link(http, patient, vendor))]
        for link in linked:
            file_history(link, options["days"])
        self.stdout.write(f"{len(patients)} patients, {len(linked)} of their devices newly linked.")


def make_logins() -> dict[str, User]:
    return {name: make_login(name, *rights) for name, rights in LOGINS.items()}


def make_login(name: str, group: str, is_staff: bool, is_superuser: bool) -> User:
    user, _ = User.objects.get_or_create(username=name, defaults={"is_staff": is_staff, "is_superuser": is_superuser})
    password = os.environ.get(f"DEMO_{name.upper()}_PASSWORD", "")
    if password and not user.check_password(password):  # else everybody would be signed out at each start
        user.set_password(password)
        user.save()
    user.groups.add(Group.objects.get_or_create(name=group)[0])
    return user


def make_api_key() -> None:
    """The key that the load script of the replaced system carries."""
    digest = hashlib.sha256(API_KEY.encode()).digest()
    ApiKey.objects.get_or_create(digest=digest, defaults={"owner": "sandbox", "every_sandbox_user": True})


def make_patient(number: int, clinician: User) -> Patient:
    external_id = f"user_{number}"
    patient, _ = Patient.objects.get_or_create(
        external_id=external_id, defaults={"display_name": display_name(number), "timezone": zone_of(external_id)}
    )
    Assignment.objects.get_or_create(clinician=clinician, patient=patient, until=None)
    return patient


def display_name(number: int) -> str:
    turn, place = divmod(number - 1, len(FIRST_NAMES))
    return f"{FIRST_NAMES[place]} {INITIALS[(place + turn) % len(INITIALS)]}."


def make_link(http: httpx.Client, patient: Patient, vendor: str) -> Link | None:
    """The patient's link at `vendor`, granted by the sandbox; None if there is one that it granted before."""
    token_url = setting(vendor, "TOKEN_URL")
    link, _ = Link.objects.get_or_create(
        vendor=vendor, vendor_user_id=patient.external_id, defaults={"patient": patient}
    )
    if Token.objects.filter(link=link, issued_by=token_url).exists():
        return None
    redirect_uri = f"{SANDBOX_CLIENT}/connect/{vendor}/callback"
    granted = trade(http, vendor, consent(http, vendor, patient.external_id, redirect_uri), redirect_uri)
    store_grant(
        link,
        access_token=granted["access_token"],
        refresh_token=granted["refresh_token"],
        expires_in=granted["expires_in"],
        issued_by=token_url,
        scopes=granted["scope"],
    )
    return link


def consent(http: httpx.Client, vendor: str, user_id: str, redirect_uri: str) -> str:
    """The authorization code that the sandbox sends back when its user says yes to every scope."""
    query = {
        "response_type": "code",
        "client_id": setting(vendor, "CLIENT_ID"),
        "redirect_uri": redirect_uri,
        "state": OAUTH_STATE,
        "login_hint": user_id,
        "auto": "1",
    }
    reply = http.get(setting(vendor, "AUTHORIZE_URL"), params=query)
    location: str = reply.headers.get("location", "")
    code = parse_qs(urlsplit(location).query).get("code")
    if not code:
        raise CommandError(f"{vendor}'s sandbox gave no code for {user_id}: {reply.status_code} {reply.text[:200]}")
    return code[0]


def trade(http: httpx.Client, vendor: str, code: str, redirect_uri: str) -> dict[str, Any]:
    """The token reply for an authorization code (RFC 6749, 4.1.3)."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "client_id": setting(vendor, "CLIENT_ID"),
        "client_secret": setting(vendor, "CLIENT_SECRET"),
    }
    reply = http.post(setting(vendor, "TOKEN_URL"), data=form)
    if reply.status_code != httpx.codes.OK:
        raise CommandError(f"{vendor}'s sandbox gave no token: {reply.status_code} {reply.text[:200]}")
    granted: dict[str, Any] = reply.json()
    return granted


def setting(vendor: str, name: str) -> str:
    value: str = getattr(settings, f"{vendor.upper()}_{name}")
    return value


def file_history(link: Link, days: int) -> None:
    """One delivery a list page, as for any new link. `webhooks` stands above `devices`: asked for here alone."""
    from webhooks.backfill import file_backfill  # noqa: PLC0415 - see above

    file_backfill(link, days=days)
