"""Trying thousands of deliveries again: asked for as one row, done by the scheduler in slices.

A slice is one statement over at most a thousand deliveries and one transaction with the progress it makes, so that no
request waits, no transaction is long, and a scheduler that is killed in the middle goes on where it was.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils import timezone

from webhooks import actions
from webhooks.models import Delivery, Replay

SLICE = 1000  # deliveries
# What is done is tried again one by one only: all of a vendor's published deliveries at once are a year of its limits.
REPLAYABLE = ("dead", "unlinked", "ignored", "retrying")
NARROWING = ("vendor", "state", "error_class", "event_type", "origin", "link_id")


@dataclass(frozen=True)
class By:
    name: str

    def get_username(self) -> str:
        return self.name


def criteria(delivery: Delivery, names: Iterable[str]) -> dict[str, Any]:
    """What "like this" means: vendor and state always, and of the others those that were named."""
    return {name: getattr(delivery, name) for name in NARROWING if name in {"vendor", "state", *names}}


def matching(like: dict[str, Any]) -> QuerySet[Delivery]:
    """Deliveries like that; none for anything but what may be replayed."""
    known = {name: like[name] for name in NARROWING if name in like}
    if known.get("state") not in REPLAYABLE or not known.get("vendor"):
        return Delivery.objects.none()
    return Delivery.objects.filter(**known)


def ask(like: dict[str, Any], *, user_id: int, username: str) -> Replay:
    """File the wish. What comes in later is not meant, so it ends at the newest of now."""
    newest = Delivery.objects.aggregate(newest=Max("pk"))["newest"] or 0
    return Replay.objects.create(like=like, until_id=newest, user_id=user_id, requested_by=username)


def replay_slices(slices: int = 5) -> "Progress":
    """As much as one turn of the scheduler has time for."""
    total = 0
    for _ in range(slices):
        done = _slice()
        if done is None:
            return Progress(total)
        total += done
    return Progress(total, more=True)


@dataclass(frozen=True)
class Progress:
    count: int
    more: bool = False


def _slice() -> int | None:
    """The next thousand of the oldest replay that is open: how many were sent through again, None without one."""
    with transaction.atomic():
        replay = Replay.objects.select_for_update(skip_locked=True).filter(ended_at=None).order_by("pk").first()
        if replay is None:
            return None
        rows = matching(replay.like).filter(pk__gt=replay.reached_id, pk__lte=replay.until_id)
        keys = list(rows.order_by("pk").values_list("pk", flat=True)[:SLICE])
        count = _send(replay, keys) if keys else 0
        replay.seen += len(keys)
        replay.sent += count
        replay.reached_id = keys[-1] if keys else replay.reached_id
        replay.ended_at = None if len(keys) == SLICE else timezone.now()
        replay.save(update_fields=["seen", "sent", "reached_id", "ended_at"])
    return count


def _send(replay: Replay, keys: list[int]) -> int:
    chosen = Delivery.objects.filter(pk__in=keys)
    started_at = timezone.now()
    count = actions.retry(chosen, by=By(replay.requested_by))
    _log(replay, keys if count == len(keys) else _sent(chosen, replay), started_at)
    return count


def _sent(chosen: QuerySet[Delivery], replay: Replay) -> list[int]:
    """Those of a slice that were not left alone."""
    again = chosen.filter(state="received", error=f"tried again by {replay.requested_by}")
    return list(again.values_list("pk", flat=True))


def _log(replay: Replay, keys: list[int], at: Any) -> None:
    about = ContentType.objects.get_for_model(Delivery).pk
    LogEntry.objects.bulk_create(
        LogEntry(
            user_id=replay.user_id,
            content_type_id=about,
            object_id=str(key),
            object_repr=f"delivery {key}",
            action_flag=CHANGE,
            change_message=f"tried again with all like it: {replay}",
            action_time=at,
        )
        for key in keys
    )
