from django.apps import AppConfig


class BiometricsConfig(AppConfig):
    name = "auren.biometrics"
    label = "biometrics"
