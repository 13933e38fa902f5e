from django.urls import path

from devices import connect
from devices.oauth import VENDORS

urlpatterns = [
    *(path(f"connect/{vendor}/", connect.invitation, {"vendor": vendor}, name="connect") for vendor in VENDORS),
    *(
        path(f"connect/{vendor}/callback", connect.callback, {"vendor": vendor}, name="connect_callback")
        for vendor in VENDORS
    ),
]
