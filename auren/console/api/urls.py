from django.urls import path

from auren.console.api import conflicts, deliveries, described, links, metrics, patients, samples, sources, timelines
from auren.console.api.views import Nowhere

urlpatterns = [
    path("v1/metrics", metrics.Metrics.as_view(), name="api-metrics"),
    path("v1/patients", patients.Patients.as_view(), name="api-patients"),
    path("v1/patients/<int:pk>", patients.OnePatient.as_view(), name="api-patient"),
    path("v1/patients/<int:pk>/timeline", timelines.PatientTimeline.as_view(), name="api-timeline"),
    path("v1/links", links.Links.as_view(), name="api-links"),
    path("v1/links/<int:pk>", links.OneLink.as_view(), name="api-link"),
    path("v1/sources", sources.Sources.as_view(), name="api-sources"),
    path("v1/sources/<int:pk>", sources.OneSource.as_view(), name="api-source"),
    path("v1/samples", samples.Samples.as_view(), name="api-samples"),
    path("v1/conflicts", conflicts.Conflicts.as_view(), name="api-conflicts"),
    path("v1/conflicts/<int:pk>", conflicts.OneConflict.as_view(), name="api-conflict"),
    path("v1/conflicts/<int:pk>/override", conflicts.Override.as_view(), name="api-override"),
    path("v1/conflicts/<int:pk>/undo", conflicts.Undo.as_view(), name="api-undo"),
    path("v1/deliveries", deliveries.Deliveries.as_view(), name="api-deliveries"),
    path("v1/deliveries/<int:pk>", deliveries.OneDelivery.as_view(), name="api-delivery"),
    path("v1/deliveries/<int:pk>/payload", deliveries.DeliveryPayload.as_view(), name="api-payload"),
    path("v1/deliveries/<int:pk>/retry", deliveries.Retry.as_view(), name="api-retry"),
    path("v1/deliveries/<int:pk>/ignore", deliveries.Ignore.as_view(), name="api-ignore"),
    path("schema/", described.Description.as_view(), name="api-schema"),
    path("docs/", described.Docs.as_view(), name="api-docs"),
    path("", Nowhere.as_view()),
    path("<path:anything>", Nowhere.as_view()),
]
