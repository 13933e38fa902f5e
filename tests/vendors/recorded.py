"""What tests of vendors share: recorded payloads with what they must yield, recorded answers, and any JSON at all.

Beside each payload `<name>.json` stands `<name>.expected.json`: the samples it must yield (a null start, end or
offset is not asserted), `must_not` (those it must not), `stage_totals` in seconds, and with `exactly` that there
are no others.
"""

import json
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from auren.biometrics.metrics import BY_NAME
from devices.vendors import times
from devices.vendors.client import NotFound
from devices.vendors.normalised import Document, Normalised, Sample, implausible


class Payload(NamedTuple):
    name: str
    document: Document
    expected: Document


def payload(path: Path) -> Payload:
    expected = path.with_suffix(".expected.json")
    return Payload(path.stem, json.loads(path.read_text()), json.loads(expected.read_text()))


def payloads_in(folder: Path) -> list[Payload]:
    return [payload(path) for path in sorted(folder.glob("*.json")) if not path.stem.endswith(".expected")]


def assert_yields(found: Normalised, expected: Document) -> None:
    for sample in expected["samples"]:
        assert any(matches(candidate, sample) for candidate in found.samples), f"{sample} is missing"
    for ban in expected.get("must_not", []):
        assert not [sample for sample in found.samples if is_banned(sample, ban)], ban["why"]
    assert found.withdrawn == expected.get("withdrawn", [])
    assert found.pending is expected.get("pending", False)
    assert len(found.refused) == expected.get("refused", 0), found.refused
    if "stage_totals" in expected:
        assert stage_totals(found) == expected["stage_totals"]
    if expected.get("exactly"):
        assert len(found.samples) == len(expected["samples"])


def matches(sample: Sample, expected: Document) -> bool:
    return (
        sample.metric == expected["metric"]
        and sample.value == pytest.approx(expected["value"])
        and sample.record == expected["record"]
        and expected["start"] in (None, times.to_text(sample.start_at))
        and expected["end"] in (None, times.to_text(sample.end_at))
        and expected["utc_offset_minutes"] in (None, sample.utc_offset_minutes)
    )


def is_banned(sample: Sample, ban: Document) -> bool:
    return sample.metric == ban["metric"] and (
        ban.get("any", False)
        or ("value" in ban and sample.value == pytest.approx(ban["value"]))
        or ("value_above" in ban and sample.value > ban["value_above"])
        or ("start" in ban and times.to_text(sample.start_at) == ban["start"])
    )


def stage_totals(found: Normalised) -> dict[str, float]:
    totals: Counter[str] = Counter()
    for sample in found.samples:
        if sample.metric == "sleep_stage":
            totals[f"{sample.value:g}"] += int((sample.end_at - sample.start_at).total_seconds())
    return dict(totals)


def assert_storable(found: Normalised) -> None:
    """What every normaliser owes whoever stores its samples, whatever the document was."""
    for sample in found.samples:
        assert implausible(BY_NAME[sample.metric], sample.value) is None
        assert type(sample.value) is float
        assert sample.start_at.tzinfo is UTC
        assert sample.end_at.tzinfo is UTC
        assert sample.start_at <= sample.end_at
        assert 0 < len(sample.record) <= 300
        assert found.source_kinds[sample.source]
    for text in texts_in(found):
        assert "\0" not in text
        assert text.encode()


def texts_in(found: Normalised) -> Iterator[str]:
    yield from found.withdrawn
    for sample in found.samples:
        yield sample.record
    for refusal in found.refused:
        yield refusal.what
        yield refusal.why


# A machine shared by many is slow at times, which says nothing about a pure function.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

HUGE = st.sampled_from([10**400, -(10**400), 10**4000, 2**63, 1e308, float("nan"), float("inf"), -0.0])
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=8),
    st.sampled_from(["\0", "\ud800", "x" * 300, "12", "44x2211", "long_sleep", "deleted", "SCORED", "+25:00", "Z"]),
    st.sampled_from(["2024-01-15", "2024-01-15T07:30:00", "9999-12-31T23:59:59Z", "2024-01-14T23:30:00+02:00"]),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), HUGE, TEXTS)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)


@st.composite
def spoiled(draw: st.DrawFn, documents: list[Document]) -> Document:
    """A recorded document of which up to four parts, at any depth, have become anything at all, or are gone."""
    document = deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 4))):
        spoil(draw, document)
    return document


def spoil(draw: st.DrawFn, part: Any) -> None:
    place = draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part)))) if part else None
    if place is None:
        return
    if isinstance(part[place], dict | list) and part[place] and draw(st.booleans()):
        spoil(draw, part[place])
    elif isinstance(part, dict) and draw(st.integers(0, 4)) == 0:
        del part[place]
    else:
        part[place] = draw(ANYTHING)


class RecordedApi:
    """A vendor that answers from a list of recorded answers by path and query, and remembers what it was asked."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def get(self, path: str, params: dict[str, str] | None = None) -> Any:
        address = f"{path}?{urlencode(params)}" if params else path
        self.asked.append(address)
        if address not in self.answers:
            raise NotFound(f"nothing recorded for {address}")
        return self.answers[address]
