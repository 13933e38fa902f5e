"""Deciding a conflict in support's admin: what is shown, what is foreseen, what is done, what is refused."""

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from auren.biometrics.models import Conflict, Preference, Source
from devices.models import Patient
from tests.console.conftest import person, signed_in
from tests.webhooks.living import NOON, heart_rate, push, send_out, work
from webhooks import overriding
from webhooks.models import Delivery

LIST = "/admin/biometrics/conflict/"
FIVE = timedelta(minutes=5)


def disagree(times: int = 3) -> list[Conflict]:
    """A watch and a phone of one patient that differ by 30 beats, as a worker stores and settles it."""
    for name, value in (("Apple Watch", 60), ("iPhone", 90)):
        push(*(heart_rate(value, NOON + place * FIVE, source=name, uuid=f"{name} {place}") for place in range(times)))
    work()
    return list(Conflict.objects.order_by("start_at"))


@pytest.fixture
def conflicts(patient: Patient) -> list[Conflict]:
    return disagree()


def number(name: str) -> int:
    return Source.objects.get(name=name).pk


def ask(client: Client, one: Conflict, action: str = "override", follow: bool = True, **sent: Any) -> Any:
    return client.post(LIST, {"action": action, "_selected_action": [str(one.pk)], **sent}, follow=follow)


def words(answer: Any) -> str:
    return " ".join(unescape(answer.content.decode()).split())


def choice(one: Conflict, name: str = "iPhone", scope: str = "moment", **more: Any) -> dict[str, Any]:
    return {"source_id": number(name), "scope": scope, "note": "The watch was loose.", "seen": seen(one), **more}


def seen(one: Conflict) -> str:
    return Conflict.objects.get(pk=one.pk).updated_at.isoformat()


def winners() -> list[tuple[str, str]]:
    return list(Conflict.objects.order_by("start_at").values_list("winner__name", "state"))


def detail(client: Client, one: Conflict) -> str:
    return words(client.get(f"{LIST}{one.pk}/change/"))


def test_a_conflict_says_who_said_what_by_how_much_and_what_decided(support: Client, conflicts: list[Conflict]) -> None:
    body = detail(support, conflicts[0])
    assert "They differ by <b>30 bpm, 40 % of their mean</b>; up to 8 bpm would be agreement." in body
    assert "the order for heart rate does: watch, band, ring, phone. Apple Watch is a watch." in body
    assert re.search(r"Apple Watch <small>watch, Apple HealthKit</small>.*60 bpm.*<b class=\"counts\">counts</b>", body)
    assert re.search(r"iPhone <small>phone, Apple HealthKit</small>.*90 bpm.*does not count", body)
    assert "Nobody has decided anything about these devices here." in body


def test_the_chart_draws_each_device_and_says_the_same_as_a_table(support: Client, conflicts: list[Conflict]) -> None:
    body = detail(support, conflicts[0])
    drawing = body[body.index("<svg") : body.index("</svg>")]
    assert drawing.count("<circle") == 6
    assert 'class="moment"' in drawing
    assert "style=" not in drawing
    table = body[body.index("The chart as a table") :]
    assert table.count("<td>60 bpm</td>") == table.count("<td>90 bpm</td>") == 3
    assert "2026-11-13 13:00:00" in table  # Berlin's


def test_from_a_device_of_a_conflict_to_its_samples_and_their_delivery_in_clicks(
    support: Client, conflicts: list[Conflict]
) -> None:
    (address,) = re.findall(r'href="(/admin/biometrics/sample/[^"]+)">1 sample<', detail(support, conflicts[0]))[:1]
    body = words(support.get(address))
    assert "60 /min" in body
    assert "90 /min" not in body
    (delivery,) = set(re.findall(r'href="(/admin/webhooks/delivery/\d+/change/)', body))
    assert "Apple Watch 0" in words(support.get(delivery))


def test_what_will_change_is_said_before_and_nothing_has_changed_until_then(
    support: Client, conflicts: list[Conflict]
) -> None:
    before = Delivery.objects.count()
    form = words(ask(support, conflicts[0]))
    assert "This moment only: 2026-11-13 13:00 to 13:05" in form
    assert "This moment and those beside it, 3 conflicts: 2026-11-13 13:00 to 13:15" in form
    for scope, often in (("moment", ""), ("stretch", ", 3 conflicts"), ("metric", ", 3 conflicts")):
        page = words(ask(support, conflicts[0], foreseen="1", **choice(conflicts[0], scope=scope)))
        end = "13:15" if often else "13:05"
        change = f"Heart rate, 2026-11-13 13:00 to {end}{often}: iPhone counts in place of Apple Watch."
        assert change in page, scope
    assert winners() == [("Apple Watch", "settled")] * 3
    assert (Preference.objects.count(), Delivery.objects.count()) == (0, before)


@pytest.mark.parametrize(("scope", "switched"), [("moment", 1), ("stretch", 3), ("metric", 3), ("patient", 3)])
def test_a_decision_reaches_as_far_as_it_says(
    support: Client, conflicts: list[Conflict], scope: str, switched: int
) -> None:
    page = words(ask(support, conflicts[0], confirmed="1", **choice(conflicts[0], scope=scope)))
    assert "Done: iPhone is to c" in page
    assert "“The watch was loose.”" in page
    assert [name for name, _ in winners()] == ["iPhone"] * switched + ["Apple Watch"] * (3 - switched)
    (made,) = Preference.objects.all()
    assert (made.made_by, made.note) == ("sam", "The watch was loose.")
    assert "The watch was loose." in words(support.get(f"{LIST}{conflicts[0].pk}/history/"))


