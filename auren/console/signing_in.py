"""Signing in: a password, then a code; the first time outside the sandbox, setting the second factor up.

Between the two steps a session knows who gave the right password, for ten minutes, and is still nobody's. Everybody,
in the console and in the admin, comes through here.
"""

import time
from typing import Any

import django_otp
from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, LogoutView
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.crypto import constant_time_compare
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from auren.audit.models import Verb
from auren.audit.trail import Actor, address_of, record, record_unless_repeated
from auren.console import second_factor
from auren.console.second_factor import SecondFactor, factor_of
from auren.console.throttle import account_of, wait_of
from auren.console.views import private
from devices.tokens import TokenUnreadable, seal, unseal

PENDING = "signing_in"
NEW_KEY = "second_factor_key"
PENDING_SECONDS = 600
WRONG = "That name and password do not match an account that may sign in."
WRONG_CODE = "That code is wrong, or was used before. Wait for the next one and type that."
ENDED = {
    "idle": f"You were signed out after {settings.SESSION_IDLE_MINUTES} minutes without use.",
    "long": f"You were signed out after {settings.SESSION_HOURS:g} hours. Sign in again to go on.",
    "code": "Sign in again: a code is asked for besides the password now.",
}


class SignIn(LoginView):
    template_name = "console/sign_in.html"
    redirect_authenticated_user = True

    def get_default_redirect_url(self) -> str:
        return home_of(self.request.user)

    def get_redirect_url(self, request: HttpRequest | None = None) -> str:
        return next_of(request or self.request)

    def get_context_data(self, **about: Any) -> dict[str, Any]:
        ended = ENDED.get(self.request.session.pop("ended", ""), "")
        return {**super().get_context_data(**about), "ended": ended}

    def post(self, request: HttpRequest, *_: Any, **__: Any) -> HttpResponse:
        """The check and what it leaves in the audit log are one transaction, and one at a time for an account."""
        account, where = account_of(request.POST.get("username", "")), address_of(request)
        with transaction.atomic():
            wait = wait_of(account, where)
            if not wait:
                form = self.get_form()
                if form.is_valid():
                    return self.go_on(form.get_user())
                note_failure(request, account)
                wait = wait_of(account, where)
            else:
                record_unless_repeated(
                    request, Verb.LOCKED_OUT, *_known(request), patients=(), detail="", result="refused"
                )
        return self.refuse(wait)

    def go_on(self, user: User) -> HttpResponse:
        request, address = self.request, next_of(self.request)
        if not second_factor.is_required(user):
            enter(request, user, None)
            return HttpResponseRedirect(address or home_of(user))
        request.session.flush()
        request.session[PENDING] = {
            "user": user.pk,
            "hash": user.get_session_auth_hash(),
            "until": time.time() + PENDING_SECONDS,
            "next": address,
        }
        return redirect("code" if factor_of(user) else "set_up")

    def refuse(self, wait: int) -> HttpResponse:
        if not wait:
            return self.render_to_response(self.get_context_data(wrong=WRONG))
        answer = self.render_to_response(self.get_context_data(wrong=wait_in_words("passwords", wait)), status=429)
        answer.headers["Retry-After"] = str(wait)
        return answer


class SignOut(LogoutView):
    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with transaction.atomic():
            if request.user.is_authenticated:
                record(request, Verb.SIGN_OUT)
            return super().post(request, *args, **kwargs)


@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
@private
@csrf_protect
def code(request: HttpRequest) -> HttpResponse:
    """The second step of whoever has a second factor."""
    user = pending(request)
    if user is None or factor_of(user) is None:
        return redirect("login")
    wrong = ""
    if request.method == "POST":
        wrong = try_code(request, user, request.POST.get("code", "")[:100])
        if not wrong:
            return finish(request, user, factor_of(user))
    return render(request, "console/code.html", {"wrong": wrong}, status=400 if wrong else 200)


def try_code(request: HttpRequest, user: User, text: str) -> str:
    """What was wrong with it, nothing if it was right."""
    with transaction.atomic():
        proof = second_factor.prove(user, text)
        who = named(request, user)
        if proof.wait:
            record_unless_repeated(who, Verb.LOCKED_OUT, user, patients=(), detail="codes", result="refused")
            return wait_in_words("codes", proof.wait)
        if not proof.good:
            record(who, Verb.CODE_FAILED, user, result="refused")
            return WRONG_CODE
        if proof.recovery:
            record(who, Verb.RECOVERY_CODE, user)
    return ""


