"""Keyset cursors: a page begins behind the last row of the one before, wherever that row now stands.

A cursor holds the sort values of that row and a digest of what was asked, signed: it can be neither made up nor moved
to another list. Nothing is counted, and a page costs the same however far down the list it is.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

import msgspec
from django.core.signing import BadSignature, Signer
from django.db.models import Model, Q, QuerySet
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

from auren.console.api.problems import Problem

SIGNER = Signer(salt="auren.api.cursor", sep=".")
NOT_FILTERS = frozenset({"limit", "cursor"})

ModelT = TypeVar("ModelT", bound=Model)


class Page(NamedTuple):
    rows: list[Any]
    next_cursor: str | None


def page(found: QuerySet[ModelT], order: Sequence[str], asked: Mapping[str, Any], request: Request) -> Page:
    """The next `limit` rows of `found` in `order`, a list of columns (`-` for descending) that is unique as a whole."""
    last = start(asked, request)
    if last is not None:
        found = found.filter(behind(order, last))
    rows = list(found.order_by(*order)[: asked["limit"] + 1])
    names = [name.removeprefix("-") for name in order]
    return cut(rows, [[getattr(row, name) for name in names] for row in rows[-2:]], asked, request)


def cut(rows: list[Any], last_two: Sequence[Sequence[Any]], asked: Mapping[str, Any], request: Request) -> Page:
    """`rows`, one more than asked where there are more; `last_two`, the sort values of the last two of them."""
    if len(rows) <= asked["limit"]:
        return Page(rows, None)
    return Page(rows[:-1], sign([_scope(request), *last_two[0]]))


def start(asked: Mapping[str, Any], request: Request) -> list[Any] | None:
    """The sort values behind which the page begins; None for the first page. Raises `Problem`."""
    if "cursor" not in asked:
        return None
    values = _opened(asked["cursor"])
    if values[:1] != [_scope(request)]:
        _refuse()
    return values[1:]


def behind(order: Sequence[str], values: Sequence[Any]) -> Q:
    """Rows that come after `values`. The first column alone bounds the index; the rest is compared within it."""
    if len(order) != len(values):
        _refuse()
    first = order[0]
    rows, equal = Q(), Q()
    for column, value in zip(order, values, strict=True):
        rows |= equal & Q((_name(column) + ("__lt" if column.startswith("-") else "__gt"), value))
        equal &= Q((_name(column), value))
    return rows & Q((_name(first) + ("__lte" if first.startswith("-") else "__gte"), values[0]))


def next_address(request: Request, next_cursor: str | None) -> str | None:
    if next_cursor is None:
        return None
    address: str = replace_query_param(request.build_absolute_uri(), "cursor", next_cursor)
    return address


def sign(values: Sequence[Any]) -> str:
    return SIGNER.sign(base64.urlsafe_b64encode(msgspec.json.encode(values)).decode().rstrip("="))


def _opened(cursor: str) -> list[Any]:
    try:
        text = SIGNER.unsign(cursor)
        values: list[Any] = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (BadSignature, ValueError, binascii.Error):
        _refuse()
    return values


def _scope(request: Request) -> str:
    """The list that is walked: its address and filters, in whatever order they were given."""
    filters = sorted((name, values) for name, values in request.query_params.lists() if name not in NOT_FILTERS)
    return hashlib.sha256(msgspec.json.encode([request.path, filters])).hexdigest()[:16]


def _name(column: str) -> str:
    return column.removeprefix("-")


def _refuse() -> NoReturn:
    detail = "Take `next_cursor` as it came, and ask with it for the same list with the same filters; or begin anew."
    raise Problem("bad-cursor", detail, [("cursor", "not a cursor of this list")])
