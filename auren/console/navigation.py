"""The admin's menu: what one's role may see, in the order in which support needs it."""

from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse
from django.utils.text import capfirst

GROUPS: dict[str, dict[str, str]] = {
    "Flow": {"webhooks.delivery": "move_to_inbox", "webhooks.replay": "replay"},
    "People and devices": {
        "devices.patient": "group",
        "devices.link": "link",
        "biometrics.source": "watch",
        "devices.invitation": "mail",
        "devices.apikey": "key",
        "devices.subscription": "notifications_active",
    },
    "Data": {"biometrics.sample": "monitoring", "biometrics.conflict": "compare_arrows"},
    "Access": {
        "devices.assignment": "assignment_ind",
        "auth.user": "person",
        "auth.group": "shield_person",
        "console.accesstoken": "token",
        "console.export": "download",
        "devices.erasure": "person_remove",
        "audit.entry": "history",
    },
}
ELSE = "More"


def groups(request: HttpRequest) -> list[dict[str, Any]]:
    """In unfold's form. A page that no group names is not forgotten: it stands at the end."""
    pages = {model._meta.label_lower: model for model, page in _pages() if page.has_view_permission(request)}
    named = {label for items in GROUPS.values() for label in items}
    rest = {label: "table" for label in pages if label not in named}
    found = [{"title": "", "items": [{"title": "Overview", "icon": "dashboard", "link": reverse("admin:index")}]}]
    for title, items in {**GROUPS, ELSE: rest}.items():
        shown = [_item(pages[label], icon) for label, icon in items.items() if label in pages]
        found += [{"title": title, "items": shown}] if shown else []
    return found


def _pages() -> list[tuple[type[Model], Any]]:
    return list(admin.site._registry.items())


def _item(model: type[Model], icon: str) -> dict[str, Any]:
    about = model._meta
    link = reverse(f"admin:{about.app_label}_{about.model_name}_changelist")
    return {"title": capfirst(str(about.verbose_name_plural)), "icon": icon, "link": link}
