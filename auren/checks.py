"""Start-up checks: what must not run is refused with one clear sentence, by every command and by the web process."""

from collections.abc import Iterator, Sequence
from typing import Any

from cryptography.fernet import Fernet
from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register, run_checks
from django.core.exceptions import ImproperlyConfigured

TAG = "auren"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
PLACEHOLDERS = ("change-me", "changeme", "django-insecure", "example", "secret", "password")


@register(TAG)
def check_settings(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001
    """Errors that keep the bridge from starting, in the order they should be mended."""
    if settings.SANDBOX:
        return list(_sandbox_hosts())
    return [*_secrets(), *_token_keys()]


def refuse_to_start() -> None:
    """Raise `ImproperlyConfigured` with every error of `check_settings`, for processes Django does not check."""
    errors = run_checks(tags=[TAG])
    if errors:
        raise ImproperlyConfigured(" ".join(f"{error.msg} {error.hint or ''}".strip() for error in errors))


def _sandbox_hosts() -> Iterator[Error]:
    outside = [host for host in settings.ALLOWED_HOSTS if host not in LOOPBACK_NAMES]
    if outside:
        yield Error(
            f"AUREN_SANDBOX=1 takes unsigned webhooks, but ALLOWED_HOSTS names {', '.join(outside)}.",
            hint="Allow loopback names only, or unset AUREN_SANDBOX.",
            id="auren.E001",
        )


def _secrets() -> Iterator[Error]:
    for name, values, shortest in (
        ("SECRET_KEY", (settings.SECRET_KEY,), 32),
        ("OURA_CLIENT_SECRET", settings.OURA_CLIENT_SECRETS, 8),
        ("WHOOP_CLIENT_SECRET", settings.WHOOP_CLIENT_SECRETS, 8),
        ("OURA_VERIFICATION_TOKEN", (settings.OURA_VERIFICATION_TOKEN,), 8),
    ):
        yield from _secret(name, values, shortest)


def _secret(name: str, values: tuple[str, ...], shortest: int) -> Iterator[Error]:
    if not any(values):
        yield Error(f"{name} is not set.", hint="Outside the sandbox it must be: see .env.example.", id="auren.E002")
        return
    for value in values:
        if (
            len(value) < shortest
            or len(set(value)) < 5
            or value.lower().startswith(PLACEHOLDERS[:3])
            or value.lower() in PLACEHOLDERS
        ):
            yield Error(
                f"{name} is too weak: under {shortest} characters, too few different ones, or a placeholder.",
                hint="Set a random one, for example from: openssl rand -base64 48",
                id="auren.E003",
            )


def _token_keys() -> Iterator[Error]:
    if not settings.TOKEN_KEYS:
        yield Error("TOKEN_KEYS is not set.", hint="Without it no vendor token can be stored.", id="auren.E004")
    for place, key in enumerate(settings.TOKEN_KEYS, start=1):
        try:
            Fernet(key)
        except ValueError:
            yield Error(
                f"TOKEN_KEYS: key {place} is no Fernet key.",
                hint="Make one with: openssl rand -base64 32 | tr '+/' '-_'",
                id="auren.E005",
            )
