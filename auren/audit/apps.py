from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "auren.audit"
    label = "audit"
