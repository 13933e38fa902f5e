"""Deciding a conflict on a page: what can be chosen, what that would change, and doing it.

Three steps, for support and clinicians alike: choose, see what changes, say yes. Between the second and the third the
conflict may change; then nothing is done, and the page says so.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from django import forms
from django.db import transaction
from django.http import HttpRequest

from auren.admin import log
from auren.audit.models import Verb
from auren.biometrics.metrics import BY_NUMBER
from auren.biometrics.models import Conflict, Source
from auren.console import lanes
from auren.console.disputes import Dispute, about, local, span
from webhooks import overriding
from webhooks.overriding import CannotDecide, Effect, Scope, Switch
from webhooks.telling import lock_timeline

STRETCH = "stretch"  # a moment that lasts over all the conflicts that a timeline shows as one
MOST_NAMED = 5


class Changed(CannotDecide):
    """The conflict is not what the page showed when somebody decided."""


class Reason(forms.Form):
    note = forms.CharField(
        label="Why",
        max_length=overriding.MOST_CHARACTERS["note"],
        widget=forms.Textarea(attrs={"rows": 3}),
        error_messages={"required": "Say why: whoever reads the timeline next will want to know."},
    )
    seen = forms.CharField(widget=forms.HiddenInput, required=False)


class Choice(Reason):
    """Which device, how far, and why."""

    source_id = forms.TypedChoiceField(
        label="Which device counts",
        coerce=int,
        widget=forms.RadioSelect,
        error_messages={"required": "Choose the device that is to count."},
    )
    scope = forms.ChoiceField(label="How far", widget=forms.RadioSelect, initial="moment")
    field_order = ("source_id", "scope", "note", "seen")

    def __init__(self, dispute: Dispute, data: Any = None) -> None:
        super().__init__(data, initial={"seen": seen(dispute.conflict)})
        cast("forms.ChoiceField", self.fields["source_id"]).choices = [
            (side.source.pk, f"{side.source.name}: {side.amount}{', counts now' if side.wins else ''}")
            for side in dispute.sides
        ]
        cast("forms.ChoiceField", self.fields["scope"]).choices = list(_scopes(dispute))


def hide(form: forms.Form) -> None:
    """Carry a choice through the page that says what it changes."""
    for field in form.fields.values():
        field.widget = forms.HiddenInput()


def _scopes(dispute: Dispute) -> Iterator[tuple[str, str]]:
    conflict, label = dispute.conflict, lanes.within(dispute.metric.label)
    yield "moment", f"This moment only: {span(conflict.start_at, conflict.end_at, dispute.zone)}"
    if len(dispute.alike) > 1:
        often = len(dispute.alike)
        yield STRETCH, f"This moment and those beside it, {often} conflicts: {span(*dispute.stretch, dispute.zone)}"
    yield "metric", f"All {label} from {local(conflict.start_at, dispute.zone)} on, also what is still to come"
    yield "patient", f"Everything, since ever: this device comes first in {dispute.patient}'s own order"


def seen(conflict: Conflict) -> str:
    """What a page remembers of the conflict it showed; another text once that changes."""
    return conflict.updated_at.isoformat()


def override(dispute: Dispute, asked: dict[str, Any], *, by: str) -> Conflict:
    """Raises `CannotDecide`, in words."""
    stretch = asked["scope"] == STRETCH
    conflict = dispute.alike[0] if stretch else dispute.conflict
    return overriding.override(
        conflict,
        source_id=asked["source_id"],
        scope=cast("Scope", "moment" if stretch else asked["scope"]),
        until=dispute.stretch[1] if stretch else None,
        by=by,
        note=asked["note"],
    )


def undo(dispute: Dispute, note: str, *, by: str) -> None:
    overriding.undo(dispute.conflict, by=by, note=note)


def unchanged(dispute: Dispute, known: str, act: Callable[[], Any]) -> Any:
    """`act()`, under the lock of the timeline, if the conflict is still what the page that says `known` showed."""
    conflict = dispute.conflict
    with transaction.atomic():
        lock_timeline(conflict.patient_id)
        now = Conflict.objects.filter(pk=conflict.pk).values_list("updated_at", flat=True).first()
        if now is None:
            raise overriding.ConflictGone("This conflict is gone: the devices agree by now. Nothing was changed.")
        if now.isoformat() != known:
            raise Changed("This conflict has changed since you looked at it. Nothing was decided: look again.")
        return act()


def carry_out(
    request: HttpRequest, dispute: Dispute, known: str, act: Callable[[], Any], verb: Verb, done: str
) -> None:
    """`act()`, if the conflict is `unchanged`, and what was `done` into the logs, in one transaction."""
    with transaction.atomic():
        unchanged(dispute, known, act)
        log(request, [dispute.conflict], verb, done)


def foresee(dispute: Dispute, act: Callable[[], object]) -> list[str]:
    """What `act()` would change, in sentences. Raises what it raises."""
    effect = overriding.foresee(dispute.conflict.patient_id, act)
    return [*_switched(effect, dispute), *_others(effect)] or ["No conflict of now changes: it counts for what comes."]


def _switched(effect: Effect, dispute: Dispute) -> Iterator[str]:
    names = _names_of(effect)
    groups = _together(effect.switched)
    for group in groups[:MOST_NAMED]:
        first, last = group[0], group[-1]
        often = f", {_conflicts(len(group))}" if len(group) > 1 else ""
        when = span(first.start_at, last.end_at, dispute.zone)
        change = f"{names[first.after]} counts in place of {names[first.before]}"
        yield f"{BY_NUMBER[first.metric].label}, {when}{often}: {change}."
    rest = groups[MOST_NAMED:]
    if rest:
        last = rest[-1][-1]
        more = _conflicts(sum(map(len, rest)))
        yield f"Another device counts in {more} more, the last one on {local(last.start_at, dispute.zone)}."


def _together(switched: Iterable[Switch]) -> list[list[Switch]]:
    """Those near each other that change in the same way, as one."""
    groups: list[list[Switch]] = []
    latest: dict[tuple[int, int, int], list[Switch]] = {}
    for switch in switched:
        kind = (switch.metric, switch.before, switch.after)
        group = latest.get(kind)
        if group and switch.start_at - group[-1].end_at <= lanes.NEAR:
            group.append(switch)
        else:
            latest[kind] = [switch]
            groups.append(latest[kind])
    return groups


def _others(effect: Effect) -> Iterator[str]:
    if effect.kept:
        yield f"The same device counts as before, for another reason: in {_conflicts(effect.kept)}."
    if effect.gone:
        yield f"A day's total is in conflict no more: {_conflicts(effect.gone)}."
    if effect.come:
        yield f"A day's total is in conflict that was not: {_conflicts(effect.come)}."


def _conflicts(number: int) -> str:
    return "1 conflict" if number == 1 else f"{number:,} conflicts"


def _names_of(effect: Effect) -> dict[int, str]:
    numbers = {number for switch in effect.switched for number in (switch.before, switch.after)}
    known = dict(Source.objects.filter(pk__in=numbers).values_list("pk", "name"))
    return {number: known.get(number, f"device {number}") for number in numbers}


def reach(asked: dict[str, Any], dispute: Dispute) -> str:
    """What a choice is, as one sentence above what it changes."""
    name = dispute.names[asked["source_id"]]
    label = lanes.within(dispute.metric.label)
    start, end = dispute.conflict.start_at, dispute.conflict.end_at
    return {
        "moment": f"{name} is to count for {label}, {span(start, end, dispute.zone)}.",
        STRETCH: f"{name} is to count for {label}, {span(*dispute.stretch, dispute.zone)}.",
        "metric": f"{name} is to count for all {label} from {local(start, dispute.zone)} on, where it says anything.",
        "patient": f"{name} is to come first of {dispute.patient}'s devices, for every metric, since ever.",
    }[asked["scope"]]


def taken_back(dispute: Dispute) -> str:
    """What undoing takes back, as one sentence."""
    made = dispute.conflict.preference
    if made is None:
        raise CannotDecide("Nobody has decided this conflict: a rule did, and there is nothing to undo.")
    on, what = local(made.made_at, dispute.zone), about(made, dispute.zone)
    return f"{made.made_by}'s decision of {on} about {what} is taken back: “{made.note}”."
