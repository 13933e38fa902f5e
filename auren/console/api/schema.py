"""How drf-spectacular describes the API (OpenAPI 3.1): from what the views declare, so that nothing is said twice."""

from typing import TYPE_CHECKING, Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, inline_serializer
from rest_framework import serializers
from rest_framework.permissions import IsAuthenticated

from auren.console.api import problems
from auren.console.api.asking import Body

if TYPE_CHECKING:
    from auren.console.api.views import ApiView

EVERYWHERE = ("bad-query", "unauthorised", "not-acceptable", "throttled", "internal", "unavailable")
WITH_BODY = ("bad-body", "csrf", "too-large", "wrong-type")
DETAILS = {
    "bad-query": "`limit`: A valid integer is required.",
    "bad-cursor": "Take `next_cursor` as it came, and ask with it for the same list with the same filters; "
    "or begin anew.",
    "not-possible": "Left as it was: a worker has it at this moment.",
}


class Named(serializers.Serializer[Any]):
    name = serializers.CharField(help_text="The parameter or field.")
    detail = serializers.CharField(help_text="What is wrong with it.")


class Problem(serializers.Serializer[Any]):
    """RFC 9457 problem details."""

    type = serializers.CharField(help_text="`urn:auren:problem:` and a name that docs/problems.md explains.")
    title = serializers.CharField(help_text="The same for all problems of a type.")
    status = serializers.IntegerField(min_value=400, max_value=599)
    detail = serializers.CharField(help_text="What was wrong this time, and what to do.")
    errors = Named(  # type: ignore[assignment]
        many=True, required=False, help_text="Where several things were wrong: each by its name."
    )


class ApiSchema(AutoSchema):
    """Reads `operation`, `summary`, `query`, `body`, `shown`, `status`, `tells` and `example` of an `ApiView`."""

    view: "ApiView"  # type: ignore[override]

    def get_operation_id(self) -> str:
        return str(self.view.operation)

    def get_summary(self) -> str:
        return str(self.view.summary)

    def get_override_parameters(self) -> list[Any]:
        validated = [*_VALIDATORS[self.view.validated]] if self.view.validated else []
        query = [self.view.query] if self.view.query().fields else []
        return [*query, *validated, *_HEADERS]

    def get_request_serializer(self) -> Any:
        return self.view.body

    def get_response_serializers(self) -> Any:
        example = OpenApiExample(self.view.operation, value=self.view.example, response_only=True)
        answers: dict[Any, Any] = {
            (self.view.status, "application/json"): OpenApiResponse(self._shown(), self.view.summary, [example])
        }
        if self.view.validated == "read":
            answers[304] = OpenApiResponse(description="Nothing has changed since the state `If-None-Match` names.")
        for status, slugs in sorted(self._told().items()):
            answers[status, problems.CONTENT_TYPE] = _told_as(slugs)
        return answers

    def _shown(self) -> Any:
        if not self.view.listed:
            return self.view.shown
        name = f"{self.view.shown.__name__}Page"
        return inline_serializer(name, {"results": self.view.shown(many=True), **_paging()})

    def _told(self) -> dict[int, list[str]]:
        slugs = [*EVERYWHERE, *self.view.tells]
        if self.view.validated:
            slugs.append("changed")
        if self.view.body is not None or self.method == "POST":
            slugs += WITH_BODY
        if "{id}" in self.path or "patient_id" in self.view.query().fields:
            slugs.append("not-found")
        if any(type(permission) is not IsAuthenticated for permission in self.view.get_permissions()):
            slugs.append("forbidden")
        if self.view.listed:
            slugs.append("bad-cursor")
        told: dict[int, list[str]] = {}
        for slug in dict.fromkeys(slugs):
            told.setdefault(problems.PROBLEMS[slug][0], []).append(slug)
        return told

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> Any:
        schema = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        strict = isinstance(serializer, Body) or (isinstance(serializer, type) and issubclass(serializer, Body))
        return schema | {"additionalProperties": False} if strict else schema


def _paging() -> dict[str, Any]:
    return {
        "next": serializers.URLField(allow_null=True, help_text="The address of the next page; null on the last one."),
        "next_cursor": serializers.CharField(allow_null=True, help_text="The same as a value for `cursor`."),
    }


def _told_as(slugs: list[str]) -> OpenApiResponse:
    title = " / ".join(problems.PROBLEMS[slug][1] for slug in slugs)
    examples = [
        OpenApiExample(slug, value=problems.content(slug, DETAILS.get(slug, problems.PROBLEMS[slug][1] + ".")))
        for slug in slugs
    ]
    return OpenApiResponse(Problem, title, examples)


def _header(name: str, description: str, *, response: Any = False, schema: Any = str) -> OpenApiParameter:
    return OpenApiParameter(name, schema, OpenApiParameter.HEADER, description=description, response=response)


_HEADERS = (
    _header("Retry-After", "Seconds to wait.", response=[429, 503], schema=int),
    _header("WWW-Authenticate", 'How to show who you are: `Bearer realm="AUREN"`.', response=[401]),
)
_ETAG = _header("ETag", "Names this state: for `If-None-Match` and `If-Match`.", response=[200, 304])
_VALIDATORS = {
    "read": (_ETAG, _header("If-None-Match", "An `ETag` you have: 304 where it still holds.")),
    "change": (
        _header("If-Match", "The `ETag` of the state you decided upon: 412 where somebody has changed it since."),
        _header("ETag", "Names the new state.", response=[200]),
    ),
}


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "auren.console.api.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:  # noqa: ARG002
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "For programs. An admin of the bridge makes tokens, under Access tokens in `/admin/`.",
        }


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "auren.console.api.authentication.PageSession"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:  # noqa: ARG002
        return {
            "type": "apiKey",
            "in": "cookie",
            "name": "sessionid",
            "description": "For pages of the bridge. Whatever changes something needs `X-CSRFToken` as well.",
        }


def tidy(result: Any, **_: Any) -> Any:
    """A hook of drf-spectacular: without the marks it leaves for its own enumerations, which we write in place."""
    _strip(result)
    return result


def _strip(part: Any) -> None:
    if isinstance(part, dict):
        part.pop("x-spec-enum-id", None)
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            _strip(one)
