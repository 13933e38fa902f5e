"""How long ago something was, as a person says it."""

from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.timesince import timesince


def ago(at: datetime) -> str:
    """`3 hours ago`; under a minute, and for clocks that run ahead, `just now`."""
    if timezone.now() - at < timedelta(minutes=1):
        return "just now"
    return f"{timesince(at, depth=1)} ago"
