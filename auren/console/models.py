"""What people ask the REST API with."""

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Self

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from auren.console.exports.models import Export, ExportPart
from auren.console.second_factor import RecoveryCode, SecondFactor

__all__ = ["AccessToken", "Export", "ExportPart", "RecoveryCode", "SecondFactor"]

MARK = "auren_"  # lets a scanner of repositories and logs know one when it sees one
NOTED_EVERY = timedelta(minutes=1)


class AccessToken(models.Model):
    """Lets a program act as its user. 256 random bits, of which only the SHA-256 is stored.

    A user may have any number of them, each named for the program that shows it. One that has expired or been revoked
    stays as a record of who had it.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="access_tokens")
    name = models.CharField(max_length=100, help_text="The program that will show it, such as: research export")
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    created_by = models.CharField(max_length=150, editable=False)
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"token {self.pk} of {self.user}"

    @classmethod
    def issue(cls, user: User, name: str, *, by: str, days: int | None = None) -> tuple[Self, str]:
        """A new token, good for `days` (API_TOKEN_DAYS), and its text, which is never seen again."""
        expires_at = timezone.now() + timedelta(days=settings.API_TOKEN_DAYS if days is None else days)
        token = cls(user=user, name=name, created_by=by, expires_at=expires_at)
        token.choose_text()
        token.save()
        return token, token.text

    @classmethod
    def of_text(cls, text: str) -> Self | None:
        """The token a caller showed, while it is good and its user may sign in."""
        good = cls.objects.filter(revoked_at=None, expires_at__gt=timezone.now(), user__is_active=True)
        return good.select_related("user").filter(digest=_digest(text)).first()

    def choose_text(self) -> None:
        """Give an unsaved token its text, which this object alone knows: of it only the digest is stored."""
        self.text = MARK + secrets.token_urlsafe(32)
        self.digest = _digest(self.text)

    def note_use(self) -> None:
        """Once a minute at most: a look at data is no reason to write a row each time."""
        now = timezone.now()
        if self.last_used_at is None or now - self.last_used_at >= NOTED_EVERY:
            earlier = Q(last_used_at=None) | Q(last_used_at__lte=now - NOTED_EVERY)
            AccessToken.objects.filter(earlier, pk=self.pk).update(last_used_at=now)

    @property
    def state(self) -> str:
        """`good`, `revoked` or `expired`."""
        if self.revoked_at:
            return "revoked"
        expires_at: datetime = self.expires_at
        return "good" if expires_at > timezone.now() else "expired"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
