"""What the admin pages of all apps share: records nobody edits, counts that stay cheap, times, confirmations."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from django import forms
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold import admin as unfold
from unfold.decorators import action as unfold_action
from unfold.enums import ActionVariant

from auren.ages import ago
from auren.audit.models import Verb
from auren.audit.trail import record

ModelT = TypeVar("ModelT", bound=Model)
ActT = TypeVar("ActT", bound=Callable[..., Any])
MOST_COUNTED = 10_000
MOST_AT_ONCE = 1_000
SHOWN_IN_CONFIRMATION = 20

if TYPE_CHECKING:
    Pages = Paginator[Any]
    TypedAdmin = admin.ModelAdmin
    TabularInline = admin.TabularInline
else:
    Pages = Paginator
    TabularInline = unfold.TabularInline

    # Neither Django's ModelAdmin nor unfold's takes a type argument when the program runs.
    class TypedAdmin(Generic[ModelT], unfold.ModelAdmin):
        pass


class CappedPaginator(Pages):
    """Counts up to 10,000 rows and then says "more than": an exact count of a big table reads all of it."""

    template_name = "auren/pagination.html"

    @cached_property
    def count(self) -> int:
        return min(self._counted, MOST_COUNTED)

    @property
    def capped(self) -> bool:
        return self._counted > MOST_COUNTED

    @cached_property
    def _counted(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        return rows.order_by()[: MOST_COUNTED + 1].count()


class Audited:
    """What forms add, change and delete is in the audit log, in the same transaction."""

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        record(request, Verb.ADD, obj)
        return super().log_addition(request, obj, message)  # type: ignore[misc]

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        if message:
            record(request, Verb.CHANGE, obj, detail=fields_in(message))
        return super().log_change(request, obj, message)  # type: ignore[misc]

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        record(request, Verb.DELETE, obj)
        super().delete_model(request, obj)  # type: ignore[misc]

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        with transaction.atomic():
            record_each(request, Verb.DELETE, list(queryset))
            super().delete_queryset(request, queryset)  # type: ignore[misc]


def fields_in(message: Any) -> str:
    """The names of the fields that Django's log says were changed, without what they were changed to."""
    parts = message if isinstance(message, list) else []
    names = [name for part in parts for change in part.values() for name in change.get("fields", ())]
    return ", ".join(dict.fromkeys(names))


def record_each(request: HttpRequest, verb: Verb, things: Sequence[Model]) -> None:
    if things:
        record(request, verb, *things)


class ShownOnce:
    """Adding ends on a page that shows a secret once: no button promises to lead elsewhere."""

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        buttons = {"show_save_and_add_another": False, "show_save_and_continue": False}
        page: HttpResponse = super().add_view(request, form_url, buttons | (extra_context or {}))  # type: ignore[misc]
        return page


class Untouched:
    """What the system writes, people only read."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False


class BigTableAdmin(Audited, TypedAdmin[ModelT]):
    """For tables that grow without end: capped counts, no facets, newest first by key.

    `what_would_be_here` is what an empty list says, as a sentence.
    """

    change_list_template = "auren/list.html"
    empty_value_display = "none"
    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    ordering: ClassVar[tuple[Any, ...]] = ("-id",)
    list_per_page = 50
    list_fullwidth = True
    what_would_be_here = ""


def action(description: str, *, permissions: Sequence[str], danger: bool = False) -> Callable[[ActT], ActT]:
    """An action of a list that needs `permissions`; one with `danger` takes something away, and looks like it."""
    variant = ActionVariant.DANGER if danger else ActionVariant.DEFAULT
    decorated: Callable[[ActT], ActT] = unfold_action(description=description, permissions=permissions, variant=variant)
    return decorated


def acts(page: "admin.ModelAdmin[Any]", request: HttpRequest) -> list[dict[str, Any]]:
    """What one may do to a record, for the buttons of its page: `name`, `label`, `danger`."""
    allowed: dict[str, tuple[Any, str, Any]] = dict(page.get_actions(request) or {})  # type: ignore[arg-type]
    return [
        {"name": name, "label": str(label), "danger": getattr(act, "variant", None) is ActionVariant.DANGER}
        for act, name, label in allowed.values()
    ]


def when(at: datetime | None, absent: str = "-") -> str:
    """A time as people ask for it: how long ago, and exactly, in UTC; `absent` where there is none."""
    if at is None:
        return absent
    return format_html('<time datetime="{}">{}<small>{}</small></time>', at.isoformat(), ago(at), exactly(at))


def exactly(at: datetime | None, absent: str = "-") -> str:
    return absent if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def badge(state: str) -> SafeString:
    return format_html('<span class="state state-{}">{}</span>', state, state)


def few_enough(queryset: QuerySet[ModelT]) -> list[int] | None:
    """The keys of what was chosen, or None when that is more than one request should take on."""
    chosen = list(queryset.order_by().values_list("pk", flat=True)[: MOST_AT_ONCE + 1])
    return None if len(chosen) > MOST_AT_ONCE else chosen


def confirmation(
    page: "admin.ModelAdmin[Any]", request: HttpRequest, chosen: QuerySet[Any], form: forms.Form, **words: Any
) -> TemplateResponse:
    """The page between choosing an action and doing it. `words`: `action`, `title`, `consequence`, `button`.

    With `danger` the button says by its look that it takes something away.
    """
    context = {
        **page.admin_site.each_context(request),
        **words,
        "opts": page.model._meta,
        "form": form,
        "media": page.media,
        "shown": chosen[:SHOWN_IN_CONFIRMATION],
        "keys": list(chosen.values_list("pk", flat=True)),
        "checkbox": ACTION_CHECKBOX_NAME,
    }
    return TemplateResponse(request, "auren/confirm.html", context)


def back_to(chosen: Sequence[Model]) -> HttpResponseRedirect | None:
    """One record's page after an action on one record; else the list as it was."""
    if len(chosen) != 1:
        return None
    about = chosen[0]._meta
    return HttpResponseRedirect(reverse(f"admin:{about.app_label}_{about.model_name}_change", args=[chosen[0].pk]))


def log(request: HttpRequest, changed: Sequence[Model], verb: Verb, message: str) -> None:
    """One entry for each of `changed` in the audit log, and one with the message in Django's own."""
    if changed:
        record(request, verb, *changed)
        LogEntry.objects.log_actions(request.user.pk, changed, CHANGE, message)  # type: ignore[arg-type]
