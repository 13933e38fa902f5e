"""The pages on which a patient connects a device. Nobody signs in: whoever holds the invitation is the patient.

The address goes to one person and works once; `state` ties the way back from the vendor to the browser that left.
"""

import hashlib
import hmac
import secrets
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_GET, require_http_methods

from devices import oauth
from devices.models import Consent, Invitation, Link
from devices.oauth import Connected, ConnectFailed, Fault
from devices.signals import link_connected
from devices.tokens import seal, store_grant, unseal
from devices.trouble import (
    DENIED,
    EXPIRED,
    FAULTS,
    NOT_KEPT,
    NOT_KNOWN,
    REVOKED,
    STRAY,
    TAKEN,
    USED,
    VENDOR_REFUSED,
    Trouble,
)
from devices.vendors.client import ApiError
from devices.vendors.oauth import tidy

COOKIE = "auren_connect"
COOKIE_SECONDS = 3600
LONGEST_PARAMETER = 2048

private = cache_control(private=True, no_store=True)


class Taken(Exception):
    """The vendor account is another patient's."""


class Closed(Exception):
    """The invitation was withdrawn meanwhile, or has connected another account."""


@require_http_methods(["GET", "HEAD", "POST"])
@private
def invitation(request: HttpRequest, vendor: str) -> HttpResponse:
    """What an invitation's address shows; a POST goes to the vendor, so that a preview of the link starts nothing."""
    invited = Invitation.of_token(request.GET.get("invitation", ""), vendor)
    if invited is None:
        return trouble(request, vendor, NOT_KNOWN)
    if invited.state != "open":
        return closed(request, invited)
    if not oauth.is_set_up(vendor):
        return trouble(request, vendor, FAULTS[Fault.OURS])
    return leave(request, invited) if request.method == "POST" else offer(request, invited)


def offer(request: HttpRequest, invited: Invitation) -> HttpResponse:
    response = page(request, "devices/invitation.html", invited)
    remember(response, invited, browser_of(request) or secrets.token_urlsafe(32))
    # Under `no-referrer` browsers send the form with `Origin: null`, which Django's CSRF protection refuses. This tells
    # other sites as little.
    response["Referrer-Policy"] = "same-origin"
    return response


def leave(request: HttpRequest, invited: Invitation) -> HttpResponse:
    """Note the trip and show the way out.

    A page, not a redirect: Chrome holds `form-action` against every redirect that follows a form, and where a vendor
    redirects to is not ours to know.
    """
    browser = browser_of(request) or secrets.token_urlsafe(32)
    response = page(request, "devices/leaving.html", invited, address=consent_url(request, invited, browser))
    remember(response, invited, browser)
    return response


