"""What people decide about devices: it holds, it is told, and it can be taken back."""

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest

from auren.biometrics import timeline
from auren.biometrics.metrics import BY_NAME
from auren.biometrics.models import Conflict, Preference, Source
from auren.biometrics.models import Timeline as Version
from devices.models import Patient
from tests.webhooks.living import NOON, heart_rate, patient, push, send_out, work
from tests.webhooks.reading import read
from tests.webhooks.test_events import keeps_the_contract
from webhooks.events import CONFLICTS
from webhooks.models import Delivery
from webhooks.overriding import CannotDecide, ConflictGone, current_order, foresee, order_sources, override, undo

FIVE = timedelta(minutes=5)


@pytest.fixture
def who(database: str) -> str:
    """A patient whose name nobody has used before: topics outlive the test."""
    name = f"overriding-{uuid4().hex[:12]}"
    patient(name)
    return name


def say(who: str, *values: float, source: str, at: datetime = NOON, uuid: str = "r") -> None:
    """Heart rates five minutes apart."""
    beats = [
        heart_rate(value, at + place * FIVE, source=source, uuid=f"{uuid} {source} {place}")
        for place, value in enumerate(values)
    ]
    push(*beats, user=who)
    work()


def disagree(who: str) -> list[Conflict]:
    """Two watches that differ three times, with nothing to tell them apart but their number."""
    say(who, 60, 60, 60, source="A watch")
    say(who, 90, 90, 90, source="Another watch")
    return conflicts(who)


def conflicts(who: str) -> list[Conflict]:
    found = Conflict.objects.filter(patient_id=number(who)).select_related("winner").order_by("start_at")
    return list(found)


def number(who: str) -> int:
    return Patient.objects.get(external_id=who).pk


def source(who: str, name: str) -> int:
    return Source.objects.get(name=name, link_id__in=Patient.objects.get(external_id=who).links.values("pk")).pk


def drawn(who: str) -> list[float | None]:
    """The settled line's values, by time."""
    window = timeline.Window(number(who), NOON - FIVE, NOON + 12 * FIVE, ZoneInfo("Europe/Berlin"))
    lines = timeline.read(window, [BY_NAME["heart_rate"]]).series[0].lines
    points = [(at, value) for line in lines for at, value in zip(line.start, line.value, strict=True)]
    return [value for _, value in sorted(point for point in points if point[1] is not None)]


def outcome(who: str) -> list[tuple[str, str, str]]:
    return [(conflict.winner.name, conflict.rule, conflict.state) for conflict in conflicts(who)]


UNTOUCHED = ("Another watch", "recency", "open")
BY_PERSON = ("A watch", "person", "overridden")


def test_at_one_moment_the_chosen_device_counts_and_nowhere_else(who: str) -> None:
    _, second, _ = disagree(who)
    decided = override(second, source_id=source(who, "A watch"), scope="moment", by="dr.lee", note=" loose strap ")
    assert (decided.pk, decided.state, decided.resolved_by) == (second.pk, "overridden", "dr.lee")
    assert decided.note == "loose strap"
    assert outcome(who) == [UNTOUCHED, BY_PERSON, UNTOUCHED]
    assert drawn(who) == [90, 60, 90]


def test_for_a_metric_it_counts_from_that_conflict_on_and_for_what_comes_later(who: str) -> None:
    _, second, _ = disagree(who)
    override(second, source_id=source(who, "A watch"), scope="metric", by="dr.lee", note="loose strap")
    later = NOON + 6 * FIVE
    say(who, 60, 61, source="A watch", at=later, uuid="later")
    say(who, 90, 62, source="Another watch", at=later, uuid="later")
    assert outcome(who) == [UNTOUCHED, BY_PERSON, BY_PERSON, BY_PERSON]
    assert drawn(who) == [90, 60, 60, 60, 61]


