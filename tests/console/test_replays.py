"""Trying all deliveries like one again: asked for on a page, done by the scheduler, visible while it runs."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from tests.console.test_deliveries import act, delivery, without
from tests.webhooks.living import heart_rate, patient, push, tries, work
from webhooks import replays
from webhooks.models import Delivery, Replay
from webhooks.replays import replay_slices
from webhooks.schedule import chores


def dead(**fields: Any) -> Delivery:
    return delivery(**{"state": "dead", "error_class": "Refused", **fields})


def states() -> dict[int, str]:
    return dict(Delivery.objects.values_list("pk", "state"))


def like(client: Client, one: Delivery, **same: str) -> Replay:
    act(client, "retry_all_like", one, confirmed="1", **same)
    return Replay.objects.get()


def test_all_like_one_are_tried_again_in_slices_and_nothing_else_is(
    support: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "SLICE", 2)
    meant = [dead() for _ in range(5)]
    others = [dead(vendor="whoop"), dead(error_class="ReadTimeout"), dead(event_type="workout.updated")]
    others.append(delivery(state="retrying", error_class="Refused"))
    replay = like(support, meant[0], same_error_class="1", same_event_type="1")
    later = dead()
    assert replay_slices(1).more
    assert (Replay.objects.get().sent, Replay.objects.get().state) == (2, "pending")
    assert not replay_slices().more
    replay.refresh_from_db()
    assert (replay.seen, replay.sent, replay.state) == (5, 5, "done")
    after = states()
    assert {after[one.pk] for one in meant} == {"received"}
    assert {after[one.pk] for one in (*others, later)} == {"dead", "retrying"}


def test_a_replay_keeps_the_id_is_one_more_attempt_and_is_in_the_log(support: Client) -> None:
    patient()
    one = push(heart_rate(60))
    work()
    Delivery.objects.update(state="dead")
    like(support, one)
    replay_slices()
    work()
    assert Delivery.objects.get().pk == one.pk
    assert len(tries(one)) == 2
    (entry,) = LogEntry.objects.filter(object_id=str(one.pk), content_type__model="delivery")
    assert (entry.user.username, "tried again with all like it" in entry.change_message) == ("sam", True)


def test_what_a_worker_holds_is_left_alone_and_counted(support: Client) -> None:
    held = dead(lease_until=timezone.now() + timedelta(minutes=1))
    like(support, dead())
    replay_slices()
    replay = Replay.objects.get()
    assert (replay.seen, replay.sent) == (2, 1)
    assert states()[held.pk] == "dead"
    assert not LogEntry.objects.filter(object_id=str(held.pk), content_type__model="delivery").exists()
    assert "a worker had them" in support.get(f"/admin/webhooks/replay/{replay.pk}/change/").content.decode()


def test_the_page_says_first_what_must_be_the_same_and_asks(support: Client) -> None:
    page = act(support, "retry_all_like", dead()).content.decode()
    assert "The same error class" in page
    assert "Of this vendor and in this state there are 1." in page
    assert "Refused" in page
    assert not Replay.objects.exists()


@pytest.mark.parametrize("state", ["published", "stored", "received"])
def test_what_is_done_or_under_way_is_not_tried_again_by_the_thousand(support: Client, state: str) -> None:
    one = delivery(state=state)
    assert "Choose one delivery that is dead" in act(support, "retry_all_like", one, confirmed="1").content.decode()
    Replay.objects.create(like={"vendor": "oura", "state": state}, until_id=one.pk, user_id=1, requested_by="sam")
    replay_slices()
    assert states()[one.pk] == state


def test_a_replay_shows_its_progress_and_can_be_stopped(support: Client) -> None:
    one = dead()
    replay = like(support, one)
    here = f"/admin/webhooks/replay/{replay.pk}/change/"
    page = support.get(here).content.decode()
    assert "0, 1 to go" in page
    chosen = {"action": "stop", "_selected_action": [str(replay.pk)]}
    assert 'name="confirmed"' in support.post("/admin/webhooks/replay/", chosen).content.decode()
    support.post("/admin/webhooks/replay/", {**chosen, "confirmed": "1"})
    replay_slices()
    assert states()[one.pk] == "dead"
    assert "state-stopped" in support.get(here).content.decode()


def test_without_the_right_to_retry_nothing_is_asked_for(database: str) -> None:
    act(without("retry_delivery"), "retry_all_like", dead(), confirmed="1")
    assert not Replay.objects.exists()


def test_the_scheduler_looks_for_replays(support: Client) -> None:
    one = dead()
    like(support, one)
    (chore,) = [chore for chore in chores() if chore.name == "deliveries tried again with all like them"]
    chore.run_if_due(0.0)
    assert states()[one.pk] == "received"
