"""An export's file as an answer: in pieces, whatever its size."""

import re
import zlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db.models import F
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from auren.console.exports import metrics
from auren.console.exports.formats import FORMATS
from auren.console.exports.models import Export, ExportPart
from auren.console.exports.selecting import selection_of
from auren.console.views import zone_of

GZIP = re.compile(r"(?:^|,)\s*(?:gzip|\*)\s*(?:;\s*q=(?!0(?:\.0*)?\s*(?:,|$))[\d.]+\s*)?(?:,|$)", re.IGNORECASE)


class Gone(Exception):
    """The file's time ended while it was being sent: the connection breaks, so that nobody takes it for whole."""


def answer(request: HttpRequest, export: Export) -> HttpResponseBase:
    """The whole file, made on the spot where it is short. The row remembers that it was sent."""
    headers = _headers(request, export)
    if request.method == "HEAD":
        return HttpResponse(headers=headers)
    Export.objects.filter(pk=export.pk).update(downloads=F("downloads") + 1, downloaded_at=Now())
    metrics.DOWNLOADS.labels(export.format).inc()
    pieces = _pieces(export, packed="Content-Encoding" in headers)
    return StreamingHttpResponse(_streamed(request, pieces), headers=headers)


def file_name(export: Export) -> str:
    """`auren-user_1-2026-11-01-2026-11-14.csv`; the days are the patient's, both included."""
    zone = zone_of(export.patient)
    first, last = export.start_at.astimezone(zone), (export.end_at - timedelta(microseconds=1)).astimezone(zone)
    who = re.sub(r"[^A-Za-z0-9._-]", "_", export.patient.external_id)[:80]
    return f"auren-{who}-{first:%Y-%m-%d}-{last:%Y-%m-%d}.{FORMATS[export.format].suffix}"


def _headers(request: HttpRequest, export: Export) -> dict[str, str]:
    headers = {
        "Content-Type": FORMATS[export.format].media_type,
        "Content-Disposition": f'attachment; filename="{file_name(export)}"',
        "Cache-Control": "private, no-store",
    }
    if export.direct:
        return headers
    headers["Vary"] = "Accept-Encoding"
    if not GZIP.search(request.headers.get("Accept-Encoding", "")):
        return headers | {"Content-Length": str(export.size)}
    return headers | {"Content-Encoding": "gzip", "Content-Length": str(export.stored_size)}


def _pieces(export: Export, *, packed: bool) -> Iterator[bytes]:
    if export.direct:
        made = (piece.content for piece in FORMATS[export.format].pieces(selection_of(export)))
        return (content for content in made if content)
    stored = _stored(export)
    return stored if packed else _unpacked(stored)


def _stored(export: Export) -> Iterator[bytes]:
    offset = 0
    while offset < export.stored_size:
        part = ExportPart.objects.filter(export_id=export.pk, offset=offset).first()
        if part is None:
            raise Gone(f"export {export.pk} has no part at byte {offset} any more")
        yield bytes(part.content)
        offset += len(part.content)


def _unpacked(stored: Iterator[bytes], most: int = 256 * 1024) -> Iterator[bytes]:
    """In pieces of at most `most` bytes: some text packs a thousand to one."""
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    for content in stored:
        packed = content
        while packed:
            if piece := unpacker.decompress(packed, most):
                yield piece
            packed = unpacker.unconsumed_tail
    if piece := unpacker.flush():
        yield piece


def _streamed(request: HttpRequest, pieces: Iterator[bytes]) -> Iterator[bytes] | AsyncIterator[bytes]:
    """Django would read a plain iterator to its end before it sends anything of it to an ASGI server."""
    return _in_threads(pieces) if isinstance(request, ASGIRequest) else pieces


async def _in_threads(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await _following(pieces)) is not None:
        yield piece


@sync_to_async
def _following(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)
