"""Oura's webhook subscriptions: without them it announces nothing. A check makes, renews, mends and removes them.

One a pair of event and data type, each for about 90 days. What stands is Oura's to say: a check lists, acts, and
lists again wherever it is unsure.
"""

import asyncio
import logging
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

import stamina
from django.conf import settings
from django.db.models import Min, QuerySet
from django.utils import timezone

from devices.connection import NoAddress, open_client
from devices.models import Subscription
from devices.subscription_api import LONGEST_PAUSE_SECONDS, TRIES, NotDone, Pair, Standing, SubscriptionApi, Unsure
from devices.vendors.oura.webhook import MEASURED, VERBS

RENEW_BELOW = timedelta(days=7)
CHECK_EVERY = timedelta(days=1)
CHECK_FAULTS_EVERY = timedelta(minutes=10)
CHECK_NOTHING_EVERY = timedelta(minutes=1)  # while no subscription stands at all, nothing of Oura's comes in

CHECK_SECONDS = 25.0  # below the scheduler's lease: what is left over is done by the next check
AT_ONCE = 4

UNCLEAR = "Oura gave no clear answer: the next check looks again"

State = Literal["missing", "expired", "elsewhere", "expiring", "subscribed"]

logger = logging.getLogger(__name__)

WANTED = tuple(Pair(verb, kind) for kind in MEASURED for verb in VERBS)


class Step(NamedTuple):
    """What a check is to do about one pair; `standing` is what there is of it."""

    act: Literal["create", "move", "renew", "remove"]
    pair: Pair
    standing: Standing | None = None


def callback_url() -> str:
    return f"{settings.PUBLIC_URL}/webhooks/oura"


def why_impossible() -> str:
    """Which setting keeps us from subscribing, in words for support; empty when none does."""
    needed = ("PUBLIC_URL", "OURA_CLIENT_ID", "OURA_CLIENT_SECRET", "OURA_VERIFICATION_TOKEN")
    missing = [name for name in needed if not getattr(settings, name)]
    if missing:
        return f"Nothing can be subscribed: set {', '.join(missing)}."
    if not settings.PUBLIC_URL.startswith(("https://", "http://")):
        return "Nothing can be subscribed: PUBLIC_URL must begin with https:// and lead to this bridge from outside."
    return ""


# What is to be done


def plan(found: Iterable[Standing], address: str, now: datetime) -> list[Step]:
    """The steps from what stands to what is wanted: every wanted pair once, at our address, for a week or more."""
    by_pair: dict[Pair, list[Standing]] = {}
    for standing in found:
        by_pair.setdefault(standing.pair, []).append(standing)
    steps: list[Step] = []
    for pair in WANTED:
        best = sorted(by_pair.pop(pair, []), key=lambda each: _worth(each, address))
        steps += [Step("remove", pair, double) for double in best[1:]]
        steps += _steps_for(pair, best[0] if best else None, address, now)
    return steps + [Step("remove", pair, each) for pair, unwanted in by_pair.items() for each in unwanted]


def _steps_for(pair: Pair, standing: Standing | None, address: str, now: datetime) -> list[Step]:
    if standing is None:
        return [Step("create", pair)]
    if standing.callback_url != address:
        return [Step("move", pair, standing)]
    return [Step("renew", pair, standing)] if ends_soon(standing.expires_at, now) else []


def ends_soon(expires_at: datetime | None, now: datetime) -> bool:
    """Of an end that could not be read nobody knows better."""
    return expires_at is None or expires_at - now < RENEW_BELOW


def _worth(standing: Standing, address: str) -> tuple[bool, float]:
    """Of two for one pair the one at our address is kept, else the one that lasts longer."""
    return standing.callback_url != address, -(standing.expires_at.timestamp() if standing.expires_at else 0.0)


# A check


class Check:
    """One check: what Oura has (`found`, by id), what was done, and what could not be, by pair.

    `fault` is what kept the check as a whole from ending; `listed` whether Oura was heard at all.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.found: dict[str, Standing] = {}
        self.done: Tally[str] = Tally()
        self.problems: dict[Pair, str] = {}
        self.fault = ""
        self.listed = False
        self._room = asyncio.Semaphore(AT_ONCE)

    def __str__(self) -> str:
        past = {"create": "created", "move": "moved to our address", "renew": "renewed", "remove": "removed"}
        return ", ".join(f"{self.done[act]} {words}" for act, words in past.items() if self.done[act])

    async def run(self) -> None:
        """Raises nothing but cancellation."""
        try:
            async with (
                asyncio.timeout(CHECK_SECONDS),
                open_client(settings.OURA_API_URL, connections=AT_ONCE) as client,
            ):
                await self._settle(SubscriptionApi(client))
        except TimeoutError:
            self.fault = f"Oura took longer than {CHECK_SECONDS:g} s: the next check goes on"
        except NotDone as error:
            self.fault = str(error)
        except NoAddress:
            self.fault = "OURA_API_URL is no address"

    async def _settle(self, api: SubscriptionApi) -> None:
        """Look and act until nothing is unsure any more."""
        async for attempt in stamina.retry_context(on=Unsure, attempts=TRIES, wait_max=LONGEST_PAUSE_SECONDS):
            with attempt:
                await self._look_and_act(api)

    async def _look_and_act(self, api: SubscriptionApi) -> None:
        self.found = {standing.id: standing for standing in await api.all()}
        self.listed = True
        steps = plan(self.found.values(), self.address, timezone.now())
        outcomes = await asyncio.gather(*(self._take(api, step) for step in steps if step.pair not in self.problems))
        unsure = [outcome for outcome in outcomes if isinstance(outcome, Unsure)]
        if unsure:
            raise unsure[0]

    async def _take(self, api: SubscriptionApi, step: Step) -> NotDone | None:
        async with self._room:
            try:
                await self._act(api, step)
            except Unsure as error:
                return error
            except NotDone as error:
                self.problems[step.pair] = str(error)
                return error
        self.done[step.act] += 1
        logger.debug("Oura's subscription to %s: %s", step.pair, step.act)
        return None

    async def _act(self, api: SubscriptionApi, step: Step) -> None:
        if step.act == "remove" and step.standing:
            await api.remove(step.standing)
            del self.found[step.standing.id]
            return
        after = step.standing or await api.create(step.pair, self.address)
        if step.act == "move":
            after = await api.move(after, self.address)
        if ends_soon(after.expires_at, timezone.now()):
            after = await api.renew(after)
        self.found[after.id] = after


def check_now() -> Check:
    """Bring what Oura has in line with what we want, and write down what stands. Safe side by side and again."""
    check = Check(callback_url())
    check.fault = why_impossible()
    if not check.fault:
        asyncio.run(check.run())
    write_down(check)
    if check.fault or check.problems:
        logger.warning("Oura's subscriptions: %s", check.fault or next(iter(check.problems.values())))
    return check


def check_subscriptions() -> str:
    """The scheduler's chore, to be called every minute: a check when one is due. Returns what was done."""
    return str(check_now()) if is_due(timezone.now()) else ""


