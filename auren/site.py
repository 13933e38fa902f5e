"""The admin's site: unfold's, under a policy that allows what its Alpine needs and nothing more."""

from collections.abc import Callable
from typing import Any

from csp.decorators import csp_update
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from unfold.sites import UnfoldAdminSite

View = Callable[..., Any]


class SupportSite(UnfoldAdminSite):  # type: ignore[misc]  # unfold has no types
    index_title = "Overview"

    def admin_view(self, view: View, cacheable: bool = False) -> View:
        guarded = super().admin_view(view, cacheable)
        allowed: View = csp_update(settings.ADMIN_CONTENT_SECURITY_POLICY)(guarded)
        return allowed

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        allowed: View = csp_update(settings.ADMIN_CONTENT_SECURITY_POLICY)(super().login)
        answer: HttpResponse = allowed(request, extra_context)
        return answer

    def _get_colors(self, key: str, *args: Any) -> dict[str, Any]:  # noqa: ARG002 - unfold's signature
        """None, as unfold would write them into each page: they stand in `auren/admin.css`."""
        return {}