def test_a_stretch_is_one_decision_whichever_of_its_conflicts_it_is_made_from(
    support: Client, conflicts: list[Conflict], kafka: str
) -> None:
    ask(support, conflicts[2], confirmed="1", **choice(conflicts[2], scope="stretch"))
    (made,) = Preference.objects.all()
    assert (made.scope, made.since, made.until) == ("moment", NOON, NOON + 3 * FIVE)
    assert winners() == [("iPhone", "overridden")] * 3
    send_out()
    assert Delivery.objects.get(vendor="auren").state == "published"


def test_undoing_says_what_is_taken_back_and_gives_the_moment_to_the_rules(
    support: Client, conflicts: list[Conflict]
) -> None:
    one = conflicts[0]
    assert "Undo the decision" not in detail(support, one)
    ask(support, one, confirmed="1", **choice(one, scope="stretch"))
    assert "Undo the decision" in detail(support, one)
    page = words(ask(support, one, "undo"))
    assert "about heart rate, 2026-11-13 13:00 to 13:15 is taken back: “The watch was loose.”" in page
    assert "Heart rate, 2026-11-13 13:00 to 13:15, 3 conflicts: Apple Watch counts in place of iPhone." in page
    assert winners() == [("iPhone", "overridden")] * 3
    ask(support, one, "undo", confirmed="1", note="It was not.", seen=seen(one))
    assert winners() == [("Apple Watch", "settled")] * 3
    body = detail(support, one)
    assert "Undone by sam" in body
    assert "“It was not.”" in body


def test_without_a_reason_or_a_device_nothing_is_decided_and_the_form_says_why(
    support: Client, conflicts: list[Conflict]
) -> None:
    one = conflicts[0]
    page = words(ask(support, one, confirmed="1", scope="moment", note="  ", seen=seen(one)))
    assert "Choose the device that is to count." in page
    assert "Say why: whoever reads the timeline next will want to know." in page
    page = words(ask(support, one, confirmed="1", **choice(one) | {"source_id": 10**9, "scope": "all"}))
    assert page.count("Select a valid choice.") == 2
    ask(support, one, confirmed="1", **choice(one))
    assert "Say why" in words(ask(support, one, "undo", confirmed="1", note="", seen=seen(one)))
    assert winners()[0] == ("iPhone", "overridden")


def test_nobody_decides_what_has_changed_since_they_looked(support: Client, conflicts: list[Conflict]) -> None:
    one, asked = conflicts[0], choice(conflicts[0])
    overriding.override(one, source_id=number("iPhone"), scope="moment", by="clara", note="mine")
    page = words(ask(support, one, confirmed="1", **asked))
    assert "This conflict has changed since you looked at it. Nothing was decided: look again." in page
    assert "clara decided on" in page
    page = words(ask(support, one, "undo", confirmed="1", note="x", seen=asked["seen"]))
    assert "has changed since you looked at it" in page
    for made_up in ("", "now", "2026-99-99T00:00:00+00:00", "\0"):
        ask(support, one, "undo", confirmed="1", note="x", seen=made_up)
    assert winners()[0] == ("iPhone", "overridden")
    assert Preference.objects.filter(undone_at=None).count() == 1


def test_a_conflict_that_is_gone_meanwhile_is_said_to_be(support: Client, conflicts: list[Conflict]) -> None:
    one, asked = conflicts[0], choice(conflicts[0])
    push(deleted=["iPhone 0"])
    work()
    assert "This conflict is gone" in words(ask(support, one, confirmed="1", **asked))


def test_what_a_rule_decided_cannot_be_undone(support: Client, conflicts: list[Conflict]) -> None:
    assert "a rule did, and there is nothing to undo" in words(ask(support, conflicts[0], "undo"))


def test_conflicts_are_decided_one_at_a_time(support: Client, conflicts: list[Conflict]) -> None:
    chosen = [str(one.pk) for one in conflicts[:2]]
    answer = support.post(LIST, {"action": "override", "_selected_action": chosen}, follow=True)
    assert "Choose one conflict" in words(answer)


def test_without_its_right_deciding_is_neither_offered_nor_accepted(conflicts: list[Conflict]) -> None:
    user = person("few", "support")
    user.groups.clear()
    user.user_permissions.set(Permission.objects.filter(codename="view_conflict"))
    few, one = signed_in(user), conflicts[0]
    body = detail(few, one)
    assert "Override" not in body
    assert "1 sample<" not in body.replace("1 sample</td>", "")
    ask(few, one, confirmed="1", **choice(one))
    assert winners() == [("Apple Watch", "settled")] * 3


def test_the_list_takes_a_fixed_number_of_queries(support: Client, conflicts: list[Conflict]) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as asked:
            support.get(LIST)
        return len(asked.captured_queries)

    queries()  # the first request of a session writes it down
    few = queries()
    disagree(9)
    assert Conflict.objects.count() == 9
    assert queries() == few
