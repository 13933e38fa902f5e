"""How gunicorn runs the web process: `gunicorn auren.asgi:application -c auren/gunicorn.py`."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker

from auren.collecting import collect_seldom
from auren.embedded.leash import die_with_parent

PORT = os.environ.get("PORT", "").strip() or "8000"

# Every process of a node shares this folder; `manage.py up` has made it already, elsewhere it is made here, empty,
# before anything imports prometheus_client.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    folder = Path(os.environ.get("AUREN_VAR", "").strip() or "var") / "metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


class BridgeWorker(UvicornWorker):  # type: ignore[misc]
    """Uvicorn that does not serve unless `lifespan` started: with `auto`, one that raised served all the same."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": "auren.protocol:BoundedProtocol",
        "lifespan": "on",
    }


bind = os.environ.get("BIND", "").strip() or f"127.0.0.1:{PORT}"
workers = int(os.environ.get("WEB_CONCURRENCY", "").strip() or "1")
worker_class = "auren.gunicorn.BridgeWorker"
MEMORY = Path("/dev/shm")  # noqa: S108 - gunicorn makes its own private file in it
worker_tmp_dir = str(MEMORY) if MEMORY.is_dir() else None
preload_app = False  # connections and metric files belong to the worker that opens them
graceful_timeout = 10
timeout = 30
keepalive = 75
backlog = 2048
accesslog = None
errorlog = "-"
loglevel = "info"
control_socket_disable = True  # it would be one file in the user's home for every bridge of that user


def post_fork(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    """Uvicorn's worker never looks at its parent: without this it would serve on after an arbiter that was killed."""
    die_with_parent(server.pid, signal.SIGTERM)


def post_worker_init(worker: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    """The application is imported by now."""
    collect_seldom()


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    """A worker's gauges go with it."""
    from prometheus_client import multiprocess  # noqa: PLC0415 - only after the folder is named

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
