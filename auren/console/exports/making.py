"""The process that makes long exports: `manage.py make_exports`, any number side by side.

One export at a time is held under a lease, which every page renews in the transaction that keeps what was made of it.
Whoever lost the lease, to a cancellation or to another process, finds that out there and leaves nothing behind. An
export that was interrupted is begun anew: its parts are one compressed stream, which nobody else can go on with.
"""

import logging
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID, uuid4

from django.conf import settings
from django.db import IntegrityError, InterfaceError, OperationalError, close_old_connections, connection, transaction
from django.db.models import Q
from django.db.models.functions import Now

from auren.console.exports import metrics
from auren.console.exports.formats import FORMATS
from auren.console.exports.models import Export, ExportPart, kept_for
from auren.console.exports.reading import Piece
from auren.console.exports.selecting import selection_of
from auren.console.report.rendering import Unmakeable

logger = logging.getLogger(__name__)

PART = 512 * 1024  # bytes of a part, compressed
LEVEL = 5
MOST_STARTS = 5
TIDY_EVERY, LOOK_EVERY = 60.0, 5.0  # seconds
EXPIRED_AT_ONCE = 100


class Lost(Exception):
    """The export is not ours any more: cancelled, erased, or taken over."""


class Interrupted(Exception):
    """This process is to stop."""


class TooLarge(Exception):
    pass


