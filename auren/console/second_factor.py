"""The second factor: an authenticator app's codes (TOTP, RFC 6238), and recovery codes for when the phone is lost."""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterator
from datetime import datetime
from math import ceil
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import segno
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, User
from django.db import models, transaction
from django.db.models.functions import Now
from django.utils import timezone
from django_otp.models import Device, ThrottlingMixin
from django_otp.oath import TOTP

from devices.tokens import TokenUnreadable, seal, unseal

ISSUER = "AUREN"
KEY_BYTES = 20  # as RFC 4226, 4 recommends
STEPS_AROUND = 1  # of 30 s that a phone's clock may be off
RECOVERY_CODES = 10
DIGITS = re.compile(r"[0-9]{6}")


class SecondFactor(ThrottlingMixin, Device):  # type: ignore[misc]  # django-otp has no types
    """One a person. The key is sealed like vendors' tokens; `last_step` is that of the last code, which is good once.

    After n wrong codes in a row the next one has to wait 2^(n-1) seconds.
    """

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, related_name="second_factor")
    key = models.TextField()
    last_step = models.BigIntegerField(default=-1)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        default_permissions = ()
        permissions = [
            ("reset_second_factor", "Can reset another's second factor"),
            ("unlock_account", "Can unlock an account after wrong passwords or codes"),
        ]

    def get_throttle_factor(self) -> float:
        return 1.0

    def verify_token(self, token: str) -> bool:
        """Call it with the row locked: what was accepted once is not accepted again."""
        found = matching_step(unseal(self.key), token, self.last_step + 1)
        if found is not None:
            self.last_step = found
        return found is not None


class RecoveryCode(models.Model):
    """80 random bits that are good once. Only the SHA-256 is stored."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="recovery_codes")
    digest = models.BinaryField(max_length=32)
    used_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["user", "digest"], name="recovery_code_of_user")]

    def __str__(self) -> str:
        return f"recovery code {self.pk}"


class Proof(NamedTuple):
    """Whether a code was right; `wait` seconds until one is looked at again; `recovery` where it was such a code."""

    good: bool
    wait: int = 0
    recovery: bool = False


def factor_of(user: AbstractBaseUser) -> SecondFactor | None:
    found: SecondFactor | None = SecondFactor.objects.filter(user_id=user.pk, confirmed=True).first()
    return found


def is_required(user: AbstractBaseUser) -> bool:
    """Outside the sandbox of everybody; in it of whoever has set one up."""
    return not settings.SANDBOX or factor_of(user) is not None


def prove(user: AbstractBaseUser, text: str) -> Proof:
    """Try a code of the app, or a recovery code, which is spent by it."""
    with transaction.atomic():
        factor = SecondFactor.objects.select_for_update().filter(user_id=user.pk, confirmed=True).first()
        if factor is None:
            return Proof(good=False)
        allowed, why = factor.verify_is_allowed()
        if not allowed:
            return Proof(good=False, wait=_seconds_until(why["locked_until"]))
        code = "".join(text.split()).replace("-", "").lower()
        recovery = DIGITS.fullmatch(code) is None
        good = _spend(user, code) if recovery else _fits(factor, code)
        factor.throttle_reset(commit=False) if good else factor.throttle_increment(commit=False)
        factor.save()
        return Proof(good, recovery=recovery)


def _fits(factor: SecondFactor, code: str) -> bool:
    try:
        return factor.verify_token(code)
    except TokenUnreadable:  # its key has left TOKEN_KEYS: a recovery code still helps, or a reset
        return False


def _spend(user: AbstractBaseUser, code: str) -> bool:
    unused = RecoveryCode.objects.filter(user_id=user.pk, digest=_digest(code), used_at=None)
    return unused.update(used_at=Now()) == 1


def _seconds_until(at: datetime) -> int:
    return max(1, ceil((at - timezone.now()).total_seconds()))


def new_key() -> str:
    """In base32, as apps take it."""
    return base64.b32encode(secrets.token_bytes(KEY_BYTES)).decode()


def matching_step(key: str, token: str, first: int = 0) -> int | None:
    """The step of 30 s whose code `token` is, from `first` on and as far as a clock may be off; None if it is none."""
    totp = TOTP(base64.b32decode(key))
    if DIGITS.fullmatch(token) and totp.verify(int(token), STEPS_AROUND, first):
        step: int = totp.t()
        return step
    return None


def set_up(user: User, key: str, step: int, *, again: bool) -> tuple[SecondFactor, list[str]] | None:
    """A factor, whose code of `step` was shown, and new recovery codes; `again` in place of another one.

    None where somebody else was quicker with a first one.
    """
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user.pk)
        present = SecondFactor.objects.filter(user=user)
        if present.exists() and not again:
            return None
        present.delete()
        factor = SecondFactor.objects.create(user=user, name="authenticator app", key=seal(key), last_step=step)
        return factor, new_recovery_codes(user)


def new_recovery_codes(user: AbstractBaseUser) -> list[str]:
    """In place of any that there are. Their text is seen here alone."""
    codes = list(_codes())
    with transaction.atomic():
        RecoveryCode.objects.filter(user_id=user.pk).delete()
        RecoveryCode.objects.bulk_create(
            RecoveryCode(user_id=user.pk, digest=_digest(code.replace("-", ""))) for code in codes
        )
    return codes


def _codes() -> Iterator[str]:
    for _ in range(RECOVERY_CODES):
        text = base64.b32encode(secrets.token_bytes(10)).decode().lower()
        yield "-".join(text[place : place + 4] for place in range(0, len(text), 4))


def _digest(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).digest()


def reset(user: AbstractBaseUser) -> bool:
    """Whether there was anything to take away. Sessions that were verified with it end with it."""
    RecoveryCode.objects.filter(user_id=user.pk).delete()
    _, removed = SecondFactor.objects.filter(user_id=user.pk).delete()
    return bool(removed)


def relax(user: AbstractBaseUser) -> None:
    """Forget wrong codes, so that the next one is looked at."""
    nothing: dict[str, Any] = {"throttling_failure_count": 0, "throttling_failure_timestamp": None}
    SecondFactor.objects.filter(user_id=user.pk).update(**nothing)


def address_of(user: AbstractBaseUser, key: str) -> str:
    """The `otpauth:` address that apps read from a QR code (Google Authenticator's key URI format)."""
    query = urlencode({"secret": key, "issuer": ISSUER, "digits": 6, "period": 30})
    return f"otpauth://totp/{ISSUER}:{quote(user.get_username())}?{query}"


def picture_of(address: str) -> str:
    """A QR code as a `data:` address of an SVG, black on white, which every camera reads."""
    return segno.make(address, error="m").svg_data_uri(scale=5, border=4, dark="#000", light="#fff")


def seal_anew() -> tuple[int, int]:
    """Every key with the newest of TOKEN_KEYS: how many were, and how many no key opens."""
    sealed, unreadable = 0, 0
    for pk, key in SecondFactor.objects.values_list("pk", "key"):
        try:
            sealed += SecondFactor.objects.filter(pk=pk, key=key).update(key=seal(unseal(key)))
        except TokenUnreadable:
            unreadable += 1
    return sealed, unreadable
