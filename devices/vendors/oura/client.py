"""What to ask Oura's API v2 for. https://cloud.ouraring.com/v2/docs"""

from datetime import date, timedelta, timezone
from typing import Any
from urllib.parse import quote

from devices.vendors.client import Answer, Api, Ask
from devices.vendors.paging import PagedList, object_of
from devices.vendors.times import to_text

# Kinds to list when a patient links a ring, the most telling first.
HISTORY: tuple[str, ...] = (
    "sleep",
    "daily_readiness",
    "daily_activity",
    "daily_sleep",
    "daily_spo2",
    "heartrate",
    "workout",
    "daily_stress",
    "vo2_max",
    "daily_cardiovascular_age",
)
# Oura refuses heart rates of more than 30 days at once, and a week of them is already some 2,000 rows.
HISTORY_DAYS_PER_CALL: dict[str, int] = dict.fromkeys(HISTORY, 30) | {"heartrate": 7}
# What no webhook announces: how many seconds apart it is asked for, and at least how many days back, because a ring
# tells its phone of the night only in the morning.
POLLED: dict[str, tuple[int, int]] = {"heartrate": (3600, 1)}

PAGES = PagedList(rows="data", token_parameter="next_token")  # noqa: S106 (a parameter's name)
EARLIEST = timezone(timedelta(hours=14))  # where a day begins first
LATEST = timezone(timedelta(hours=-12))


async def fetch(ask: Ask, api: Api) -> Answer:
    """The document `ask` names, else the list of its window as `{"data": [...]}`. Raises an `ApiError`.

    A list may hold a day more on either side than the window: Oura cuts days in the wearer's zone, unknown here.
    """
    path = f"/v2/usercollection/{'vO2_max' if ask.kind == 'vo2_max' else ask.kind}"
    if ask.kind == "heartrate":
        return await fetch_rows(ask, api, path, instants(ask))
    if ask.object_id:
        path = f"{path}/{quote(ask.object_id, safe='')}"
        return Answer(ask.kind, object_of(await api.get(path), path))
    return await fetch_rows(ask, api, path, days(ask))


async def fetch_rows(ask: Ask, api: Api, path: str, params: dict[str, str]) -> Answer:
    rows, next_page = await PAGES.read(api, path, params, token=ask.page_token, pages=ask.pages)
    return Answer(ask.kind, {"data": [row for row in rows if is_wanted(row, ask)]}, next_page)


def instants(ask: Ask) -> dict[str, str]:
    bounds = {"start_datetime": ask.start_at, "end_datetime": ask.end_at}
    return {name: to_text(at) for name, at in bounds.items() if at is not None}


def days(ask: Ask) -> dict[str, str]:
    """The window's days, up to one more: some of Oura's lists end before `end_date`, others with it."""
    first, last = first_day(ask), last_day(ask)
    params = {"start_date": first.isoformat()} if first else {}
    return params | {"end_date": (last + timedelta(days=1)).isoformat()} if last else params


def first_day(ask: Ask) -> date | None:
    """The day it is, wherever it is latest, when the window begins."""
    return ask.start_at.astimezone(LATEST).date() if ask.start_at else None


def last_day(ask: Ask) -> date | None:
    """The day it is, wherever it is earliest, when the window ends: in Auckland tomorrow's sleep is today's."""
    return ask.end_at.astimezone(EARLIEST).date() if ask.end_at else None


def is_wanted(row: Any, ask: Ask) -> bool:
    """Whether a row's `day` lies in the window; a row without one is for the normaliser to judge."""
    day = row.get("day") if isinstance(row, dict) else None
    if not isinstance(day, str):
        return True
    first, last = first_day(ask), last_day(ask)
    return (first is None or day >= first.isoformat()) and (last is None or day <= last.isoformat())