@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
@private
@csrf_protect
def set_up(request: HttpRequest) -> HttpResponse:
    """The second step of whoever has no second factor yet, where one is required."""
    user = pending(request)
    if user is None or factor_of(user) is not None:
        return redirect("login")
    made, wrong = chosen(request, user) if request.method == "POST" else (None, "")
    if made is None:
        return offer(request, user, wrong)
    factor, codes = made
    address = finish(request, user, factor).url
    return shown_once(request, codes, address)


def chosen(
    request: HttpRequest, user: User, *, again: bool = False
) -> tuple[tuple[SecondFactor, list[str]] | None, str]:
    """The factor and its recovery codes, where the posted code is one of the key that was shown; else what is wrong."""
    key = key_shown(request)
    step = second_factor.matching_step(key, "".join(request.POST.get("code", "")[:100].split())) if key else None
    if step is None:
        return None, "That code does not belong to this key. Type the one that the app shows now."
    with transaction.atomic():
        made = second_factor.set_up(user, key, step, again=again)
        if made is None:
            return None, "A second factor was set up for you a moment ago: sign in again."
        record(named(request, user), Verb.SECOND_FACTOR, user)
    del request.session[NEW_KEY]
    return made, ""


def offer(request: HttpRequest, user: User, wrong: str, **about: Any) -> HttpResponse:
    """The key as a picture and as text; the same one until it is taken or the session ends."""
    key = key_shown(request) or second_factor.new_key()
    request.session[NEW_KEY] = seal(key)
    context = {
        "picture": second_factor.picture_of(second_factor.address_of(user, key)),
        "key": " ".join(key[place : place + 4] for place in range(0, len(key), 4)),
        "wrong": wrong,
        **about,
    }
    return render(request, "console/set_up.html", context, status=400 if wrong else 200)


def key_shown(request: HttpRequest) -> str:
    try:
        return unseal(request.session.get(NEW_KEY, ""))
    except TokenUnreadable:
        return ""


def shown_once(request: HttpRequest, codes: list[str], address: str) -> HttpResponse:
    """The answer to a POST, so nothing keeps it."""
    return render(request, "console/recovery_codes.html", {"codes": codes, "address": address})


def pending(request: HttpRequest) -> User | None:
    """Who gave the right password in this session a moment ago, while it still is their password."""
    known = request.session.get(PENDING, {})
    user = User.objects.filter(pk=known.get("user"), is_active=True).first()
    if user is None or known["until"] < time.time():
        return None
    return user if constant_time_compare(known["hash"], user.get_session_auth_hash()) else None


def finish(request: HttpRequest, user: User, factor: SecondFactor | None) -> HttpResponseRedirect:
    address = request.session.get(PENDING, {}).get("next", "")
    enter(request, user, factor)
    return HttpResponseRedirect(address or home_of(user))


def enter(request: HttpRequest, user: User, factor: SecondFactor | None) -> None:
    """Begin a session of `user`, under a key of its own."""
    request.session.flush()
    with transaction.atomic():
        login(request, user, "django.contrib.auth.backends.ModelBackend")
        if factor is not None:
            django_otp.login(request, factor)
        request.session["began_at"] = request.session["used_at"] = time.time()
        how = "with a second factor" if factor else "with a password alone"
        record(named(request, user), Verb.SIGN_IN, user, detail=how, account=account_of(user.get_username()))


def note_failure(request: HttpRequest, account: str) -> None:
    """The name as it was typed is not kept: it may be a password in the wrong box."""
    record(request, Verb.SIGN_IN_FAILED, *_known(request), result="refused", account=account)


def _known(request: HttpRequest) -> list[User]:
    name = request.POST.get("username", "").strip()
    return list(User.objects.filter(username=name)) if "\0" not in name else []


def named(request: HttpRequest, user: User) -> Actor:
    """For what is done on the way in, when the session is nobody's yet."""
    return Actor("session", user.get_username(), user.pk, None, address_of(request))


def next_of(request: HttpRequest) -> str:
    """Where they wanted to go, if it is a page of ours and says more than "in"."""
    address = request.POST.get("next", request.GET.get("next", ""))
    safe = url_has_allowed_host_and_scheme(address, {request.get_host()}, require_https=request.is_secure())
    return address if safe and address != reverse("patients") else ""


def home_of(user: Any) -> str:
    return reverse("admin:index" if user.is_staff else "patients")


def wait_in_words(of: str, seconds: int) -> str:
    minutes = -(-seconds // 60)
    wait = f"{seconds} second{'s' * (seconds != 1)}" if seconds < 60 else f"{minutes} minute{'s' * (minutes != 1)}"
    return f"Too many wrong {of}. Wait {wait} and try again, or ask support to unlock the account."
