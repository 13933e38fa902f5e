from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client

from auren.console.models import AccessToken
from tests.console.conftest import person


class Caller:
    """A program with a token."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.token, self.text = AccessToken.issue(user, "test", by="a test")
        self.headers = {"Authorization": f"Bearer {self.text}"}
        self.client = Client(headers=self.headers)

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(f"/api/v1{path}", headers=headers)

    def post(self, path: str, body: object = None, **headers: str) -> Any:
        return self.client.post(
            f"/api/v1{path}", {} if body is None else body, content_type="application/json", headers=headers
        )


Make = Callable[[str], Caller]


@pytest.fixture(autouse=True)
def nobody_has_asked_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auren.console.api.throttles._Rate.not_asked_until", 0.0)
    monkeypatch.setattr("auren.console.api.throttles.SLOW_SECONDS", float("inf"))  # a busy machine is no lost Redis
    cache.clear()


@pytest.fixture
def clara(clinician: User) -> Caller:
    return Caller(clinician)


@pytest.fixture
def sam(database: str) -> Caller:
    return Caller(person("sam", "support"))


@pytest.fixture
def ada(database: str) -> Caller:
    return Caller(person("ada", "admin"))


@pytest.fixture
def root(database: str) -> Caller:
    return Caller(User.objects.create_superuser("root", password="a-long-enough-password"))


def problem(answer: Any) -> tuple[int, str]:
    """The status and the last part of the type of a problem, which is one in every respect."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["title"]
    assert body["detail"]
    return answer.status_code, body["type"].removeprefix("urn:auren:problem:")
