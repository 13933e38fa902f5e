from django.apps import AppConfig


class SandboxConfig(AppConfig):
    name = "auren.sandbox"
    label = "sandbox"
