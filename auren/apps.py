from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class AurenConfig(AppConfig):
    name = "auren"
    label = "auren"

    def ready(self) -> None:
        from auren import checks  # noqa: F401, PLC0415 - registers the checks once the apps are there


class SupportConfig(AdminConfig):
    default_site = "auren.site.SupportSite"
