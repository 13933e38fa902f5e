"""The admin's site: unfold's, under a policy that allows what its Alpine needs and nothing more."""

from collections.abc import Callable
from typing import Any

from csp.decorators import csp_update
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode
from unfold.sites import UnfoldAdminSite

View = Callable[..., Any]


class SupportSite(UnfoldAdminSite):  # type: ignore[misc]  # unfold has no types
    index_title = "Overview"

    def admin_view(self, view: View, cacheable: bool = False) -> View:
        guarded = super().admin_view(view, cacheable)
        allowed: View = csp_update(settings.ADMIN_CONTENT_SECURITY_POLICY)(guarded)
        return allowed

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:  # noqa: ARG002
        """There is one page to sign in, whoever one is. Whoever is signed in and comes here may not enter."""
        if request.user.is_authenticated and not self.has_permission(request):
            raise PermissionDenied
        query = urlencode({"next": request.GET["next"]}) if "next" in request.GET else ""
        return redirect(reverse("login") + (f"?{query}" if query else ""))

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponseBase:  # noqa: ARG002
        from auren.console.signing_in import SignOut  # noqa: PLC0415 - the site is there before any model

        return SignOut.as_view()(request)

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:  # noqa: ARG002
        return redirect("password")

    def _get_colors(self, key: str, *args: Any) -> dict[str, Any]:  # noqa: ARG002 - unfold's signature
        """None, as unfold would write them into each page: they stand in `auren/admin.css`."""
        return {}
