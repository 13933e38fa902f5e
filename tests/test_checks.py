import os
import subprocess
import sys
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pytest_django import Settings

from auren.checks import check_settings
from auren.embedded.server import BASE_DIR
from tests.webhooks.entry import in_sandbox, opened

# Setting, name of its environment variable, and whether it holds two secrets.
SECRETS = [
    ("SECRET_KEY", "SECRET_KEY", False),
    ("OURA_CLIENT_SECRETS", "OURA_CLIENT_SECRET", True),
    ("WHOOP_CLIENT_SECRETS", "WHOOP_CLIENT_SECRET", True),
    ("OURA_VERIFICATION_TOKEN", "OURA_VERIFICATION_TOKEN", False),
]
WEAK = [
    "short",
    "a" * 64,
    "abab" * 16,
    "change-me",
    "changeme",
    "Change-Me-before-you-start-this-in-production",
    "password",
]
GOOD = "nQ4vT8xZ2kR6mW9pL3sF7hJ1cV5bY0gD"
EVERY_SECRET = pytest.mark.parametrize(("setting", "name", "several"), SECRETS, ids=[name for _, name, _ in SECRETS])


@pytest.fixture(autouse=True)
def outside_the_sandbox(settings: Settings) -> None:
    in_sandbox(settings, on=False)


def found() -> list[str]:
    """What is wrong, each with what to do about it."""
    errors = check_settings()
    assert all(error.hint for error in errors)
    return [f"{error.id}: {error.msg}" for error in errors]


def test_settings_that_are_right_start() -> None:
    assert found() == []


@pytest.mark.parametrize(("setting", "name", "several"), SECRETS[1:])
def test_a_secret_that_is_missing_is_named(settings: Settings, setting: str, name: str, several: bool) -> None:
    nothing: list[Any] = [(), ("",)] if several else [""]
    for none in nothing:
        setattr(settings, setting, none)
        assert found() == [f"auren.E002: {name} is not set."]


@EVERY_SECRET
@pytest.mark.parametrize("weak", WEAK)
def test_a_secret_that_is_weak_is_named_and_not_shown(
    settings: Settings, setting: str, name: str, several: bool, weak: str
) -> None:
    setattr(settings, setting, (weak,) if several else weak)
    [error] = found()
    assert error.startswith(f"auren.E003: {name} is too weak")
    assert weak not in error


@pytest.mark.parametrize("setting", ["OURA_CLIENT_SECRETS", "WHOOP_CLIENT_SECRETS"])
def test_while_a_secret_rotates_both_must_be_good(settings: Settings, setting: str) -> None:
    for pair in ((GOOD, "short"), ("short", GOOD), (GOOD, "")):
        setattr(settings, setting, pair)
        assert len(found()) == 1
    setattr(settings, setting, (GOOD, GOOD[::-1]))
    assert found() == []


def test_the_secret_key_that_stands_in_for_a_missing_one_does_not_start(settings: Settings) -> None:
    settings.SECRET_KEY = "django-insecure-only-good-enough-to-print-help"
    assert len(found()) == 1


def test_without_token_keys_it_does_not_start(settings: Settings) -> None:
    settings.TOKEN_KEYS = ()
    assert found() == ["auren.E004: TOKEN_KEYS is not set."]


@pytest.mark.parametrize("wrong", ["", "not-a-key", "\u00e4" * 44, "A" * 42])
def test_a_token_key_that_is_none_is_named_by_its_place(settings: Settings, wrong: str) -> None:
    settings.TOKEN_KEYS = (Fernet.generate_key().decode(), wrong)
    assert found() == ["auren.E005: TOKEN_KEYS: key 2 is no Fernet key."]


def test_everything_wrong_is_said_at_once(settings: Settings) -> None:
    settings.SECRET_KEY, settings.TOKEN_KEYS, settings.WHOOP_CLIENT_SECRETS = "short", (), ()
    assert len(found()) == 3


@pytest.mark.parametrize("host", ["bridge.example.org", "*", ".localhost.example.org", "0.0.0.0", "192.168.0.7", ""])
def test_the_sandbox_is_for_this_machine_only(settings: Settings, host: str) -> None:
    in_sandbox(settings)
    settings.ALLOWED_HOSTS = ["localhost", host]
    [error] = found()
    assert error.startswith("auren.E001: AUREN_SANDBOX=1 takes unsigned webhooks")


@pytest.mark.parametrize("hosts", [["localhost"], ["127.0.0.1", "[::1]", "::1"], []])
def test_the_sandbox_starts_under_loopback_names_without_any_secret(settings: Settings, hosts: list[str]) -> None:
    in_sandbox(settings)
    settings.ALLOWED_HOSTS = hosts
    settings.OURA_CLIENT_SECRETS = settings.WHOOP_CLIENT_SECRETS = settings.TOKEN_KEYS = ()
    assert found() == []


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("WHOOP_CLIENT_SECRETS", (), "WHOOP_CLIENT_SECRET is not set"),
        ("SANDBOX", True, "ALLOWED_HOSTS names bridge.example.org"),
    ],
)
async def test_a_web_process_with_wrong_settings_does_not_start(
    settings: Settings, setting: str, value: object, said: str
) -> None:
    settings.ALLOWED_HOSTS = ["bridge.example.org"]
    setattr(settings, setting, value)
    with pytest.raises(RuntimeError, match=said):
        async with opened():
            pass


def test_no_command_starts_with_wrong_settings() -> None:
    ended = subprocess.run(
        [sys.executable, "manage.py", "process_deliveries"],
        cwd=BASE_DIR,
        check=False,
        env=os.environ | {"AUREN_SANDBOX": "1", "ALLOWED_HOSTS": "bridge.example.org"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode != 0
    assert "AUREN_SANDBOX=1 takes unsigned webhooks, but ALLOWED_HOSTS names bridge.example.org" in ended.stderr
