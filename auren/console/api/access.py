"""Who may see what. Whoever may not see a thing is told exactly what they would be told of nothing: 404."""

from typing import Any, TypeVar

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Model, QuerySet
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request

from auren.console.views import patients_of
from devices.models import Patient

RowT = TypeVar("RowT", bound=Model)

SEE_PATIENTS = "devices.view_patient"


def holds(right: str) -> type[IsAuthenticated]:
    """A permission for views that are about no patient of one's own: `right` or 403."""

    class Holds(IsAuthenticated):
        def has_permission(self, request: Request, view: Any) -> bool:
            return super().has_permission(request, view) and user_of(request).has_perm(right)

    return Holds


def user_of(request: Request) -> User:
    assert not isinstance(request.user, AnonymousUser), "every view that asks wants somebody signed in"
    return request.user


def seen(rows: QuerySet[RowT], user: User, right: str, patient: str = "patient_id") -> QuerySet[RowT]:
    """`rows` of all patients for whoever holds `right`; else of the clinician's own. `patient` is the column."""
    return rows if user.has_perm(right) else rows.filter(**{f"{patient}__in": patients_of(user).values("pk")})


def patients_seen(user: User, right: str = SEE_PATIENTS) -> QuerySet[Patient]:
    """Everybody for whoever holds `right`; else the patients assigned to the clinician `user` at this moment."""
    return Patient.objects.all() if user.has_perm(right) else patients_of(user)
