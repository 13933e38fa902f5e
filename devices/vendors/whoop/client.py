"""What to ask WHOOP's API v2 for. https://developer.whoop.com/api

A recovery is the odd one: it has no id, is announced under its sleep's, and is only told apart by it.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from math import ceil
from typing import Any
from urllib.parse import quote

from devices.vendors import times
from devices.vendors.client import Answer, Api, Ask, NotFound, Rejected
from devices.vendors.normalised import Document
from devices.vendors.paging import PagedList, object_of
from devices.vendors.whoop.normalise import is_v1_id

__all__ = ["HISTORY", "HISTORY_DAYS_PER_CALL", "POLLED", "fetch", "is_v1_id"]

# Kinds to list when a patient links a band, the most telling first.
HISTORY: tuple[str, ...] = ("recovery", "sleep", "cycle", "workout")
# A page holds at most 25 rows, and a day has one recovery and one cycle: so many days are mostly one call.
HISTORY_DAYS_PER_CALL: dict[str, int] = dict.fromkeys(HISTORY, 24)

# What no webhook announces: how many seconds apart it is asked for, and at least how many days back. A link's polls
# and its daily reconciliation make some ten calls a day, so WHOOP's usual 10,000 a day are enough for 500 people.
POLLED: dict[str, tuple[int, int]] = {"cycle": (6 * 3600, 3), "body_measurement": (24 * 3600, 1)}

ROWS_PER_PAGE = 25
DAY = timedelta(days=1)
SLEEP = "/v2/activity/sleep"
RECOVERY = "/v2/recovery"
BODY = "/v2/user/measurement/body"
PATHS = {"sleep": SLEEP, "workout": "/v2/activity/workout", "cycle": "/v2/cycle", "recovery": RECOVERY}
PAGES = PagedList(rows="records", token_parameter="nextToken")  # noqa: S106 (a parameter's name)
MATCHING_PAGES = 4  # of recoveries around one sleep: far more than those days hold


async def fetch(ask: Ask, api: Api) -> Answer:
    """The document `ask` names, else the list of its window as `{"records": [...]}`. Raises an `ApiError`.

    Recoveries come with the sleep they belong to under `sleep`, a body measurement with its `user_id`.
    """
    if ask.kind == "body_measurement":
        body = object_of(await api.get(BODY), BODY)
        return Answer(ask.kind, body | {"user_id": ask.vendor_user_id})
    if ask.kind not in PATHS:
        raise Rejected(f"WHOOP has no {ask.kind} to ask for", error_class="unknown_kind")
    if ask.object_id:
        return Answer(ask.kind, await fetch_document(ask.kind, ask.object_id, api))
    return await fetch_list(ask, api)


async def fetch_document(kind: str, object_id: str, api: Api) -> Document:
    if kind != "cycle" and is_v1_id(object_id):
        raise Rejected(f"{object_id} is an id of WHOOP's API v1, which is gone", error_class="v1_id")
    if kind == "recovery":
        return await fetch_recovery(object_id, api)
    return await get_object(f"{PATHS[kind]}/{quote(object_id, safe='')}", api)


async def get_object(path: str, api: Api, params: dict[str, str] | None = None) -> Document:
    return object_of(await api.get(path, params), path)


async def fetch_recovery(sleep_id: str, api: Api) -> Document:
    """The recovery that belongs to a sleep, with that sleep. Raises `NotFound` when there is none (yet)."""
    sleep = await fetch_document("sleep", sleep_id, api)
    recovery = await recovery_of_cycle(sleep, api)
    if recovery is None or not belongs_to(recovery, sleep_id):
        recovery = await find_recovery(sleep_id, sleep, api)
    return recovery | {"sleep": sleep}


async def recovery_of_cycle(sleep: Document, api: Api) -> Document | None:
    cycle_id = sleep.get("cycle_id")
    if isinstance(cycle_id, bool) or not isinstance(cycle_id, int | str):
        return None
    try:
        return await get_object(f"/v2/cycle/{quote(str(cycle_id), safe='')}/recovery", api)
    except NotFound:
        return None


async def find_recovery(sleep_id: str, sleep: Document, api: Api) -> Document:
    """The recovery of that sleep among those around it: a cycle's recovery may be that of another sleep."""

    def matching(rows: list[Any]) -> list[Document]:
        return [row for row in rows if isinstance(row, dict) and belongs_to(row, sleep_id)]

    rows, _ = await PAGES.read(
        api, RECOVERY, around(sleep), pages=MATCHING_PAGES, enough=lambda rows: bool(matching(rows))
    )
    if not matching(rows):
        raise NotFound(f"WHOOP has no recovery of sleep {sleep_id}")
    return matching(rows)[0]


def around(sleep: Document) -> dict[str, str]:
    """A window that a sleep's recovery must lie in; without usable times, the latest page."""
    try:
        return window(times.parse(sleep.get("start")).at - DAY, times.parse(sleep.get("end")).at + DAY)
    except ValueError:
        return window(None, None)


def belongs_to(recovery: Document, sleep_id: str) -> bool:
    return str(recovery.get("sleep_id")).lower() == sleep_id.lower()


async def fetch_list(ask: Ask, api: Api) -> Answer:
    rows, next_page = await PAGES.read(
        api, PATHS[ask.kind], window(ask.start_at, ask.end_at), token=ask.page_token, pages=ask.pages
    )
    if ask.kind == "recovery":
        rows = await with_sleeps(rows, ask, api)
    return Answer(ask.kind, {"records": rows}, next_page)


def window(start_at: datetime | None, end_at: datetime | None) -> dict[str, str]:
    bounds = {"start": start_at, "end": end_at}
    times_asked = {name: times.to_text(at) for name, at in bounds.items() if at is not None}
    return {"limit": str(ROWS_PER_PAGE)} | times_asked


async def with_sleeps(recoveries: list[Any], ask: Ask, api: Api) -> list[Any]:
    wanted = {name for row in recoveries if (name := sleep_id_of(row))}
    sleeps = await sleeps_listed(wanted, ask, api)
    for sleep_id in sorted(wanted - sleeps.keys()):
        try:
            sleeps[sleep_id] = await fetch_document("sleep", sleep_id, api)
        except NotFound:
            continue  # deleted in between: the recovery will be withdrawn by its own event
    return [row | {"sleep": sleeps[sleep_id_of(row)]} if sleep_id_of(row) in sleeps else row for row in recoveries]


async def sleeps_listed(wanted: Collection[str], ask: Ask, api: Api) -> dict[str, Document]:
    """The wanted sleeps as far as the window's list has them; none where asking one by one takes fewer calls."""
    if ask.start_at is None or ask.end_at is None:
        return {}
    start_at, end_at = ask.start_at - DAY, ask.end_at + DAY
    calls = ceil((end_at - start_at) / DAY / ROWS_PER_PAGE)
    if len(wanted) <= calls:
        return {}

    def found(rows: list[Any]) -> dict[str, Document]:
        named = {row["id"]: row for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)}
        return {sleep_id: row for sleep_id, row in named.items() if sleep_id in wanted}

    # Naps come in the same list: twice the nights are room enough.
    rows, _ = await PAGES.read(
        api, SLEEP, window(start_at, end_at), pages=2 * calls, enough=lambda rows: len(found(rows)) == len(wanted)
    )
    return found(rows)


def sleep_id_of(recovery: Any) -> str:
    """The v2 sleep a recovery belongs to, "" where it names none."""
    sleep_id = recovery.get("sleep_id") if isinstance(recovery, dict) else None
    return sleep_id if isinstance(sleep_id, str) and not is_v1_id(sleep_id) else ""
