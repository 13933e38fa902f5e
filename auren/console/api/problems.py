"""Errors as RFC 9457 `application/problem+json`, all of them, whoever raised them. docs/problems.md explains each."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponseBase, JsonResponse
from django.views import defaults
from rest_framework import exceptions
from rest_framework.response import Response

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
BROKEN = "Something broke on our side, and it is in our log. The same request may work later."
AWAY_SECONDS = 5  # until a caller may ask again after PostgreSQL was away

# Each slug: the status it comes with, and its title.
PROBLEMS: dict[str, tuple[int, str]] = {
    "bad-query": (400, "The address cannot be understood"),
    "bad-range": (400, "The range cannot be answered"),
    "bad-cursor": (400, "The cursor is not one of this list"),
    "bad-body": (400, "The body cannot be understood"),
    "bad-request": (400, "The request cannot be understood"),
    "unauthorised": (401, "Show who you are"),
    "forbidden": (403, "Not allowed"),
    "csrf": (403, "The CSRF token is missing or wrong"),
    "not-found": (404, "Not found"),
    "wrong-method": (405, "Method not allowed"),
    "not-acceptable": (406, "Only JSON is sent"),
    "not-possible": (409, "Not possible as things stand"),
    "changed": (412, "Changed since it was read"),
    "too-large": (413, "Content too large"),
    "wrong-type": (415, "Unsupported media type"),
    "throttled": (429, "Too many requests"),
    "internal": (500, "Our fault"),
    "unavailable": (503, "Service unavailable"),
}


class Problem(exceptions.APIException):
    """Raised by our own code. `errors` names what was wrong where: `(name, what)` each."""

    def __init__(self, slug: str, detail: str, errors: Iterable[tuple[str, str]] = (), **headers: str) -> None:
        super().__init__(detail)
        self.slug = slug
        self.status_code = PROBLEMS[slug][0]
        self.text = detail
        self.errors = list(errors)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def content(slug: str, detail: str, errors: Iterable[tuple[str, str]] = ()) -> dict[str, Any]:
    status, title = PROBLEMS[slug]
    body: dict[str, Any] = {
        "type": f"urn:auren:problem:{slug}",
        "title": title,
        "status": status,
        "detail": detail,
    }
    named = [{"name": name, "detail": what} for name, what in errors]
    return body | {"errors": named} if named else body


def answer(error: Exception, context: Mapping[str, Any]) -> Response:
    """DRF's exception handler."""
    problem = problem_of(error)
    if problem.slug == "internal":
        logger.error("%s failed", context["request"].path, exc_info=error)
    return Response(
        content(problem.slug, problem.text, problem.errors),
        status=problem.status_code,
        headers=problem.headers,
        content_type=CONTENT_TYPE,
    )


def problem_of(error: Exception) -> Problem:
    """What to tell the caller about `error`."""
    match error:
        case Problem():
            return error
        case exceptions.APIException():
            return _of_rest_framework(error)
        case Http404():
            return Problem("not-found", "There is no such thing here, or you may not see it.")
        case PermissionDenied():
            return Problem("forbidden", "Your account may not do this.")
        case RequestDataTooBig():
            return Problem("too-large", "The body is too large.")
        case SuspiciousOperation():
            return Problem("bad-request", "The request cannot be understood.")
        case OperationalError() | InterfaceError():
            return Problem("unavailable", "The database is away. Try again in a moment.", Retry_After=str(AWAY_SECONDS))
    return Problem("internal", BROKEN)


def _of_rest_framework(error: exceptions.APIException) -> Problem:
    match error:
        case exceptions.AuthenticationFailed() | exceptions.NotAuthenticated():
            return Problem("unauthorised", str(error.detail), WWW_Authenticate=str(getattr(error, "auth_header", "")))
        case exceptions.PermissionDenied():
            return _of_refusal(str(error.detail))
        case exceptions.NotFound():
            return Problem("not-found", "There is no such thing here, or you may not see it.")
        case exceptions.MethodNotAllowed():
            return Problem("wrong-method", "This address does not know the method. Use one that `Allow` names.")
        case exceptions.NotAcceptable():
            return Problem("not-acceptable", "Ask for it with `Accept: application/json`.")
        case exceptions.UnsupportedMediaType():
            return Problem("wrong-type", "Send the body as `Content-Type: application/json`.")
        case exceptions.Throttled():
            wait = max(1, int(getattr(error, "wait", None) or 1))
            return Problem("throttled", f"Too many requests. Ask again in {wait} s.", Retry_After=str(wait))
        case exceptions.ParseError():
            return Problem("bad-body", str(error.detail))
    return Problem("internal", BROKEN)


def _of_refusal(detail: str) -> Problem:
    """DRF tells of a failed CSRF check by its text alone."""
    if detail.startswith("CSRF Failed"):
        return Problem(
            "csrf", "With a session, send its CSRF token in `X-CSRFToken`. Programs use a token and need none."
        )
    return Problem("forbidden", "Your account may not do this.")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Django's handler400: what failed before any view was found."""
    if request.path.startswith("/api/"):
        return _bare("bad-request", "The request cannot be understood.")
    return defaults.bad_request(request, exception)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Django's handler500: what broke outside the views."""
    if request.path.startswith("/api/"):
        return _bare("internal", BROKEN)
    return defaults.server_error(request)


def _bare(slug: str, detail: str) -> JsonResponse:
    return JsonResponse(content(slug, detail), status=PROBLEMS[slug][0], content_type=CONTENT_TYPE)
