from typing import Any

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig
from django.db.backends.signals import connection_created


class AurenConfig(AppConfig):
    name = "auren"
    label = "auren"

    def ready(self) -> None:
        from auren import checks  # noqa: F401, PLC0415 - registers the checks once the apps are there

        connection_created.connect(plan_only, dispatch_uid="auren.plan_only")


def plan_only(connection: Any, **_: Any) -> None:
    """No just-in-time compilation: `auren.biometrics.store.SESSION` says what it costs."""
    with connection.cursor() as cursor:
        cursor.execute("SET jit = off")


class SupportConfig(AdminConfig):
    default_site = "auren.site.SupportSite"
