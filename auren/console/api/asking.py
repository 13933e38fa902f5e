"""What a caller may ask with: parameters and bodies, read strictly, so that a misspelt one is told and not ignored."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from django.http import QueryDict
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.parsers import JSONParser
from rest_framework.request import Request

from auren.biometrics.metrics import BY_NAME, METRICS, Metric
from auren.console.api.problems import Problem

EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
# What `SHAPE` and the years allow, for the schema.
PATTERN = (
    r"^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
SHAPE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?")
LARGEST_ID = 2**63 - 1
LARGEST_BODY = 64 * 1024
DEFAULT_LIMIT, LARGEST_LIMIT = 100, 1_000


@extend_schema_field({"type": "string", "minLength": 1, "pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$"})
class Text(serializers.CharField):
    """A text that says something: not blank, and without NUL, which PostgreSQL does not take."""


@extend_schema_field({"type": "string", "format": "date-time", "pattern": PATTERN})
class Instant(serializers.CharField):
    """A moment with its zone, from 2000 to 2100, as a UTC datetime. A moment without a zone could be 26 hours off."""

    def to_internal_value(self, data: Any) -> datetime:  # type: ignore[override]
        text = super().to_internal_value(data)
        try:
            at = datetime.fromisoformat(text if SHAPE.fullmatch(text) else "")  # which alone takes much more, even NUL
        except ValueError:
            raise serializers.ValidationError("Not a time such as 2026-11-13T03:00:00Z.") from None
        if at.tzinfo is None:
            raise serializers.ValidationError("No time zone: end it with Z, or with an offset such as %2B01:00.")
        if not EARLIEST <= at <= LATEST:
            raise serializers.ValidationError("Must lie between the years 2000 and 2100.")
        return at.astimezone(UTC)


class Number(serializers.IntegerField):
    """The number of a row."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"min_value": 1, "max_value": LARGEST_ID} | options))


class Query(serializers.Serializer[Any]):
    """The parameters of one address. A name it does not know, or one given twice, is refused.

    What Python keeps to itself is written with `_` behind it: `from_` is the parameter `from`.
    """

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {name.rstrip("_"): field for name, field in super().get_fields().items()}

    @classmethod
    def of(cls, request: Request) -> dict[str, Any]:
        """What was asked, defaults filled in. Raises `Problem`."""
        given, fields = request.query_params, cls().fields
        # As a plain mapping: out of a QueryDict DRF reads an empty value as none, and `vendor=` would be every vendor.
        query = cls(data={name: given.getlist(name) if _several(fields.get(name)) else given[name] for name in given})
        errors = [*cls._strangers(query, given), *_named(query)]
        if errors:
            raise Problem("bad-query", "; ".join(f"`{name}`: {what}" for name, what in errors), errors)
        return dict(query.validated_data)

    @classmethod
    def _strangers(cls, query: "Query", given: QueryDict) -> list[tuple[str, str]]:
        known = query.fields
        errors = []
        for name, values in given.lists():
            if name not in known:
                errors.append((name, f"No such parameter. There are: {', '.join(known) or 'none'}."))
            elif len(values) > 1 and not _several(known[name]):
                errors.append((name, "Given more than once."))
        return errors


def _several(field: object) -> bool:
    return isinstance(field, serializers.ListField)


class Listed(Query):
    """What every list can be asked with."""

    limit = serializers.IntegerField(
        min_value=1, max_value=LARGEST_LIMIT, default=DEFAULT_LIMIT, help_text="How many at most."
    )
    cursor = Text(
        max_length=2_000, required=False, help_text="Where to go on: what `next_cursor` of the page before said."
    )


class MetricNames(serializers.ListField):
    """Metrics by name, each once: the parameter is repeated for several."""

    child = serializers.ChoiceField(choices=[metric.name for metric in METRICS])

    def to_internal_value(self, data: Any) -> list[Metric]:
        return [BY_NAME[name] for name in dict.fromkeys(super().to_internal_value(data))]


class Ranged(serializers.Serializer[Any]):
    """`from` (included) to `to` (not)."""

    from_ = Instant(help_text="The beginning, included, with its zone.")
    to = Instant(help_text="The end, not included, with its zone.")


def within(asked: Mapping[str, Any], days: int) -> None:
    """Raises `Problem` unless `from` is before `to` and no more than `days` before."""
    length = asked["to"] - asked["from"]
    if length <= timedelta(0):
        raise Problem("bad-range", "`from` must be before `to`.", [("from", "not before `to`")])
    if length > timedelta(days=days):
        raise Problem("bad-range", f"`from` to `to` must be {days} days or less.", [("from", "too long before `to`")])


class Body(serializers.Serializer[Any]):
    """A JSON object. A name it does not know is refused."""

    @classmethod
    def of(cls, request: Request) -> dict[str, Any]:
        """What was sent, defaults filled in. Raises `Problem`."""
        given = request.data
        if not isinstance(given, Mapping):
            raise Problem("bad-body", "The body must be a JSON object.")
        body = cls(data=given)
        strangers = [(str(name), f"No such field. There are: {', '.join(body.fields)}.") for name in given]
        errors = [error for error in strangers if error[0] not in body.fields] + _named(body)
        if errors:
            raise Problem("bad-body", "; ".join(f"`{name}`: {what}" for name, what in errors), errors)
        return dict(body.validated_data)


def _named(asked: serializers.Serializer[Any]) -> list[tuple[str, str]]:
    if asked.is_valid():
        return []
    return [(str(name), " ".join(_flat(what))) for name, what in asked.errors.items()]


def _flat(what: Any) -> list[str]:
    if isinstance(what, Mapping):
        what = list(what.values())
    return [text for part in what for text in _flat(part)] if isinstance(what, list) else [str(what)]


class StrictJSON(JSONParser):
    """JSON as RFC 8259 has it, up to 64 KiB: no NaN, no lone surrogates, nothing too deep to read."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:  # noqa: ARG002
        body = stream.read(LARGEST_BODY + 1)
        if len(body) > LARGEST_BODY:
            raise Problem("too-large", f"The body is over {LARGEST_BODY} bytes.")
        try:
            return msgspec.json.decode(body)
        except (ValueError, RecursionError) as error:
            raise Problem("bad-body", f"The body is not JSON: {error}.") from None