def is_due(now: datetime) -> bool:
    rows = list(of_oura())
    if {Pair(row.event_type, row.data_type) for row in rows} != set(WANTED):
        return True
    if any(row.callback_url != callback_url() and row.vendor_id and not row.error for row in rows):
        return True  # PUBLIC_URL is another one since
    oldest = min((row.checked_at for row in rows if row.checked_at), default=None)
    return oldest is None or now - oldest >= pause_after(rows, now)


def pause_after(rows: Sequence[Subscription], now: datetime) -> timedelta:
    if all(state_of(row, now) == "subscribed" and not row.error for row in rows):
        return CHECK_EVERY
    nothing_stands = not any(row.vendor_id for row in rows) and not why_impossible()
    return CHECK_NOTHING_EVERY if nothing_stands else CHECK_FAULTS_EVERY


# What was last seen


def of_oura() -> QuerySet[Subscription]:
    return Subscription.objects.filter(vendor="oura").order_by("data_type", "event_type")


def write_down(check: Check) -> None:
    """Bring the table in line with what the check saw. Without an answer from Oura, what was seen before stays."""
    now = timezone.now()
    by_pair = {standing.pair: standing for standing in check.found.values()}
    rows = [_row(check, pair, by_pair.get(pair), now) for pair in WANTED]
    seen = ["vendor_id", "callback_url", "expires_at"] if check.listed else []
    Subscription.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["vendor", "event_type", "data_type"],
        update_fields=[*seen, "checked_at", "error"],
    )
    unwanted = [row.pk for row in of_oura() if (row.event_type, row.data_type) not in WANTED]
    Subscription.objects.filter(pk__in=unwanted).delete()


def _row(check: Check, pair: Pair, standing: Standing | None, now: datetime) -> Subscription:
    row = Subscription(vendor="oura", event_type=pair.event_type, data_type=pair.data_type, checked_at=now)
    if standing is not None:
        row.vendor_id, row.callback_url, row.expires_at = standing.id, standing.callback_url, standing.expires_at
    well = standing is not None and not _steps_for(pair, standing, check.address, now)
    row.error = "" if well else check.problems.get(pair) or check.fault or UNCLEAR
    return row


def state_of(row: Subscription, now: datetime) -> State:
    if not row.vendor_id:
        return "missing"
    if row.expires_at is not None and row.expires_at <= now:
        return "expired"
    if row.callback_url != callback_url():
        return "elsewhere"
    return "expiring" if ends_soon(row.expires_at, now) else "subscribed"


def verdict() -> str:
    """Whether all is well, in a sentence or two."""
    now = timezone.now()
    rows = list(of_oura())
    if not rows:
        return why_impossible() or "Oura's subscriptions have not been checked yet: the scheduler does it."
    states = Tally(state_of(row, now) for row in rows)
    wrong = ", ".join(f"{states[state]} {words}" for state, words in IN_WORDS.items() if states[state])
    faults = list(dict.fromkeys(row.error for row in rows if row.error))
    checked_at = min((row.checked_at for row in rows if row.checked_at), default=None)
    late = checked_at is None or now - checked_at > 2 * CHECK_EVERY
    parts = [
        f"Of {len(rows)} subscriptions {wrong}." if wrong else f"All {len(rows)} subscriptions stand.",
        *([f"{faults[0].rstrip('.')}."] if faults else []),
        *(["Nothing has been checked for two days: is the scheduler running?"] if late else []),
    ]
    ends = of_oura().aggregate(first=Min("expires_at"))["first"]
    if not wrong and ends:
        parts.append(f"The first ends on {ends:%Y-%m-%d} and is renewed a week before.")
    return " ".join(parts)


IN_WORDS: dict[State, str] = {
    "missing": "are missing, so that Oura announces nothing of them",
    "expired": "have expired",
    "elsewhere": "lead to another address than ours",
    "expiring": "end within a week and are not renewed yet",
}
