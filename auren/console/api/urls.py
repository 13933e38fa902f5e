from django.urls import path

from auren.console.api import metrics, patients
from auren.console.api.views import Nowhere

urlpatterns = [
    path("v1/metrics", metrics.Metrics.as_view(), name="api-metrics"),
    path("v1/patients", patients.Patients.as_view(), name="api-patients"),
    path("v1/patients/<int:pk>", patients.OnePatient.as_view(), name="api-patient"),
    path("", Nowhere.as_view()),
    path("<path:anything>", Nowhere.as_view()),
]
