"""Which ordinary user a server runs as when we are root: PostgreSQL refuses to be root, and it is right."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

NAMES = ("postgres", "nobody")
LAST_RESORT = 65534


@dataclass(frozen=True)
class Account:
    """A user and group by number."""

    uid: int
    gid: int

    @classmethod
    def ordinary(cls) -> Self | None:
        """Whom to drop to, or None when we are an ordinary user already."""
        if os.geteuid() != 0:
            return None
        for name in NAMES:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(entry.pw_uid, entry.pw_gid)
        return cls(LAST_RESORT, LAST_RESORT)

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}"

    def may_enter(self, folder: Path) -> bool:
        """Whether this user can reach what lies in `folder`: every folder above it must let them through."""
        asked = subprocess.run(  # noqa: S603 - as that user, since only the kernel knows every rule
            ["/bin/sh", "-c", 'test -x "$0"', str(folder)],
            cwd="/",
            user=self.uid,
            group=self.gid,
            extra_groups=[],
            check=False,
        )
        return asked.returncode == 0

    def own(self, path: Path) -> None:
        os.chown(path, self.uid, self.gid)
