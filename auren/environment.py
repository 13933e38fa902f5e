"""Reading settings from the environment: one function a type, each naming the variable it could not read."""

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured


def load_file(path: Path) -> None:
    """Take `NAME=value` lines for names the environment does not have yet. A file that is not there is no fault."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        name, separator, value = line.strip().partition("=")
        if separator and not name.startswith("#"):
            os.environ.setdefault(name.strip(), value.strip())


def text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def items(name: str, default: str = "") -> tuple[str, ...]:
    """A comma-separated list, empty entries dropped."""
    return tuple(part for part in (piece.strip() for piece in text(name, default).split(",")) if part)


def flag(name: str, *, default: bool = False) -> bool:
    value = text(name).lower()
    if value in {"", "0", "1", "true", "false", "yes", "no", "on", "off"}:
        return value in {"1", "true", "yes", "on"} if value else default
    raise ImproperlyConfigured(f"{name} is {value!r}: use 1 or 0.")


def number(name: str, default: float, *, low: float = 0) -> float:
    value = text(name)
    try:
        parsed = float(value) if value else default
    except ValueError:
        raise ImproperlyConfigured(f"{name} is {value!r}: it must be a number.") from None
    if not low <= parsed < float("inf"):
        raise ImproperlyConfigured(f"{name} is {parsed:g}: it must be {low:g} or more.")
    return parsed


def whole(name: str, default: int, *, low: int = 0) -> int:
    return int(number(name, default, low=low))


def rate(name: str, default: str) -> str:
    """How many in how many seconds, as `600/60`; `0` is no limit."""
    value = text(name, default)
    if not re.fullmatch(r"0|[1-9][0-9]{0,8}/[1-9][0-9]{0,8}", value):
        raise ImproperlyConfigured(f"{name} is {value!r}: write requests/seconds, such as 600/60, or 0 for no limit.")
    return value


def database(name: str, url: str, *, connect_timeout: int = 5) -> dict[str, object]:
    """Django's DATABASES entry for a `postgresql://user:password@host:port/name?option=value` address."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ImproperlyConfigured(f"{name} must start with postgresql://, not {parts.scheme}://.")
    options: dict[str, object] = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django_prometheus.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or options.pop("host", "")),  # type: ignore[arg-type]
        "PORT": str(parts.port or ""),
        "CONN_MAX_AGE": 0,
        "OPTIONS": options | {"connect_timeout": connect_timeout},
    }