def test_for_a_patient_it_comes_first_in_an_order_that_the_next_one_adds_to(who: str) -> None:
    first, _, last = disagree(who)
    watch, another = source(who, "A watch"), source(who, "Another watch")
    override(last, source_id=watch, scope="patient", by="dr.lee", note="the other one is broken")
    assert outcome(who) == [("A watch", "patient_order", "settled")] * 3
    override(first, source_id=another, scope="patient", by="dr.lee", note="mended")
    assert current_order(number(who)) == [another, watch]
    assert outcome(who) == [("Another watch", "patient_order", "settled")] * 3


def test_an_order_of_devices_counts_and_taking_it_back_leaves_the_one_before(who: str) -> None:
    disagree(who)
    watch, another = source(who, "A watch"), source(who, "Another watch")
    order_sources(number(who), [watch, another], by="dr.lee", note="worn tighter")
    newer = order_sources(number(who), [another, watch], by="dr.lee", note="worn looser")
    assert drawn(who) == [90, 90, 90]
    undone = undo(newer, by="dr.ray", note="no, tighter")
    assert (undone.undone_by, undone.undone_note, undone.undone_at is None) == ("dr.ray", "no, tighter", False)
    assert outcome(who) == [("A watch", "patient_order", "settled")] * 3


def test_undoing_leaves_a_conflict_to_the_rules_again(who: str) -> None:
    _, second, _ = disagree(who)
    decided = override(second, source_id=source(who, "A watch"), scope="moment", by="dr.lee", note="loose strap")
    undo(decided, by="dr.ray", note="it was not")
    assert outcome(who) == [UNTOUCHED] * 3
    again = conflicts(who)[1]
    assert (again.resolved_by, again.note, again.preference_id) == ("", "", None)


def test_a_decision_holds_when_the_same_data_come_again(who: str) -> None:
    _, second, _ = disagree(who)
    override(second, source_id=source(who, "A watch"), scope="moment", by="dr.lee", note="loose strap")
    say(who, 60, 60, 60, source="A watch")
    say(who, 95, 95, 95, source="Another watch")
    assert outcome(who) == [UNTOUCHED, BY_PERSON, UNTOUCHED]


def test_a_decision_is_published_and_so_is_taking_it_back(who: str, kafka: str) -> None:
    _, second, _ = disagree(who)
    decided = override(second, source_id=source(who, "A watch"), scope="moment", by="dr.lee", note="loose strap")
    undo(decided, by="dr.lee", note="it was not")
    send_out()
    told = [m for m in read(kafka, who) if m.topic == CONFLICTS and m.body["vendor"] == "auren"]
    for message in told:
        keeps_the_contract(message)
    assert [(m.body["winner"], m.body["rule"], m.body["state"], m.body["origin"]) for m in told] == [
        (source(who, "A watch"), "person", "overridden", "operator"),
        (source(who, "Another watch"), "recency", "open", "operator"),
    ]
    assert [d.event_type for d in Delivery.objects.filter(vendor="auren").order_by("pk")] == [
        "conflict.overridden",
        "conflict.undone",
    ]


def test_a_decision_that_settles_nothing_is_kept_and_raises_the_version_all_the_same(who: str) -> None:
    say(who, 60, source="A watch")
    say(who, 61, source="Another watch")
    before = Version.objects.get(patient_id=number(who)).version
    order_sources(number(who), [source(who, "Another watch")], by="dr.lee", note="worn tighter")
    assert Version.objects.get(patient_id=number(who)).version == before + 1
    assert not Delivery.objects.filter(vendor="auren").exists()
    assert drawn(who) == [61]


