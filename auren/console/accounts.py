"""One's own account: the password, the second factor, the recovery codes."""

from typing import Any, cast

import django_otp
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from auren.audit.models import Verb
from auren.audit.trail import record
from auren.console import second_factor
from auren.console.second_factor import factor_of
from auren.console.signing_in import chosen, home_of, offer, shown_once, try_code
from auren.console.views import private


@require_safe
@private
@login_required
def account(request: HttpRequest) -> HttpResponse:
    return render(request, "console/account.html", _about(cast("User", request.user)))


def _about(user: User) -> dict[str, Any]:
    return {
        "factor": factor_of(user),
        "codes_left": user.recovery_codes.filter(used_at=None).count(),
        "home": home_of(user),
    }


@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
@private
@csrf_protect
@login_required
def password(request: HttpRequest) -> HttpResponse:
    """A new one ends every other session."""
    form = PasswordChangeForm(cast("User", request.user), request.POST or None)
    if not form.is_valid():
        return render(request, "console/password.html", {"form": form}, status=400 if form.is_bound else 200)
    with transaction.atomic():
        user = form.save()
        record(request, Verb.PASSWORD, user)
    update_session_auth_hash(request, user)
    return redirect(reverse("account") + "?changed")


@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
@private
@csrf_protect
@login_required
def replace(request: HttpRequest) -> HttpResponse:
    """Set a factor up, or another one in its place: then the present one has to agree, or a recovery code."""
    user = cast("User", request.user)
    has_one = factor_of(user) is not None
    if request.method != "POST":
        return offer(request, user, "", again=has_one, signed_in=True)
    wrong = try_code(request, user, request.POST.get("present", "")[:100]) if has_one else _wrong_password(request)
    made, wrong = (None, wrong) if wrong else chosen(request, user, again=has_one)
    if made is None:
        return offer(request, user, wrong, again=has_one, signed_in=True)
    request.session.cycle_key()
    django_otp.login(request, made[0])
    return shown_once(request, made[1], reverse("account"))


def _wrong_password(request: HttpRequest) -> str:
    right = cast("User", request.user).check_password(request.POST.get("password", ""))
    return "" if right else "That is not your password."


@sensitive_post_parameters()
@require_POST
@private
@csrf_protect
@login_required
def recovery_codes(request: HttpRequest) -> HttpResponse:
    user = cast("User", request.user)
    wrong = try_code(request, user, request.POST.get("code", "")[:100])
    if wrong:
        return render(request, "console/account.html", {**_about(user), "wrong": wrong}, status=400)
    with transaction.atomic():
        codes = second_factor.new_recovery_codes(user)
        record(request, Verb.RECOVERY_CODES, user)
    return shown_once(request, codes, reverse("account"))
