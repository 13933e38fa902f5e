"""What a report needs that pip does not bring: libraries of the system, which weasyprint loads by these names."""

import ctypes

PACKAGES = ("libpango-1.0-0", "libpangoft2-1.0-0", "libharfbuzz-subset0", "fonts-dejavu-core")
# Each library, and which of the packages brings it, itself or by what it depends on (Debian 12 and 13, Ubuntu 24.04).
LIBRARIES = {
    "libgobject-2.0.so.0": "libpango-1.0-0",
    "libpango-1.0.so.0": "libpango-1.0-0",
    "libharfbuzz.so.0": "libpango-1.0-0",
    "libfontconfig.so.1": "libpangoft2-1.0-0",
    "libpangoft2-1.0.so.0": "libpangoft2-1.0-0",
    "libharfbuzz-subset.so.0": "libharfbuzz-subset0",
}


def lacking() -> str:
    """What this machine lacks for a report, as a sentence that says what to install; empty if nothing.

    Asked each time, so that an `apt-get install` needs no restart; what is loaded already costs microseconds.
    """
    absent = dict.fromkeys(package for library, package in LIBRARIES.items() if not _loads(library))
    if not absent:
        return ""
    return (
        f"Reports cannot be made here: the system lacks {', '.join(absent)}. "
        f"Whoever runs the bridge can install it (Debian: apt-get install {' '.join(PACKAGES)})."
    )


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
