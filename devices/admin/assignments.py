"""Which clinician may see which patient."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import ForeignKey
from django.http import HttpRequest
from django.utils import timezone

from auren.admin import BigTableAdmin, exactly
from devices.models import Assignment


@admin.register(Assignment)
class AssignmentAdmin(BigTableAdmin[Assignment]):
    fields = ("clinician", "patient", "since", "until")
    list_display = ("clinician", "patient", "starts", "ends")
    what_would_be_here = "Which clinician may see which patient, from when until when."
    list_select_related = ("clinician", "patient")
    search_fields = ("=clinician__username", "=patient__external_id")
    search_help_text = "A clinician's user name or a patient's external id, exactly as it is"
    autocomplete_fields = ("patient",)

    @admin.display(description="since", ordering="since")
    def starts(self, assignment: Assignment) -> str:
        return exactly(assignment.since)

    @admin.display(description="until", ordering="until")
    def ends(self, assignment: Assignment) -> str:
        return exactly(assignment.until)

    def formfield_for_foreignkey(self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "clinician":
            kwargs["queryset"] = User.objects.filter(groups__name="clinician", is_active=True).order_by("username")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"since": timezone.now(), **super().get_changeform_initial_data(request)}
