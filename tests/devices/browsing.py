"""A patient with a browser: opens an invitation, goes to the vendor's consent page, and comes back."""

import re
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from django.test import Client

from devices.models import Invitation, Patient

TO_VENDOR = re.compile(r'href="(http[^"]+)" rel="noreferrer">Go to')


def invite(vendor: str = "oura", user: str = "user_1") -> Invitation:
    patient, _ = Patient.objects.get_or_create(external_id=user, defaults={"display_name": f"Person {user}"})
    return Invitation.issue(patient, vendor, by="sam")


def address(invitation: Invitation) -> str:
    return f"/connect/{invitation.vendor}/?invitation={invitation.token}"


def query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def local(url: str) -> str:
    """The part of one of our own addresses that Django's test client takes."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


class Browser:
    """Keeps cookies, as a browser does, and one tab: the page it shows is `page`."""

    def __init__(self) -> None:
        self.client = Client()
        self.page: Any = None

    @property
    def text(self) -> str:
        return " ".join(unescape(self.page.content.decode()).split())

    def open(self, url: str) -> Any:
        self.page = self.client.get(local(url), follow=True)
        return self.page

    def start(self, invitation: Invitation) -> str:
        """Press the button; where it leads."""
        self.page = self.client.post(address(invitation))
        assert self.page.status_code == 200, self.text
        found = TO_VENDOR.search(self.page.content.decode())
        assert found
        return unescape(found[1])

    def connect(self, invitation: Invitation, user: str = "user_1", **said: str) -> Any:
        """All the way: start, say yes as the vendor's `user`, come back."""
        return self.open(consent(self.start(invitation), user, **said))


def consent(url: str, user: str = "user_1", **said: str) -> str:
    """Say yes at the vendor (`deny="1"`: no; `scope_granted`: to a part); where it sends the browser."""
    answer = {"login_hint": user, "auto": "1", **said}
    reply = httpx.get(url, params=query(url) | answer, trust_env=False)
    assert reply.status_code == 302, reply.text
    return reply.headers["location"]
