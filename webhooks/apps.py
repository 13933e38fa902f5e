from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "webhooks"
    label = "webhooks"

    def ready(self) -> None:
        from devices.signals import link_connected  # noqa: PLC0415 - models are there only now
        from webhooks.connecting import on_link_connected  # noqa: PLC0415

        link_connected.connect(on_link_connected, dispatch_uid="history of a new connection")
