from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include("auren.console.api.urls")),
    path("", include("devices.urls")),
    path("", include("auren.console.urls")),
]

handler400 = "auren.console.api.problems.bad_request"
handler500 = "auren.console.api.problems.server_error"
