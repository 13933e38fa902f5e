"""When a session is nobody's: after too long without use, after too long altogether, and without the second factor."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from django.utils.deprecation import MiddlewareMixin
from django.utils.functional import SimpleLazyObject

from auren.console.second_factor import is_required

NOTED_EVERY = 60  # seconds: a look at data is no reason to write a row each time
QUIET = "X-Auren-Quiet"  # sent by a page that asks by itself: nobody has to be in front of it


class EndedSessions(MiddlewareMixin):
    """After django-otp's middleware. Whatever is asked with such a session is asked by nobody."""

    def process_request(self, request: HttpRequest) -> None:
        user = request.user
        request.user = SimpleLazyObject(lambda: whose(request, user))  # type: ignore[assignment]
        request.auser = whose_later(request)


def whose_later(request: HttpRequest) -> Callable[[], Awaitable[Any]]:
    async def auser() -> Any:
        return await sync_to_async(lambda: request.user if request.user.is_authenticated else AnonymousUser())()

    return auser


def whose(request: HttpRequest, user: Any) -> Any:
    """The user, or nobody; then the session is emptied, and the sign-in page says why."""
    if not user.is_authenticated:
        return user
    why = ending_of(request) or ("" if user.is_verified() or not is_required(user) else "code")
    if not why:
        note_use(request)
        return user
    request.session.flush()
    request.session["ended"] = why
    return AnonymousUser()


def ending_of(request: HttpRequest) -> str:
    """`idle` or `long` for a session that is over, else nothing."""
    now = time.time()
    if now - request.session.get("began_at", now) > settings.SESSION_COOKIE_AGE:
        return "long"
    return "idle" if now - request.session.get("used_at", now) > 60 * settings.SESSION_IDLE_MINUTES else ""


def note_use(request: HttpRequest) -> None:
    now = time.time()
    request.session.setdefault("began_at", now)
    asks_by_itself = QUIET in request.headers or request.headers.get("Accept") == "text/event-stream"
    used_at = request.session.get("used_at", 0.0)
    if now - used_at > NOTED_EVERY and (not used_at or not asks_by_itself):
        request.session["used_at"] = now