def test_nothing_of_a_refused_decision_stays(who: str) -> None:
    first, second, _ = disagree(who)
    watch = source(who, "A watch")
    other = Source.objects.create(link_id=99, name="Somebody's ring", kind="ring")
    version = Version.objects.get(patient_id=number(who)).version
    refused: list[tuple[str, Callable[[], object]]] = [
        (
            "says nothing in this conflict",
            lambda: override(first, source_id=other.pk, scope="moment", by="a", note="n"),
        ),
        ("in a note", lambda: override(first, source_id=watch, scope="moment", by="a", note="  ")),
        ("who decides", lambda: override(first, source_id=watch, scope="moment", by="", note="n")),
        ("plain text", lambda: override(first, source_id=watch, scope="moment", by="a", note="n\0")),
        ("is no scope", lambda: override(first, source_id=watch, scope="week", by="a", note="n")),  # type: ignore[arg-type]
        ("Nobody has decided", lambda: undo(second, by="a", note="n")),
        ("at least one device", lambda: order_sources(number(who), [], by="a", note="n")),
        ("each device once", lambda: order_sources(number(who), [watch, watch], by="a", note="n")),
        ("Not a device of", lambda: order_sources(number(who), [watch, other.pk], by="a", note="n")),
        ("no such patient", lambda: order_sources(10**9, [watch], by="a", note="n")),
    ]
    for words, act in refused:
        with pytest.raises(CannotDecide, match=words):
            act()
    assert not Preference.objects.exists()
    assert Version.objects.get(patient_id=number(who)).version == version


def test_a_conflict_that_is_gone_cannot_be_overridden(who: str) -> None:
    first, _, _ = disagree(who)
    say(who, 60, 60, 60, source="Another watch")
    with pytest.raises(ConflictGone, match="agree by now"):
        override(first, source_id=source(who, "A watch"), scope="moment", by="dr.lee", note="loose strap")


def test_a_decision_is_taken_back_once(who: str) -> None:
    disagree(who)
    decided = order_sources(number(who), [source(who, "A watch")], by="dr.lee", note="worn tighter")
    undo(decided, by="dr.lee", note="no")
    with pytest.raises(CannotDecide, match=r"dr\.lee has undone"):
        undo(decided, by="dr.ray", note="no")


def test_a_moment_may_last_over_the_conflicts_that_follow_and_is_undone_as_one(who: str) -> None:
    first, *_, last = disagree(who)
    made = override(
        first, source_id=source(who, "A watch"), scope="moment", until=last.end_at, by="dr.lee", note="loose"
    )
    assert made.preference is not None
    assert outcome(who) == [BY_PERSON] * 3
    undo(last, by="dr.lee", note="no")
    assert outcome(who) == [UNTOUCHED] * 3


def test_what_a_decision_would_do_is_what_it_then_does_and_nothing_of_it_stays(who: str) -> None:
    _, second, _ = disagree(who)

    def decide() -> Conflict:
        return override(second, source_id=source(who, "A watch"), scope="metric", by="dr.lee", note="loose")

    version = Version.objects.get(pk=number(who)).version
    effect = foresee(number(who), decide)
    assert [(switch.start_at, switch.after) for switch in effect.switched] == [
        (NOON + FIVE, source(who, "A watch")),
        (NOON + 2 * FIVE, source(who, "A watch")),
    ]
    assert (effect.kept, effect.gone, effect.come) == (0, 0, 0)
    assert outcome(who) == [UNTOUCHED] * 3
    assert (Preference.objects.count(), Version.objects.get(pk=number(who)).version) == (0, version)
    decide()
    assert outcome(who) == [UNTOUCHED, BY_PERSON, BY_PERSON]
    nothing = foresee(number(who), lambda: undo(second, by="dr.lee", note="no"))
    assert [switch.after for switch in nothing.switched] == [source(who, "Another watch")] * 2


def test_what_cannot_be_decided_cannot_be_foreseen(who: str) -> None:
    first = disagree(who)[0]
    with pytest.raises(CannotDecide, match="nothing to undo"):
        foresee(number(who), lambda: undo(first, by="dr.lee", note="no"))
    assert outcome(who) == [UNTOUCHED] * 3