class Maker:
    def __init__(self, *, lease: float, poll: float, part: int = PART) -> None:
        self.lease = timedelta(seconds=lease)
        self.poll = poll
        self.part = part
        self._tidied_at, self._looked_at = -TIDY_EVERY, -LOOK_EVERY

    def run(self, stop: threading.Event) -> None:
        """Make what is asked for until `stop`; with PostgreSQL away, wait for it."""
        while not stop.is_set():
            if not self._safely(stop):
                stop.wait(self.poll)
        connection.close()

    def run_until_idle(self, stop: threading.Event) -> None:
        while not stop.is_set() and self.turn(stop):
            pass
        connection.close()

    def _safely(self, stop: threading.Event) -> bool:
        close_old_connections()
        try:
            return self.turn(stop)
        except (OperationalError, InterfaceError) as error:
            logger.warning("exports wait: PostgreSQL is away (%s)", type(error).__name__)
            connection.close()
            return False

    def turn(self, stop: threading.Event) -> bool:
        """Make one export, if one waits. Whether there was one."""
        self._tidy()
        self._look()
        token = uuid4()
        export = self._claim(token)
        if export is None:
            return False
        with metrics.RUNNING.track_inprogress():
            self._make(export, token, stop)
        return True

    def _claim(self, token: UUID) -> Export | None:
        """The longest-waiting one, or one whose maker has fallen silent; what was made of that goes."""
        with transaction.atomic():
            due = Q(state="waiting") | Q(state="running", lease_until__lt=Now())
            waiting = Export.objects.select_for_update(skip_locked=True).filter(due).order_by("id")
            export = waiting.first()
            if export is None:
                return None
            ExportPart.objects.filter(export=export).delete()
            if export.starts >= MOST_STARTS:
                self._give_up(export)
                return None
            export.starts += 1
            export.state, export.lease_token = "running", token
            export.samples_done = export.entries = export.size = export.stored_size = 0
            export.save()
            self._held(export, token, started_at=Now())
        return export

    def _give_up(self, export: Export) -> None:
        why = f"Making it was interrupted {MOST_STARTS} times. Ask for a shorter range."
        self._end(export, None, "failed", error=why)

    def _make(self, export: Export, token: UUID, stop: threading.Event) -> None:
        try:
            self._write(export, token, stop)
        except Lost:
            metrics.ENDED.labels(export.format, "lost").inc()
        except Interrupted:
            self._give_back(export, token)
        except TooLarge:
            most = settings.MAX_EXPORT_BYTES // 2**20
            why = f"The file is larger than {most} MiB compressed. Ask for a shorter range or fewer metrics."
            self._end(export, token, "failed", error=why)
        except Unmakeable as error:
            self._end(export, token, "failed", error=str(error))
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            logger.exception("export %d failed", export.pk)
            why = f"It could not be made ({type(error).__name__}). Ask for it again, or tell support its number."
            self._end(export, token, "failed", error=why)

    def _write(self, export: Export, token: UUID, stop: threading.Event) -> None:
        of = selection_of(export)
        self._held(export, token, samples_total=of.count())
        packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # gzip
        waiting = bytearray()
        for piece in FORMATS[export.format].pieces(of):
            if stop.is_set():
                raise Interrupted
            waiting += packer.compress(piece.content)
            self._count(export, piece)
            if piece.samples or not piece.content or len(waiting) >= self.part:
                self._keep(export, token, waiting, least=self.part)
        waiting += packer.flush()
        self._keep(export, token, waiting, least=1, last=True)

    def _count(self, export: Export, piece: Piece) -> None:
        export.size += len(piece.content)
        export.samples_done += piece.samples
        export.entries += piece.entries
        metrics.SAMPLES.labels(export.format).inc(piece.samples)

    def _keep(self, export: Export, token: UUID, waiting: bytearray, *, least: int, last: bool = False) -> None:
        """Renew the lease and say how far it is; keep what has come together, if that is enough for a part."""
        self._look()
        content = bytes(waiting) if len(waiting) >= least else b""
        offset, export.stored_size = export.stored_size, export.stored_size + len(content)
        if export.stored_size > settings.MAX_EXPORT_BYTES:
            raise TooLarge
        with self._gone_is_lost(), transaction.atomic():
            progress = ("samples_done", "entries", "size", "stored_size")
            self._held(export, token, **{name: getattr(export, name) for name in progress})
            if content:
                ExportPart.objects.create(export=export, offset=offset, content=content)
            if last:
                self._end(export, token, "done")
        if content:
            del waiting[:]

    def _held(self, export: Export, token: UUID, **changes: object) -> None:
        """Renew the lease. Raises `Lost`."""
        ours = Export.objects.filter(pk=export.pk, state="running", lease_token=token)
        if not ours.update(lease_until=Now() + self.lease, **changes):
            raise Lost

    @contextmanager
    def _gone_is_lost(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:  # erased between the two statements
            raise Lost from error

    def _end(self, export: Export, token: UUID | None, state: str, error: str = "") -> None:
        ours = Export.objects.filter(pk=export.pk, state="running")
        ours = ours.filter(lease_token=token) if token else ours
        kept = Now() + kept_for() if state == "done" else None
        changes = {"lease_token": None, "lease_until": None, "finished_at": Now(), "error": error, "expires_at": kept}
        if not ours.update(state=state, **changes):
            raise Lost
        if state != "done":
            ExportPart.objects.filter(export_id=export.pk).delete()
        metrics.ENDED.labels(export.format, state).inc()
        metrics.SECONDS.labels(export.format).observe(time.time() - export.requested_at.timestamp())

    def _give_back(self, export: Export, token: UUID) -> None:
        """Somebody else begins it anew at once; that we were stopped is not its fault."""
        ours = Export.objects.filter(pk=export.pk, state="running", lease_token=token)
        if ours.update(state="waiting", lease_token=None, lease_until=None, starts=export.starts - 1, samples_done=0):
            ExportPart.objects.filter(export_id=export.pk).delete()

    def _tidy(self) -> None:
        if time.monotonic() - self._tidied_at < TIDY_EVERY:
            return
        self._tidied_at = time.monotonic()
        expire()

    def _look(self) -> None:
        if time.monotonic() - self._looked_at >= LOOK_EVERY:
            self._looked_at = time.monotonic()
            metrics.WAITING.set(Export.objects.filter(state="waiting").count())


def expire() -> int:
    """Remove the files whose time is over, and keep the rows that say who had them; returns how many."""
    total = 0
    while True:
        with transaction.atomic():
            over = Export.objects.select_for_update(skip_locked=True).filter(state="done", expires_at__lt=Now())
            numbers = list(over.order_by("id").values_list("pk", flat=True)[:EXPIRED_AT_ONCE])
            Export.objects.filter(pk__in=numbers).update(state="expired")
            ExportPart.objects.filter(export_id__in=numbers).delete()
        total += len(numbers)
        if len(numbers) < EXPIRED_AT_ONCE:
            return total
