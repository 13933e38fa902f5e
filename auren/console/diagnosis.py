"""Why is there no data? What stands in the way between one link's device and the timeline, the worst first."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from django.db.models import Q
from django.utils import timezone
from django.utils.timesince import timesince

from auren.ages import ago
from devices.models import Invitation, Link, Outage, Subscription, Sync, Token
from devices.oauth import VENDORS as CONSENTS
from devices.vendors.oauth import OAuth
from devices.vendors.registry import VENDORS
from webhooks.models import Delivery

OUTAGE_SEEN = timedelta(minutes=1)
LATE = timedelta(minutes=15)
YOUNG = timedelta(hours=6)  # a new link's history may take that long
RECENT = 20
MOST_WAITING = 1000


@dataclass(frozen=True)
class Finding:
    """One thing that is so, as a sentence. `level` is `good`, `warn` or `bad`."""

    level: str
    text: str


@dataclass
class Diagnosis:
    """What is known of one link, each thing read once."""

    link: Link
    now: datetime = field(default_factory=timezone.now)

    @property
    def vendor(self) -> str:
        return self.link.get_vendor_display()

    @property
    def consent(self) -> OAuth | None:
        """The vendor's OAuth facts; HealthKit, where phones push, has none."""
        return CONSENTS.get(self.link.vendor)

    @cached_property
    def token(self) -> Token | None:
        """Without what is sealed in it."""
        return Token.objects.filter(link=self.link).defer("access_token", "refresh_token").first()

    @cached_property
    def invitation(self) -> Invitation | None:
        """One that the patient may still use."""
        wanted = Invitation.objects.filter(patient=self.link.patient_id, vendor=self.link.vendor)
        return wanted.filter(used_at=None, revoked_at=None, expires_at__gt=self.now).order_by("-expires_at").first()

    @cached_property
    def outage(self) -> Outage | None:
        """An open circuit breaker of any worker."""
        standing = Outage.objects.filter(vendor=self.link.vendor, closed_at=None, seen_at__gt=self.now - OUTAGE_SEEN)
        return standing.order_by("opened_at").first()

    @cached_property
    def deliveries(self) -> list[Delivery]:
        """The latest, and those not yet known to be this link's."""
        mine = Q(link=self.link) | Q(link=None, vendor=self.link.vendor, vendor_user_id=self.link.vendor_user_id)
        shown = Delivery.objects.filter(mine).only(
            *("event_type", "origin", "state", "error", "received_at", "planned_wait", "sample_count", "link_id")
        )
        return list(shown.order_by("-id")[:RECENT])

    @cached_property
    def last_webhook_at(self) -> datetime | None:
        heard = Delivery.objects.filter(link=self.link, origin="webhook").order_by("-id")
        return heard.values_list("received_at", flat=True).first()

    @cached_property
    def waiting(self) -> int:
        """Deliveries set aside until the link is usable, counted up to 1,000."""
        aside = Delivery.objects.filter(
            state="unlinked", vendor=self.link.vendor, vendor_user_id=self.link.vendor_user_id
        )
        return aside[:MOST_WAITING].count()

    @cached_property
    def syncs(self) -> list[Sync]:
        """A row for each kind of document that is asked for, also where nothing has been noted yet."""
        noted = {sync.kind: sync for sync in self.link.syncs.all()}
        vendor = VENDORS[self.link.vendor]
        wanted = dict.fromkeys([*(kind for kind, _ in vendor.history), *sorted(noted)])
        return [noted.get(kind) or Sync(link=self.link, kind=kind) for kind in wanted]

    @cached_property
    def missing_subscriptions(self) -> list[Subscription]:
        return list(Subscription.objects.filter(vendor=self.link.vendor, vendor_id="").order_by("data_type"))

    @cached_property
    def findings(self) -> list[Finding]:
        """The first one answers the question."""
        found = [*self._link(), *self._way()]
        return [*found, *self._silence(alone=not found)]

    def _link(self) -> Iterator[Finding]:
        """What only a person can mend."""
        link = self.link
        if link.status == "revoked":
            yield Finding("bad", f"Disconnected {ago(link.status_since)}: nothing is fetched. {self._ask_to_connect()}")
        elif link.status == "expired":
            yield Finding("bad", f"{self._expired()} {self._ask_to_connect()}")
        elif self.consent and self.token is None:
            yield Finding("bad", f"No token is stored, so {self.vendor} cannot be asked. {self._ask_to_connect()}")
        if link.paused_at:
            aside = f" {self.waiting:,} deliveries wait." if self.waiting else ""
            yield Finding("bad", f"Paused {ago(link.paused_at)}: nothing is processed.{aside} Resume it to go on.")

    def _expired(self) -> str:
        since = timesince(self.link.status_since, self.now, depth=1)
        if self.token is None:
            why = "no token is stored"
        elif self.token.refresh_token_lease:
            why = f"the answer to a token refresh was lost, and {self.vendor} counts the token as used"
        else:
            why = f"{self.vendor} refused the refresh token"
        return f"Expired for {since}: {why}."

    def _ask_to_connect(self) -> str:
        if self.invitation:
            return (
                f"An invitation is open until {self.invitation.expires_at:%Y-%m-%d %H:%M} UTC: the patient must use it."
            )
        return "Send a reconnect invitation."

    def _way(self) -> Iterator[Finding]:
        """What stands between the vendor and the timeline."""
        if self.outage:
            yield Finding(
                "warn",
                f"{self.vendor} has been failing since {self.outage.opened_at:%H:%M} UTC, so it is asked less often. "
                "This heals by itself.",
            )
        yield from self._deliveries()
        lacking = [scope for scope in self.consent.missing(self.link.scopes) if scope.carries] if self.consent else []
        if lacking and self.link.scopes:
            names = "; ".join(scope.carries for scope in lacking)
            yield Finding("warn", f"The patient does not share: {names}. A reconnect invitation asks again.")
        if self.missing_subscriptions:
            yield Finding(
                "warn",
                f"{self.vendor} does not announce everything: {len(self.missing_subscriptions)} webhook subscriptions "
                "are missing. Data come later, by polls and reconciliation.",
            )

    def _deliveries(self) -> Iterator[Finding]:
        dead = [one for one in self.deliveries if one.state == "dead"]
        if dead:
            yield Finding(
                "bad" if len(dead) > len(self.deliveries) / 2 else "warn",
                f"{len(dead)} of the last {len(self.deliveries)} deliveries are dead, the newest because: "
                f"{dead[0].error or 'no reason noted'}",
            )
        late = [one for one in self.deliveries if self._is_late(one)]
        if late:
            since = ago(late[-1].received_at)
            yield Finding("warn", f"{len(late)} deliveries wait to be processed, the oldest came {since}.")

    def _is_late(self, one: Delivery) -> bool:
        unfinished = one.state in {"received", "retrying"} and not one.planned_wait
        return unfinished and one.received_at < self.now - LATE

    def _silence(self, *, alone: bool) -> Iterator[Finding]:
        """What is left when nothing is broken: how long the device itself has been quiet."""
        link, heard = self.link, self.link.last_delivery_at
        if link.status not in {"active", "stale"}:
            return
        if link.status == "stale":
            last = f"its last data came {ago(heard)}" if heard else "it has sent nothing yet"
            yield Finding(
                "warn",
                f"Quiet: {last}, and it is still tried. Ask whether the device is worn, charged and synced with the "
                f"{self.vendor} app.",
            )
        elif alone and heard:
            yield Finding("good", f"Nothing is wrong: data came {ago(heard)}.")
        elif alone and link.connected_at > self.now - YOUNG:
            yield Finding("good", f"Connected {ago(link.connected_at)}: its history is being fetched.")
        elif alone:
            yield Finding("warn", f"Connected {ago(link.connected_at)}, and no data has come. Sync now to see why.")
