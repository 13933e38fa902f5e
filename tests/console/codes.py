"""What a person does at the sign-in, without a browser: the key is read off the page, codes are real ones."""

import base64
import re
from html import unescape
from time import time
from typing import Any

from django.contrib.auth.models import User
from django.test import Client
from django_otp.oath import TOTP

from auren.console import second_factor

PASSWORD = "a-long-enough-password"
KEY = re.compile(r'<code class="key">([A-Z2-7 ]+)</code>')
RECOVERY = re.compile(r"<code>([a-z2-7]{4}(?:-[a-z2-7]{4}){3})</code>")


def code_of(key: str, steps: int = 0) -> str:
    """What an authenticator app shows for `key` now, or some steps of 30 s from now."""
    totp = TOTP(base64.b32decode(key.replace(" ", "")))
    totp.time = time() + 30 * steps
    return f"{totp.token():06d}"


def give_password(client: Client, name: str, password: str = PASSWORD, **more: str) -> Any:
    return client.post("/sign-in/", {"username": name, "password": password, **more})


def key_on(page: Any) -> str:
    (key,) = KEY.findall(unescape(page.content.decode()))
    return str(key)


def codes_on(page: Any) -> list[str]:
    return RECOVERY.findall(page.content.decode())


def with_factor(user: User) -> tuple[str, list[str]]:
    """Somebody who has set a second factor up long ago: the key and the recovery codes."""
    key = second_factor.new_key()
    made = second_factor.set_up(user, key, 0, again=False)
    assert made
    return key, made[1]
