"""How often a password may be tried: counted in the audit log, so it holds without Redis and across all processes.

The name that was typed counts by a keyed digest, whether or not there is such an account: nobody learns which exist.
"""

from datetime import timedelta
from math import ceil

from django.conf import settings
from django.db import connection, models
from django.utils import timezone
from django.utils.crypto import salted_hmac

from auren.audit.models import Entry, Verb

BUSY_SECONDS = 1


def account_of(name: str) -> str:
    text = name.strip().casefold().encode("utf-8", "surrogatepass").hex()
    return salted_hmac("auren.sign-in", text, algorithm="sha256").hexdigest()[:20]


def wait_of(account: str, address: str | None) -> int:
    """Seconds until a password is looked at again, 0 for now. Within a transaction it keeps others of the account out.

    So that many tries at once are not all made before the first failure is written down.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [int(account[:15], 16)])
        if not cursor.fetchone()[0]:
            return BUSY_SECONDS
    return max(_of_account(account), _of_address(address))


def _of_account(account: str) -> int:
    """Failures since the last time that somebody signed in or unlocked it."""
    most, within = rate(settings.SIGN_IN_RATE)
    known = Entry.objects.filter(account=account, at__gt=timezone.now() - within)
    reset = known.filter(verb__in=[Verb.SIGN_IN, Verb.UNLOCK]).order_by("-at").values_list("at", flat=True).first()
    failed = known.filter(verb=Verb.SIGN_IN_FAILED)
    return _wait(failed.filter(at__gt=reset) if reset else failed, most, within)


def _of_address(address: str | None) -> int:
    most, within = rate(settings.SIGN_IN_ADDRESS_RATE)
    failed = Entry.objects.filter(address=address, verb=Verb.SIGN_IN_FAILED, at__gt=timezone.now() - within)
    return _wait(failed, most, within) if address else 0


def _wait(failed: models.QuerySet[Entry], most: int, within: timedelta) -> int:
    """From the last failure on, once there were as many as may be."""
    times = list(failed.order_by("-at").values_list("at", flat=True)[: most or None])
    if not most or len(times) < most:
        return 0
    return max(1, ceil((times[0] + within - timezone.now()).total_seconds()))


def rate(text: str) -> tuple[int, timedelta]:
    """`5/900` is five in a quarter of an hour; `0` is no limit."""
    most, _, seconds = text.partition("/")
    return int(most), timedelta(seconds=int(seconds or 1))
