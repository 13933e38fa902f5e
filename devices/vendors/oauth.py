"""What differs between vendors when a patient connects a device. Each vendor's `oauth.py` says it as an `OAuth`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

PREFIX = "extapi:"  # how Oura's newer identity provider writes the scopes it granted
LONGEST_SCOPE, MOST_SCOPES = 100, 50


class Scope(NamedTuple):
    """`carries` is what a patient and support call the data that need it; "" for what the bridge itself needs.

    `kinds` are the documents that can be asked for with it only.
    """

    name: str
    carries: str = ""
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class OAuth:
    """One vendor's facts.

    `account_path`, below the vendor's API address, answers with the account's id as `account_id`. `revoke_method` says
    how the revoke address is asked; in the query it may want the token as `revoke_parameter`. With
    `revoke_beside_token`, each generation of addresses has it beside its token address. `manage` says where a patient
    can end the sharing at the vendor.
    """

    scopes: tuple[Scope, ...]
    state_length: int
    account_path: str
    account_id: str
    revoke_method: Literal["POST", "DELETE"]
    manage: str
    device: str
    revoke_parameter: str = ""
    revoke_beside_token: bool = False
    pkce: bool = True

    @property
    def carries(self) -> list[str]:
        """All kinds of data, as people say it."""
        return [scope.carries for scope in self.scopes if scope.carries]

    def scope_of(self, kind: str) -> str:
        """The scope that `kind` cannot be asked for without; "" where none is known."""
        return next((scope.name for scope in self.scopes if kind in scope.kinds), "")

    def covers(self, granted: str, kind: str) -> bool:
        """Whether `kind` may be asked for. A grant whose scopes were never noted is taken to cover everything."""
        needed = self.scope_of(kind)
        return not granted or not needed or needed in plain(granted)

    def missing(self, granted: str) -> list[Scope]:
        """The scopes that were wanted and are not in `granted`, which is as the vendor wrote it."""
        have = set(plain(granted))
        return [scope for scope in self.scopes if scope.name not in have]


def plain(scopes: str) -> list[str]:
    """The scopes in a vendor's text, without the prefix."""
    return [scope.removeprefix(PREFIX) for scope in scopes.replace(",", " ").split()]


def tidy(scopes: str) -> str:
    """A vendor's text as it may be stored: printable names of a sane length and number, one space between them."""
    return " ".join(_named(scopes.replace(",", " ").split()))


def _named(scopes: Iterable[str]) -> list[str]:
    named = [scope for scope in scopes if scope.isascii() and scope.isprintable() and len(scope) <= LONGEST_SCOPE]
    return named[:MOST_SCOPES]
