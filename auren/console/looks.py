"""Every look at what is known of patients, in the audit log before it is answered.

A row is written once the view has made its answer and before a byte of it is sent; where that fails, nothing is sent.
tests/console/test_looks.py holds every route against `LOOKS` and `OTHERS`.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from django.contrib.admin.views.main import ChangeList
from django.db.models import Model
from django.http import HttpRequest, HttpResponseBase
from django.urls import ResolverMatch
from django.utils.deprecation import MiddlewareMixin

from auren.audit.models import Verb
from auren.audit.trail import Noted, Result, noted_of, patients_of, record, record_unless_repeated


class Look(NamedTuple):
    """`what` is seen. With `patient` the address's `pk` is theirs; a `repeated` one is what an open page asks for."""

    what: str
    verb: Verb = Verb.VIEW
    patient: bool = False
    repeated: bool = False


LOOKS = {
    "patients": Look("my patients"),
    "patient": Look("timeline", patient=True),
    "calendar": Look("calendar", patient=True),
    "night": Look("night", patient=True),
    "conflict": Look("conflict", patient=True),
    "timeline": Look("timeline's data", patient=True, repeated=True),
    "live": Look("timeline", Verb.WATCH, patient=True, repeated=True),
    "ask_for_export": Look("exports", patient=True),
    "export": Look("export", repeated=True),
    "export_content": Look("export", Verb.DOWNLOAD),
    "api-patients": Look("patients"),
    "api-patient": Look("patient", patient=True),
    "api-timeline": Look("timeline", patient=True),
    "api-links": Look("links"),
    "api-link": Look("link"),
    "api-sources": Look("sources"),
    "api-source": Look("source"),
    "api-samples": Look("samples"),
    "api-conflicts": Look("conflicts"),
    "api-conflict": Look("conflict"),
    "api-deliveries": Look("deliveries"),
    "api-delivery": Look("delivery"),
    "api-payload": Look("delivery"),
    "api-exports": Look("exports"),
    "api-export": Look("export", repeated=True),
    "api-export-content": Look("export", Verb.DOWNLOAD),
}
# What shows nothing of a patient to anybody who is signed in, or is recorded as the change that it is.
OTHERS = frozenset(
    {
        *("login", "code", "set_up", "logout", "account", "second_factor", "recovery_codes", "password"),
        *("cancel_export", "connect", "connect_callback", "api-override", "api-undo", "api-retry", "api-ignore"),
        *("api-cancel-export", "api-metrics", "api-schema", "api-docs"),
    }
)
OTHERS_IN_ADMIN = frozenset({"index", "login", "logout", "password_change", "password_change_done", "jsi18n"})
REFUSED = range(400, 500)
BROKEN = 500
LARGEST_KEY = 2**63 - 1
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class RecordLooks(MiddlewareMixin):
    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        match = request.resolver_match
        look = look_of(match) if match and request.method in {"GET", "HEAD"} and shows(response) else None
        if look and match and request.user.is_authenticated:
            noted = seen(look, match, noted_of(request), getattr(response, "context_data", None) or {})
            write(request, look, noted, "refused" if response.status_code in REFUSED else "done")
        return response


def look_of(match: ResolverMatch) -> Look | None:
    if "admin" not in match.namespaces:
        return LOOKS.get(match.view_name)
    name = match.url_name or ""
    if name in OTHERS_IN_ADMIN:
        return None
    about = name.replace("_", " ").replace(" changelist", " list").replace(" change", " page")
    verb = Verb.DOWNLOAD if name.endswith("_download") else Verb.VIEW
    return Look(about, verb, repeated=name == "autocomplete")


def seen(look: Look, match: ResolverMatch, noted: Noted, context: dict[str, Any]) -> Noted:
    """What the view noted, with the patient of the address and the rows of the admin's pages."""
    if look.patient:
        noted.patients.add(match.kwargs["pk"])
    noted.rows += shown_by_admin(context)
    noted.patients |= {number for row in noted.rows for number in patients_of(row)}
    noted.patients = {number for number in noted.patients if number <= LARGEST_KEY}
    day = DAY.fullmatch(str(match.kwargs.get("day", "")))
    noted.detail = ": ".join(filter(None, [look.what, day[0] if day else "", noted.detail]))
    return noted


def shown_by_admin(context: dict[str, Any]) -> Iterator[Model]:
    listed, one = context.get("cl"), context.get("original") or context.get("object")
    if isinstance(listed, ChangeList):
        yield from listed.result_list
    if isinstance(one, Model):
        yield one


def write(request: HttpRequest, look: Look, noted: Noted, result: Result) -> None:
    if look.repeated:
        record_unless_repeated(request, look.verb, patients=noted.patients, detail=noted.detail, result=result)
        return
    things: Iterable[Model] = noted.rows if len(noted.rows) == 1 else ()
    record(request, look.verb, *things, patients=noted.patients, detail=noted.detail, result=result)


def shows(response: HttpResponseBase) -> bool:
    """Not so what broke, or has no database to ask: it must say so, and there is nothing to write down."""
    return response.status_code < BROKEN
