"""Which device measured: its name, which keeps the sources under one link apart, and what sort of device it is."""

import re
from functools import lru_cache
from typing import NamedTuple

from devices.vendors.documents import Unusable
from devices.vendors.healthkit.reading import text
from devices.vendors.normalised import Document
from devices.vendors.times import quoted
from devices.vendors.webhook import MAX_FIELD


class Source(NamedTuple):
    """`kind` is one of ring, band, watch, phone, scale, cuff, meter, other."""

    name: str
    kind: str


UNNAMED = Source("HealthKit", "other")
OTHER_NAMES = ("deviceName", "deviceModel", "productType", "bundleIdentifier", "appId")

# Words that give a device away, the surest first.
GIVEAWAYS = {
    "watch": ("watch", "scanwatch", "applewatch", "smartwatch", "garmin", "coros", "suunto", "polar", "amazfit"),
    "phone": ("iphone", "ipad", "ipod", "phone"),
    "ring": ("oura", "ring", "ultrahuman", "ringconn"),
    "band": ("whoop", "fitbit", "band", "strap"),
    "cuff": ("omron", "cuff", "bpm", "qardio", "qardioarm"),
    "meter": (
        "dexcom",
        "libre",
        "librelink",
        "freestyle",
        "contour",
        "onetouch",
        "glucose",
        "meter",
        "kinsa",
        "thermometer",
    ),
    "scale": ("scale", "withings", "renpho", "eufy"),
}
LETTERS = re.compile("[a-z]+")


def source_of(value: object) -> Source:
    """A sample's `source`: a text, an object as Open Wearables sends it, or nothing. Raises Unusable otherwise."""
    if isinstance(value, str):
        return named(text("source", value)) if value else UNNAMED
    if value is None:
        return UNNAMED
    if isinstance(value, dict):
        return described(value)
    raise Unusable(f"the source {quoted(value)} is neither a text nor an object")


@lru_cache(maxsize=1024)
def named(name: str) -> Source:
    return Source(name, kind_of(name, ""))


def described(device: Document) -> Source:
    """What the Open Wearables SDK says of a device; `name` is the app or device that wrote the sample."""
    name = device.get("name")
    if not name or not isinstance(name, str):
        name = next(
            (device[key] for key in OTHER_NAMES if device.get(key) and isinstance(device[key], str)), UNNAMED.name
        )
    model, kind = hint(device.get("deviceModel")), hint(device.get("deviceType"))
    hints = f"{hint(device.get('productType'))} {kind} {model} {hint(device.get('deviceName'))}"
    return Source(text("source", name), kind_of(name, hints))


def hint(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= MAX_FIELD else ""


@lru_cache(maxsize=1024)
def kind_of(name: str, hints: str) -> str:
    """What the words say; the name's come first.

    An app of another maker that ran on the phone is written down with the phone's `productType`, so a source called
    Oura is a ring although the hints say iPhone.
    """
    return kind_by_words(name) or kind_by_words(hints) or UNNAMED.kind


def kind_by_words(said: str) -> str | None:
    found = frozenset(LETTERS.findall(said.casefold()))
    return next((kind for kind, words in GIVEAWAYS.items() if not found.isdisjoint(words)), None)
