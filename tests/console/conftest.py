from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from pytest_django import Settings

from auren.biometrics.models import Source
from auren.console import roles
from devices.models import Assignment, Link, Patient

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def quick_passwords(settings: Settings) -> None:
    """A password's hash is slow on purpose."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    """The landing page's numbers are kept for a few seconds, in the process."""
    cache.clear()


def person(name: str, role: str) -> User:
    user = User.objects.create_user(name, password="a-long-enough-password")
    roles.give(user, role)
    return user


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def clinician(database: str) -> User:
    return person("clara", "clinician")


@pytest.fixture
def clinic(clinician: User) -> Client:
    return signed_in(clinician)


@pytest.fixture
def support(database: str) -> Client:
    return signed_in(person("sam", "support"))


@pytest.fixture
def admin(database: str) -> Client:
    return signed_in(person("ada", "admin"))


@pytest.fixture
def patient(database: str) -> Patient:
    return Patient.objects.create(external_id="user_1", display_name="Ada Nowak", timezone="Europe/Berlin")


@pytest.fixture
def assigned(clinician: User, patient: Patient) -> Assignment:
    return Assignment.objects.create(clinician=clinician, patient=patient, since=NOW - timedelta(days=1))


@pytest.fixture
def link(patient: Patient) -> Link:
    return Link.objects.create(patient=patient, vendor="oura", vendor_user_id="oura-1")


@pytest.fixture
def ring(link: Link) -> Source:
    return Source.objects.create(link_id=link.pk, name="Oura ring", kind="ring")


@pytest.fixture
def watch(patient: Patient) -> Source:
    phone = Link.objects.create(patient=patient, vendor="healthkit", vendor_user_id="user_1")
    return Source.objects.create(link_id=phone.pk, name="Apple Watch", kind="watch")
