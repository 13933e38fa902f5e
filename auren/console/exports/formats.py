"""The kinds of file there are. Another one is a row here: the pages, the API and the process know no more of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from auren.console.exports import fhir, spreadsheet
from auren.console.exports.reading import Piece, Selection
from auren.console.report import assembly, libraries


@dataclass(frozen=True, slots=True)
class Format:
    """`pieces` yields the whole file in order, and never holds much of it; an empty one only says that it is alive.

    A `report` is always made outside the web process, of whole days, at most `most_days` of them, and chooses its
    metrics and devices itself. `lacking` says what this machine lacks for it, if anything.
    """

    name: str
    label: str
    explained: str
    suffix: str
    media_type: str
    pieces: Callable[[Selection], Iterator[Piece]]
    report: bool = False
    most_days: int | None = None
    lacking: Callable[[], str] = str


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
        Format(
            "pdf",
            "Report (PDF)",
            "a summary of up to a year for a patient's file, to print",
            "pdf",
            "application/pdf",
            assembly.pieces,
            report=True,
            most_days=assembly.MOST_DAYS,
            lacking=libraries.lacking,
        ),
    )
}
