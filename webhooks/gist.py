"""An event in one line for people: when, which topic, whose, the sequence, the type, and what it says in words."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from webhooks.events import CONFLICTS, DEAD, ERASED, SAMPLES, TYPES

NAMED = 4  # metrics or records named in a line; the rest is counted
LONGEST = 300  # characters of one text from outside

Body = Mapping[str, Any]


def line_of(topic: str, key: str, headers: Mapping[str, str], value: bytes) -> str:
    """Never raises: what is no event of ours is said to be none."""
    when = headers.get("ce_time", "no time").replace("T", " ")
    kind = headers.get("ce_type", "no type")
    about = [when, topic, key or "nobody", f"#{headers.get('sequence', '?')}", kind]
    return f"{'  '.join(map(printable, about))}  {gist(kind, value)}"


def gist(kind: str, value: bytes) -> str:
    tell = GISTS.get(kind)
    if tell is None:
        return f"{len(value):,} bytes of a type that is none of ours"
    try:
        return printable(tell(msgspec.json.decode(value)))
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        return printable(f"{len(value):,} bytes that are not what the type's schema says: {error!r}")


def stored(body: Body) -> str:
    counts = Counter(sample["metric"] for sample in body["samples"])
    said = [f"{many(sum(counts.values()), 'sample')}: {listed(f'{name} {n}' for name, n in counts.most_common())}"]
    said = said if counts else []
    if body["withdrawn"]:
        said.append(f"{many(len(body['withdrawn']), 'record')} withdrawn: {listed(body['withdrawn'])}")
    return f"{origin(body)}: {'; '.join(said) or 'nothing'}"


def conflict(body: Body) -> str:
    what = f"{body['metric']} from {clock(body['start_at'])} to {clock(body['end_at'])}"
    if body["winner"] is None:
        return f"{what}: nothing is left to settle ({body['rule']})"
    values = " against ".join(f"{value:g} of source {source}" for source, value in body["values"].items())
    return f"{what} in {body['unit']}: {values}; source {body['winner']} counts ({body['rule']}, {body['state']})"


def dead(body: Body) -> str:
    return (
        f"{origin(body)}: {body['event_type']} given up after {many(body['attempts'], 'try', 'tries')}: {body['error']}"
    )


def erased(body: Body) -> str:
    return f"erased, with all that was received before {clock(body['erased_at'])}"


GISTS: Mapping[str, Callable[[Body], str]] = {
    TYPES[SAMPLES]: stored,
    TYPES[CONFLICTS]: conflict,
    TYPES[DEAD]: dead,
    ERASED: erased,
}


def origin(body: Body) -> str:
    return f"{body['vendor']} {body['origin']}, delivery {body['delivery']}"


def clock(written: str) -> str:
    return written.replace("T", " ")


def many(count: int, one: str, more: str = "") -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def listed(names: Iterable[str]) -> str:
    every: Sequence[str] = list(names)
    rest = len(every) - NAMED
    return ", ".join(every[:NAMED]) + (f" and {rest:,} more" if rest > 0 else "")


def printable(text: str) -> str:
    """On one line, and nothing in it that a terminal would obey: keys, records and errors come from outside."""
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in short)
