"""Lists, page by page."""

from collections.abc import Mapping
from typing import Any, ClassVar

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from auren.audit.trail import note
from auren.console.api import cursors
from auren.console.api.asking import Listed, Query
from auren.console.api.views import ApiView


def paged(page: cursors.Page, shown: type[serializers.BaseSerializer[Any]], request: Request) -> Response:
    return Response(
        {
            "results": shown(page.rows, many=True).data,
            "next": cursors.next_address(request, page.next_cursor),
            "next_cursor": page.next_cursor,
        }
    )


def page_of(*examples: Any) -> dict[str, Any]:
    """The last page of a list, as an example."""
    return {"results": list(examples), "next": None, "next_cursor": None}


class ListView(ApiView):
    """`order` is unique as a whole. `found` applies what `query` asked for to what the caller may see."""

    query: ClassVar[type[Query]] = Listed
    shown: ClassVar[type[serializers.BaseSerializer[Any]]]
    listed = True
    order: ClassVar[tuple[str, ...]] = ("id",)

    def get(self, request: Request) -> Response:
        asked = self.query.of(request)
        page = cursors.page(self.found(request, asked), self.order, asked, request)
        note(request, *page.rows)
        return paged(page, self.shown, request)

    def found(self, request: Request, asked: Mapping[str, Any]) -> QuerySet[Any]:
        raise NotImplementedError
