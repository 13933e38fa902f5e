"""A person, or the vendor, changes a document by hand: a new revision of it, or none of it any more."""

from datetime import datetime, timedelta
from typing import Any

from auren.sandbox import whoop
from auren.sandbox.grants import Vendor
from auren.sandbox.state import Sandbox, VendorError

Document = dict[str, Any]

# What an edit changes when it does not say: a number every document of the kind has, or the one a score is under.
TELLING = {
    "sleep": "total_sleep_duration",
    "daily_activity": "steps",
    "daily_stress": "stress_high",
    "daily_cardiovascular_age": "vascular_age",
    "vO2_max": "vo2_max",
    "heartrate": "bpm",
}
TELLING_SCORES = {"sleep": "respiratory_rate", "recovery": "recovery_score", "cycle": "strain", "workout": "strain"}


def find(sandbox: Sandbox, vendor: Vendor, user: str, kind: str, record: str = "") -> Document:
    """The document, the newest of its kind where no record is named. Raises VendorError 404."""
    shelf, now, since = sandbox.vendor(vendor).shelf, sandbox.clock.now(), sandbox.since()
    found = shelf.find(user, kind, record, since, now) if record else shelf.newest(user, kind, since, now)
    if found is None:
        raise VendorError(404, f"{user} has no such {kind} at {vendor}.")
    return found


def revise(
    sandbox: Sandbox, vendor: Vendor, user: str, kind: str, record: str = "", changes: Document | None = None
) -> Document:
    """Serve the document with `changes` from now on (without any, one telling number moves); WHOOP notes the time."""
    old = find(sandbox, vendor, user, kind, record)
    changes = telling_change(vendor, kind, old) if changes is None else changes
    if vendor == "whoop" and "updated_at" in old:
        changes = {"updated_at": later(old["updated_at"], sandbox.clock.now()), **changes}
    return sandbox.vendor(vendor).shelf.edited(user, kind, old, changes)


def later(updated_at: str, now: datetime) -> str:
    """Now, yet always after the revision before."""
    return whoop.stamp(max(now, datetime.fromisoformat(updated_at) + timedelta(seconds=1)))


def telling_change(vendor: Vendor, kind: str, document: Document) -> Document:
    """One number a little lower, as after an edit of some minutes."""
    if vendor == "whoop":
        name, score = TELLING_SCORES.get(kind, ""), document.get("score")
        return {"score": {name: round(score[name] * 0.98, 6)}} if isinstance(score, dict) and name in score else {}
    name = TELLING.get(kind, "score")
    value = document.get(name)
    return {name: max(1, round(value * 0.98))} if isinstance(value, int | float) else {}


def delete(sandbox: Sandbox, vendor: Vendor, user: str, kind: str, record: str = "") -> str:
    """Withdraw the document and return its record; a WHOOP recovery goes with its sleep."""
    shelf = sandbox.vendor(vendor).shelf
    record = record or shelf.making.record_of(kind, find(sandbox, vendor, user, kind))
    shelf.delete(user, kind, record)
    if vendor == "whoop" and kind == "sleep":
        shelf.delete(user, "recovery", record)
    return record
