from django.contrib.auth.views import LogoutView
from django.templatetags.static import static
from django.urls import path
from django.views.generic import RedirectView

from auren.console import live, views
from auren.console.exports import views as exports

urlpatterns = [
    path("favicon.ico", RedirectView.as_view(url=static("console/icon.svg"))),
    path("", views.patients, name="patients"),
    path("sign-in/", views.SignIn.as_view(), name="login"),
    path("sign-out/", LogoutView.as_view(), name="logout"),
    path("patients/<int:pk>/", views.patient, name="patient"),
    path("patients/<int:pk>/calendar/", views.calendar, name="calendar"),
    path("patients/<int:pk>/nights/<str:day>/", views.night, name="night"),
    path("patients/<int:pk>/timeline.json", views.timeline_json, name="timeline"),
    path("patients/<int:pk>/live", live.live, name="live"),
    path("patients/<int:pk>/export/", exports.ask_for_one, name="ask_for_export"),
    path("exports/<int:pk>/", exports.progress, name="export"),
    path("exports/<int:pk>/content", exports.content, name="export_content"),
    path("exports/<int:pk>/cancel", exports.cancel, name="cancel_export"),
]
