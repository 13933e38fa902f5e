"""The description of the API at `/api/schema/`, and the page that shows it at `/api/docs/`.

Both are open to everybody: they hold no data, and who generates a client from them has no token at that time.
"""

from functools import cache
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.request import Request
from rest_framework.response import Response


@cache
def description() -> dict[str, Any]:
    """Made once a process: it takes as long as hundreds of requests, and is the same for everybody."""
    described: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return described


class Description(SpectacularAPIView):
    schema = None

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002 - Django's signature
        return Response(description())


class Docs(SpectacularSwaggerSplitView):
    """Swagger UI out of the sidecar's files: its script has an address of its own, so the strict CSP stands."""

    template_name = "console/api.html"
    url_name = "api-schema"
