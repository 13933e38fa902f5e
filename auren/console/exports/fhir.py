"""A FHIR R4 Bundle of type `collection`, written entry by entry: it is never in memory as a whole."""

from collections.abc import Iterable, Iterator
from datetime import timedelta

import msgspec
from django.utils import timezone

from auren.biometrics.metrics import Metric
from auren.console.exports.nights import FAMILY, stretches
from auren.console.exports.observations import DIASTOLIC, SYSTOLIC, Observations, Resource, bundle_id
from auren.console.exports.reading import Devices, Entry, Page, Piece, Selection, pages, unfinished_deliveries

STRETCH = timedelta(days=30)  # of blood pressures, which are paired in memory
PIECE = 1_000  # resources encoded at once: a page of them all would be many megabytes

About = dict[int, tuple[str, str, str]]


def pieces(of: Selection) -> Iterator[Piece]:
    return Bundle(of).pieces()


class Bundle:
    def __init__(self, of: Selection) -> None:
        self.of = of
        self.make = Observations(of)
        self.devices = Devices()
        self._written: set[int] = set()  # devices
        self._empty = True

    def pieces(self) -> Iterator[Piece]:
        """The file in order; a device comes just before the first Observation that names it."""
        yield Piece(self._head(), 0, 0)
        family = tuple(metric for metric in self.of.metrics if metric in FAMILY)
        pressures = {SYSTOLIC, DIASTOLIC} <= set(self.of.metrics)
        for metric in self.of.metrics:
            if metric in family:
                continue
            if not (pressures and metric in {SYSTOLIC, DIASTOLIC}):
                yield from self._singles(metric)
        if family:
            yield from self._nights(family)
        if pressures:
            yield from self._pressures()
        # FHIR knows no empty list.
        yield Piece(b"}\n" if self._empty else b"\n]}\n", 0, 0)

    def _head(self) -> bytes:
        number = f"urn:uuid:{bundle_id(self.of)}"
        head = {
            "resourceType": "Bundle",
            "id": str(bundle_id(self.of)),
            "identifier": {"system": "urn:ietf:rfc:3986", "value": number},
            "type": "collection",
            "timestamp": timezone.now().isoformat(),
        }
        return msgspec.json.encode(head).removesuffix(b"}")

    def _singles(self, metric: Metric) -> Iterator[Piece]:
        for page in pages(self.of, metric, self.of.start_at, self.of.end_at):
            unfinished, about = unfinished_deliveries(page), self.devices.of(page)
            for start in range(0, len(page.entries), PIECE):
                some = page.entries[start : start + PIECE]
                made = ((e.row.source_id, self.make.single(metric, e, unfinished)) for e in some)
                yield Piece(self._text(made, about), 0, len(some))
            yield Piece(b"", page.read, 0)

    def _nights(self, family: tuple[Metric, ...]) -> Iterator[Piece]:
        for stretch in stretches(self.of, family, self.devices):
            made = ((night.source_id, self.make.night(night, stretch.unfinished)) for night in stretch.nights)
            yield Piece(self._text(made, stretch.devices), stretch.read, len(stretch.nights))

    def _pressures(self) -> Iterator[Piece]:
        start_at = self.of.start_at
        while start_at < self.of.end_at:
            end_at = min(start_at + STRETCH, self.of.end_at)
            both = [list(pages(self.of, metric, start_at, end_at)) for metric in (SYSTOLIC, DIASTOLIC)]
            made, about = self._paired(*both)
            yield Piece(self._text(made, about), sum(page.read for pages_ in both for page in pages_), len(made))
            start_at = end_at

    def _paired(self, upper: list[Page], lower: list[Page]) -> tuple[list[tuple[int, Resource]], About]:
        """A systolic with the diastolic of its moment and device; one that is alone stands alone."""
        unfinished = {number for page in upper + lower for number in unfinished_deliveries(page)}
        about: About = {}
        for page in upper + lower:
            about = self.devices.of(page)
        partners: dict[tuple[object, ...], list[Entry]] = {}
        for page in lower:
            for entry in page.entries:
                partners.setdefault(entry.row[:3], []).append(entry)
        made = []
        for page in upper:
            for entry in page.entries:
                partner = partners.get(entry.row[:3])
                resource = (
                    self.make.pressure(entry, partner.pop(0), unfinished)
                    if partner
                    else self.make.single(SYSTOLIC, entry, unfinished)
                )
                made.append((entry.row.source_id, resource))
        alone = [entry for left in partners.values() for entry in left]
        made += [(entry.row.source_id, self.make.single(DIASTOLIC, entry, unfinished)) for entry in alone]
        return made, about

    def _text(self, made: Iterable[tuple[int, Resource]], about: About) -> bytes:
        """As members of the list `entry`, each on a line of its own."""
        lines: list[bytes] = []
        for source_id, observation in made:
            if source_id not in self._written:
                self._written.add(source_id)
                lines.append(_entry(self.make.device(source_id, *about[source_id])))
            lines.append(_entry(observation))
        if not lines:
            return b""
        before = b',"entry":[\n' if self._empty else b",\n"
        self._empty = False
        return before + b",\n".join(lines)


def _entry(resource: Resource) -> bytes:
    return msgspec.json.encode({"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource})