def remember(response: HttpResponse, invited: Invitation, browser: str) -> None:
    """Name the browser, before it has a second tab with the same page."""
    response.set_cookie(
        COOKIE,
        browser,
        max_age=COOKIE_SECONDS,
        path=reverse("connect", kwargs={"vendor": invited.vendor}),
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def consent_url(request: HttpRequest, invited: Invitation, browser: str) -> str:
    """The vendor's page, with a `state` that only this browser may bring back."""
    state, verifier = oauth.new_state(invited.vendor), oauth.new_verifier(invited.vendor)
    redirect_uri = absolute(request, reverse("connect_callback", kwargs={"vendor": invited.vendor}))
    Consent.objects.filter(started_at__lt=timezone.now() - Consent.LIFE).delete()
    Consent.objects.create(
        invitation=invited,
        state=digest(state),
        browser=digest(browser),
        verifier=seal(verifier) if verifier else "",
        redirect_uri=redirect_uri,
        token_url=oauth.setting(invited.vendor, "TOKEN_URL"),
    )
    return oauth.authorize_url(invited.vendor, redirect_uri=redirect_uri, state=state, verifier=verifier)


@require_GET  # not HEAD: a look ahead must not use the state up
@private
def callback(request: HttpRequest, vendor: str) -> HttpResponse:
    """Where the vendor sends the browser back to, once for each trip."""
    consent = take_consent(request, vendor)
    if consent is None:
        return trouble(request, vendor, STRAY)
    invited = consent.invitation
    if invited.state == "revoked":
        return closed(request, invited)
    if "error" in request.GET:
        denied = request.GET["error"] == "access_denied"
        return trouble(request, vendor, DENIED if denied else VENDOR_REFUSED, invited)
    code = parameter(request, "code")
    if not code:
        return trouble(request, vendor, FAULTS[Fault.CODE], invited)
    return finish(request, consent, code)


def finish(request: HttpRequest, consent: Consent, code: str) -> HttpResponse:
    invited, vendor = consent.invitation, consent.invitation.vendor
    try:
        connected = oauth.run(trade(consent, code))
        keep(consent, connected, parameter(request, "scope"))
    except ConnectFailed as failed:
        return trouble(request, vendor, FAULTS[failed.fault], invited)
    except (DatabaseError, ApiError):  # away just now, or the verifier opens with no key of TOKEN_KEYS
        return trouble(request, vendor, NOT_KEPT, invited)
    except Taken:  # not given back: WHOOP would stop the account's webhooks, which the other patient's link needs
        return trouble(request, vendor, TAKEN, invited)
    except Closed:
        if not Link.objects.filter(vendor=vendor, vendor_user_id=connected.vendor_user_id).exists():
            give_back(consent, connected)
        return trouble(request, vendor, USED)
    # Away from an address that holds a code, to one that may be loaded again.
    return HttpResponseRedirect(address_of(request, invited), status=303, headers={"Referrer-Policy": "no-referrer"})


def trade(consent: Consent, code: str) -> Any:
    verifier = unseal(consent.verifier) if consent.verifier else ""
    return oauth.connect(
        consent.invitation.vendor,
        code=code,
        verifier=verifier,
        redirect_uri=consent.redirect_uri,
        token_url=consent.token_url,
    )


def give_back(consent: Consent, connected: Connected) -> None:
    """End a grant that nobody here will use."""
    vendor = consent.invitation.vendor
    oauth.run(oauth.revoke(vendor, connected.granted.access_token, consent.token_url))


@transaction.atomic
def keep(consent: Consent, connected: Connected, scopes_in_redirect: str) -> None:
    """Store the grant, use the invitation up and say so to those above, all or nothing. Raises `Taken` and `Closed`.

    Two trips of one invitation may both come back. The later grant is kept when it is for the same account: a vendor
    may have ended the earlier one for it. The link's row is locked after its token's, as a refresh does.
    """
    invited = Invitation.objects.select_for_update().filter(pk=consent.invitation_id).first()
    if invited is None or invited.revoked_at:
        raise Closed
    link, _ = Link.objects.get_or_create(
        vendor=invited.vendor, vendor_user_id=connected.vendor_user_id, defaults={"patient_id": invited.patient_id}
    )
    if link.patient_id != invited.patient_id:
        raise Taken
    if invited.used_at and invited.link_id != link.pk:
        raise Closed
    granted = connected.granted
    store_grant(
        link,
        access_token=granted.access_token,
        refresh_token=granted.refresh_token,
        expires_in=granted.expires_in,
        issued_by=consent.token_url,
        scopes=tidy(scopes_of(invited.vendor, granted.scope, scopes_in_redirect)),
    )
    invited.used_at, invited.link = invited.used_at or timezone.now(), link
    invited.save(update_fields=["used_at", "link"])
    link_connected.send_robust(Link, link=link)


def scopes_of(vendor: str, in_answer: str | None, in_redirect: str) -> str:
    """What was granted, as far as the vendor says; a vendor that says nothing granted all (RFC 6749, 5.1)."""
    return in_answer or in_redirect or " ".join(scope.name for scope in oauth.VENDORS[vendor].scopes)


def take_consent(request: HttpRequest, vendor: str) -> Consent | None:
    """The trip that this browser comes back from, which nothing else can come back from after that."""
    state, since = digest(parameter(request, "state")), timezone.now() - Consent.LIFE
    trips = Consent.objects.filter(
        browser=digest(browser_of(request)), invitation__vendor=vendor, started_at__gt=since
    ).select_related("invitation")
    for trip in trips:
        if hmac.compare_digest(bytes(trip.state), state):
            taken, _ = Consent.objects.filter(pk=trip.pk).delete()
            return trip if taken else None
    return None


def browser_of(request: HttpRequest) -> str:
    name = request.COOKIES.get(COOKIE, "")
    return name if len(name) <= LONGEST_PARAMETER else ""


def parameter(request: HttpRequest, name: str) -> str:
    """A parameter of the query, "" when it is not there, too long, or no printable ASCII."""
    value = request.GET.get(name, "")
    return value if len(value) <= LONGEST_PARAMETER and value.isascii() and value.isprintable() else ""


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def absolute(request: HttpRequest, path: str) -> str:
    """An address as the world sees us: at PUBLIC_URL, else at the host the request names."""
    return f"{settings.PUBLIC_URL}{path}" if settings.PUBLIC_URL else request.build_absolute_uri(path)


def address_of(request: HttpRequest, invited: Invitation) -> str:
    """What support hands to the patient."""
    path = reverse("connect", kwargs={"vendor": invited.vendor})
    return absolute(request, f"{path}?{urlencode({'invitation': invited.token})}")


def closed(request: HttpRequest, invited: Invitation) -> HttpResponse:
    """What has become of an invitation that is not open: connected, or why not."""
    if invited.state == "used" and invited.link is not None:
        missing = [scope.carries for scope in oauth.VENDORS[invited.vendor].missing(invited.link.scopes)]
        return page(request, "devices/finished.html", invited, missing=[each for each in missing if each])
    why = {"used": USED, "revoked": REVOKED, "expired": EXPIRED}
    return trouble(request, invited.vendor, why[invited.state])


def trouble(request: HttpRequest, vendor: str, what: Trouble, invited: Invitation | None = None) -> HttpResponse:
    name = dict(Link.VENDORS)[vendor]
    again = address_of(request, invited) if invited and what.again and invited.state == "open" else ""
    context = {
        "title": what.title.format(vendor=name),
        "text": what.text.format(vendor=name),
        "again": again,
        "calm": what.status == 200,
    }
    return secretive(render(request, "devices/trouble.html", context, status=what.status))


def page(request: HttpRequest, template: str, invited: Invitation, **more: Any) -> HttpResponse:
    facts = oauth.VENDORS[invited.vendor]
    context = {
        "invitation": invited,
        "vendor": invited.get_vendor_display(),
        "facts": facts,
        "days": settings.BACKFILL_DAYS,
        **more,
    }
    return secretive(render(request, template, context))


def secretive(response: HttpResponse) -> HttpResponse:
    """The address, which opens the invitation or holds a code, goes to no other site and no search engine."""
    response["Referrer-Policy"] = "no-referrer"
    response["X-Robots-Tag"] = "noindex"
    return response
