from django.contrib import admin
from django.urls import include, path

admin.site.site_header = admin.site.site_title = "AUREN support"
admin.site.enable_nav_sidebar = False  # lists need the width; the breadcrumbs lead back
admin.site.index_title = "What the bridge holds"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include("auren.console.api.urls")),
    path("", include("devices.urls")),
    path("", include("auren.console.urls")),
]

handler400 = "auren.console.api.problems.bad_request"
handler500 = "auren.console.api.problems.server_error"
