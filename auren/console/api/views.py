"""What all views of the API share."""

from typing import Any

from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from auren.console.api.throttles import Costly, Every


class ApiView(APIView):
    """Answers are health data: nobody in between keeps them."""

    metadata_class = None

    def options(self, request: Any, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002 - Django's signature
        """What may be done here is in `Allow`; what it means is in the schema."""
        return Response(status=204)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response


class CostlyView(ApiView):
    throttle_classes = (Every, Costly)


class Nowhere(ApiView):
    """Every address below /api/ that is none."""

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()
    schema = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - Django's signature
        raise NotFound
