from django.apps import AppConfig


class AurenConfig(AppConfig):
    name = "auren"
    label = "auren"

    def ready(self) -> None:
        from auren import checks  # noqa: F401, PLC0415 - registers the checks once the apps are there
