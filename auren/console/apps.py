from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class ConsoleConfig(AppConfig):
    name = "auren.console"
    label = "console"

    def ready(self) -> None:
        from auren.console import roles  # noqa: PLC0415 - models are there only now

        # It follows every app whose rights it hands out, itself among them: permissions are made only then.
        for label in roles.APPS:
            post_migrate.connect(roles.set_up, sender=apps.get_app_config(label), dispatch_uid=f"roles of {label}")
