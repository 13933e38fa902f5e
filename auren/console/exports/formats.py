"""The kinds of file there are. Another one is a row here: the pages, the API and the process know no more of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from auren.console.exports import fhir, spreadsheet
from auren.console.exports.reading import Piece, Selection


@dataclass(frozen=True, slots=True)
class Format:
    """`pieces` yields the whole file in order, and never holds much of it."""

    name: str
    label: str
    explained: str
    suffix: str
    media_type: str
    pieces: Callable[[Selection], Iterator[Piece]]


FORMATS = {
    one.name: one
    for one in (
        Format(
            "csv",
            "CSV",
            "one row a sample, for statistics and spreadsheets",
            "csv",
            "text/csv; charset=utf-8; header=present",
            spreadsheet.pieces,
        ),
        Format(
            "fhir",
            "FHIR R4",
            "a Bundle of Observations, for other clinical systems",
            "fhir.json",
            "application/fhir+json; charset=utf-8",
            fhir.pieces,
        ),
    )
}
