"""Validators: `If-None-Match` saves reading what has not changed, `If-Match` keeps two from overwriting each other."""

import hashlib
from typing import Any

import msgspec
from django.utils.cache import get_conditional_response
from rest_framework.request import Request
from rest_framework.response import Response

from auren.console.api.problems import Problem


def of_content(content: Any) -> str:
    """A strong one, of what is about to be sent."""
    return f'"{_digest(content)}"'


def of_version(version: int, *asked: Any) -> str:
    """A weak one, of the patient's timeline and of what was asked about it."""
    return f'W/"{version}-{_digest(asked)}"'


def unchanged(request: Request, etag: str) -> Response | None:
    """304, where the caller has it already. Raises `Problem` where `If-Match` names another state."""
    found = get_conditional_response(request._request, etag=etag)
    if found is None:
        return None
    if found.status_code == 304:
        return Response(status=304, headers={"ETag": etag})
    raise Problem("changed", "It has changed since you read it. Read it again, and decide again.", ETag=etag)


def _digest(content: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:24]
