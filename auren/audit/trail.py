"""Writing to the audit log: `record` with a change, in its transaction; `note` for what the answer to a look shows."""

import getpass
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from typing import Any, Literal, Self

from django.conf import settings
from django.db.models import Model, Q
from django.db.models.functions import Now
from django.http import HttpRequest

from auren.audit.models import Entry, Verb

MOST_DETAIL = 200
MOST_PATIENTS = 1_000  # of one row; a list shows fewer
SAME_LOOK = timedelta(minutes=5)  # in which a page that asks for its data again and again is one look

Result = Literal["done", "refused"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a user by session or token, whoever types a command, or nobody whose name is known."""

    via: str = "nobody"
    username: str = ""
    user_id: int | None = None
    token_id: int | None = None
    address: str | None = None

    @classmethod
    def of(cls, request: Any) -> Self:
        """Of Django's request or REST framework's, which leaves the user and the token on Django's; or an actor."""
        if isinstance(request, cls):
            return request
        asked = plain(request)
        user, token = asked.user, getattr(asked, "auth", None)
        if not user.is_authenticated:
            return cls(address=address_of(asked))
        via = "session" if token is None else "token"
        return cls(via, user.get_username(), user.pk, getattr(token, "pk", None), address_of(asked))

    @classmethod
    def at_a_shell(cls, name: str = "") -> Self:
        return cls("command", name or shell_user())


@dataclass(slots=True)
class Noted:
    """What a look turned out to be about."""

    rows: list[Model] = field(default_factory=list)
    patients: set[int] = field(default_factory=set)
    detail: str = ""


def record(
    who: Any,
    verb: Verb,
    *things: Model,
    patients: Iterable[int] = (),
    detail: str = "",
    result: Result = "done",
    account: str = "",
) -> None:
    """One row for each of `things`, or one about none. `who` is a request or an `Actor`.

    Call it in the transaction of the change. `detail` is words of ours and names of fields, nothing that was typed.
    """
    actor = Actor.of(who)
    known = sorted(set(patients))[:MOST_PATIENTS]
    rows = [
        Entry(
            user_id=actor.user_id,
            username=actor.username,
            via=actor.via,
            token_id=actor.token_id,
            address=actor.address,
            verb=verb,
            model=thing._meta.label_lower if thing is not None else "",
            object_id=str(thing.pk) if thing is not None else "",
            patient_ids=known or (patients_of(thing) if thing is not None else []),
            detail=detail[:MOST_DETAIL],
            result=result,
            account=account,
        )
        for thing in things or (None,)
    ]
    if len(rows) == 1:
        rows[0].save(force_insert=True)  # one statement; bulk_create would put a transaction around it
    else:
        Entry.objects.bulk_create(rows)


def record_unless_repeated(
    who: Any, verb: Verb, *things: Model, patients: Iterable[int], detail: str, result: Result
) -> None:
    """For data that an open page asks for again and again: one row in five minutes says it all."""
    actor, known = Actor.of(who), sorted(set(patients))[:MOST_PATIENTS]
    same = Entry.objects.filter(
        _about(things[0] if things else None),
        at__gt=Now() - SAME_LOOK,
        user_id=actor.user_id,
        via=actor.via,
        token_id=actor.token_id,
        address=actor.address,
        verb=verb,
        patient_ids=known,
        detail=detail,
        result=result,
    )
    if not same.exists():
        record(actor, verb, *things[:1], patients=known, detail=detail, result=result)


def _about(thing: Model | None) -> Q:
    if thing is None:
        return Q(model="")
    return Q(model=thing._meta.label_lower, object_id=str(thing.pk))


def note(request: Any, *rows: Model, patients: Iterable[int] = (), detail: str = "") -> None:
    """What the answer is about to show, for the row that is written before it is sent."""
    noted = noted_of(request)
    noted.rows += rows
    noted.patients |= set(patients)
    noted.detail = detail or noted.detail


def noted_of(request: Any) -> Noted:
    asked = plain(request)
    if not hasattr(asked, "noted"):
        asked.noted = Noted()  # type: ignore[attr-defined]
    noted: Noted = asked.noted  # type: ignore[attr-defined]
    return noted


def patients_of(row: Any) -> list[int]:
    """The numbers of the patients that a row of any table is about."""
    if row._meta.label_lower == "devices.patient":
        return [row.pk]
    if row._meta.label_lower == "devices.apikey":
        return sorted(row.patients.values_list("pk", flat=True)[:MOST_PATIENTS]) if row.pk else []
    direct = getattr(row, "patient_id", None)
    if direct is None and getattr(row, "link_id", None):
        direct = getattr(getattr(row, "link", None), "patient_id", None)
    return [direct] if direct is not None else []


def plain(request: Any) -> HttpRequest:
    """Django's request, also where REST framework has wrapped it."""
    asked: HttpRequest = getattr(request, "_request", request)
    return asked


def address_of(request: HttpRequest) -> str | None:
    """Where a request came from; behind a proxy, whom the proxy itself saw. None for what is no address."""
    seen = request.META.get("REMOTE_ADDR", "")
    if settings.SECURE_PROXY_SSL_HEADER:
        seen = request.META.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip() or seen
    try:
        return str(ip_address(seen))
    except ValueError:
        return None


def shell_user() -> str:
    """In a container the user may have no name."""
    try:
        return f"{getpass.getuser()} at a shell"
    except (KeyError, OSError):
        return "somebody at a shell"
