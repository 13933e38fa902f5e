"""Who may do what: three groups with the least rights their work needs. This file is the truth, not the database.

`support` keeps deliveries moving and therefore sees what they carried (`view_payload`: health data, so a right of its
own), keeps devices connected (it invites, fetches, pauses and disconnects), exports what a patient is owed, and lets in
whoever typed too many wrong passwords. `admin` also decides who may see whom and which keys post, makes tokens of the
REST API, resets second factors, erases patients, and is the only role that reads the audit log.
`clinician` has no right in the admin at all: a clinician sees, and exports, the patients assigned to them now, decides
their conflicts, and nothing else. User accounts are a superuser's business, because whoever may edit users could make
themselves one; for the same reason an admin makes no token of a superuser.
"""

from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import Group, Permission, User

SUPPORT = (
    "webhooks.view_delivery",
    "webhooks.view_attempt",
    "webhooks.retry_delivery",
    "webhooks.ignore_delivery",
    "webhooks.view_payload",
    "webhooks.view_replay",
    "devices.view_patient",
    "devices.change_patient",
    "devices.view_link",
    "devices.add_link",
    "devices.pause_link",
    "devices.sync_link",
    "devices.disconnect_link",
    "devices.view_invitation",
    "devices.add_invitation",
    "devices.change_invitation",
    "devices.view_assignment",
    "devices.view_apikey",
    "devices.view_subscription",
    "devices.change_subscription",
    "devices.view_erasure",
    "biometrics.view_conflict",
    "biometrics.override_conflict",
    "biometrics.view_sample",
    "console.view_export",
    "console.export_samples",
    "console.unlock_account",
    "auth.view_user",
)
ADMIN = (
    *SUPPORT,
    "devices.add_patient",
    "devices.add_assignment",
    "devices.change_assignment",
    "devices.delete_assignment",
    "devices.add_apikey",
    "devices.change_apikey",
    "devices.add_erasure",
    "console.view_accesstoken",
    "console.add_accesstoken",
    "console.change_accesstoken",
    "console.reset_second_factor",
    "audit.view_entry",
    "auth.view_group",
)
CLINICIAN = ("biometrics.override_conflict",)
ROLES: dict[str, tuple[str, ...]] = {"support": SUPPORT, "admin": ADMIN, "clinician": CLINICIAN}
APPS = sorted({right.partition(".")[0] for right in ADMIN})


def give(user: User, role: str) -> None:
    """Put `user` into `role` and no other; support and admin may then enter the admin."""
    user.groups.set([Group.objects.get(name=role)])
    user.is_staff = role != "clinician"
    user.save(update_fields=["is_staff"])


def set_up(**_: Any) -> None:
    """Create the groups and give each exactly its rights, as far as they exist yet. Runs after every migrate."""
    for name, rights in ROLES.items():
        group, _created = Group.objects.get_or_create(name=name)
        group.permissions.set(_permissions(rights))


def _permissions(rights: Iterable[str]) -> list[Permission]:
    wanted = set(rights)
    codenames = {right.partition(".")[2] for right in wanted}
    found = Permission.objects.filter(codename__in=codenames).select_related("content_type")
    return [right for right in found if f"{right.content_type.app_label}.{right.codename}" in wanted]
