from django.templatetags.static import static
from django.urls import path
from django.views.generic import RedirectView

from auren.console import accounts, decisions, live, signing_in, views
from auren.console.exports import views as exports

urlpatterns = [
    path("favicon.ico", RedirectView.as_view(url=static("console/icon.svg"))),
    path("", views.patients, name="patients"),
    path("sign-in/", signing_in.SignIn.as_view(), name="login"),
    path("sign-in/code/", signing_in.code, name="code"),
    path("sign-in/set-up/", signing_in.set_up, name="set_up"),
    path("sign-out/", signing_in.SignOut.as_view(), name="logout"),
    path("account/", accounts.account, name="account"),
    path("account/password/", accounts.password, name="password"),
    path("account/second-factor/", accounts.replace, name="second_factor"),
    path("account/recovery-codes/", accounts.recovery_codes, name="recovery_codes"),
    path("patients/<int:pk>/", views.patient, name="patient"),
    path("patients/<int:pk>/calendar/", views.calendar, name="calendar"),
    path("patients/<int:pk>/nights/<str:day>/", views.night, name="night"),
    path("patients/<int:pk>/conflicts/<int:number>/", decisions.conflict, name="conflict"),
    path("patients/<int:pk>/timeline.json", views.timeline_json, name="timeline"),
    path("patients/<int:pk>/live", live.live, name="live"),
    path("patients/<int:pk>/export/", exports.ask_for_one, name="ask_for_export"),
    path("exports/<int:pk>/", exports.progress, name="export"),
    path("exports/<int:pk>/content", exports.content, name="export_content"),
    path("exports/<int:pk>/cancel", exports.cancel, name="cancel_export"),
]
