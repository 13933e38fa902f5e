"""What all views of the API share."""

from typing import Any, ClassVar, Literal

from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from auren.console.api.asking import Body, Query
from auren.console.api.throttles import Costly, Every


class ApiView(APIView):
    """One thing to ask or to do. Answers are health data: nobody in between keeps them.

    What it takes and gives is declared, and `schema.py` describes it from that: `query` are its parameters, `body` what
    is sent, `shown` what is answered with `status`, `tells` the problems beside those that may come anywhere, and
    `validated` whether it can be read with `If-None-Match` or changed with `If-Match`.
    """

    metadata_class = None
    operation: ClassVar[str]
    summary: ClassVar[str]
    example: ClassVar[Any]
    query: ClassVar[type[Query]] = Query
    body: ClassVar[type[Body] | None] = None
    shown: ClassVar[type[serializers.BaseSerializer[Any]]]
    listed: ClassVar[bool] = False
    status: ClassVar[int] = 200
    tells: ClassVar[tuple[str, ...]] = ()
    validated: ClassVar[Literal["read", "change"] | None] = None

    def options(self, request: Any, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002 - Django's signature
        """What may be done here is in `Allow`; what it means is in the schema."""
        return Response(status=204)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response


class CostlyView(ApiView):
    throttle_classes = (Every, Costly)


class Nowhere(APIView):
    """Every address below /api/ that is none."""

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()
    schema = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - Django's signature
        raise NotFound
