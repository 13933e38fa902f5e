"""A running sandbox from outside: the control API as typed methods, whether it runs in a thread or in a process."""

from datetime import datetime
from typing import Any, Self

import httpx

from auren.sandbox.announce import Verb
from auren.sandbox.faults import Action, Call
from auren.sandbox.grants import Tokens, Vendor

Document = dict[str, Any]


class RemoteSandbox:
    """Every method is one request to `/sandbox/…`. Raises httpx.HTTPStatusError where the sandbox refuses."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.Client(base_url=f"{self.url}/sandbox", trust_env=False, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def _send(self, method: str, path: str, body: Document | None = None, params: dict[str, str] | None = None) -> Any:
        reply = self._client.request(method, path, json=body, params=params)
        reply.raise_for_status()
        return reply.json() if reply.content else None

    def grant(
        self, vendor: Vendor, user: str, expires_in: int | None = None, scopes: tuple[str, ...] | None = None
    ) -> Tokens:
        """A token pair at once, as if the person had just consented; every scope unless `scopes` says which."""
        return self.grant_many(vendor, [user], expires_in, scopes)[0]

    def grant_many(
        self, vendor: Vendor, users: list[str], expires_in: int | None = None, scopes: tuple[str, ...] | None = None
    ) -> list[Tokens]:
        """The same for many people, in one transaction: what a load test's people need."""
        body: Document = {"vendor": vendor, "users": users}
        body |= {} if expires_in is None else {"expires_in": expires_in}
        body |= {} if scopes is None else {"scopes": list(scopes)}
        minted = self._send("POST", "/grants", body)
        return [Tokens(**(each | {"scopes": tuple(each["scopes"])})) for each in minted]

    def revoke(self, vendor: Vendor, user: str) -> int:
        """The person withdraws access at the vendor; how many authorizations that ended."""
        return int(self._send("DELETE", "/grants", {"vendor": vendor, "user": user})["revoked"])

    def granted(self, vendor: Vendor) -> list[str]:
        users: list[str] = self._send("GET", "/grants")[vendor]
        return users

    def documents(self, vendor: Vendor, user: str, kind: str, record: str = "") -> list[Document]:
        """What the vendor would serve now, oldest first; of one record, that document alone."""
        params = {"vendor": vendor, "user": user, "kind": kind} | ({"record": record} if record else {})
        found: list[Document] = self._send("GET", "/documents", params=params)
        return found

    def put_document(self, vendor: Vendor, user: str, kind: str, document: Document, *, announce: bool = False) -> str:
        """Serve `document` as it is, and return its record."""
        body = {"vendor": vendor, "user": user, "kind": kind, "document": document, "announce": announce}
        return str(self._send("POST", "/documents", body)["record"])

    def edit_document(
        self,
        vendor: Vendor,
        user: str,
        kind: str,
        record: str = "",
        changes: Document | None = None,
        *,
        announce: bool = False,
    ) -> Document:
        """A new revision of the record (the newest without one), returned; without `changes` one number moves."""
        body: Document = {"vendor": vendor, "user": user, "kind": kind, "record": record, "announce": announce}
        body |= {} if changes is None else {"changes": changes}
        document: Document = self._send("POST", "/documents/edit", body)["document"]
        return document

    def delete_document(self, vendor: Vendor, user: str, kind: str, record: str = "", *, announce: bool = False) -> str:
        """Withdraw the record (the newest without one), and return it."""
        body = {"vendor": vendor, "user": user, "kind": kind, "record": record, "announce": announce}
        return str(self._send("POST", "/documents/delete", body)["record"])

    def announce(
        self, vendor: Vendor, user: str, kind: str, record: str = "", verb: Verb = "update", *, wait: bool = True
    ) -> Document:
        """Post a signed webhook to the bridge; with `wait`, until it was taken or given up."""
        body = {"vendor": vendor, "user": user, "kind": kind, "record": record, "verb": verb, "wait": wait}
        announced: Document = self._send("POST", "/announce", body)
        return announced

    def announcements(self, *, wait: bool = False) -> list[Document]:
        params = {"wait": "1"} if wait else {}
        sent: list[Document] = self._send("GET", "/announcements", params=params)["announcements"]
        return sent

    def script_fault(
        self,
        vendor: Vendor,
        path: str,
        action: Action = "status",
        *,
        count: int = 1,
        status: int = 503,
        method: str = "",
        retry_after: int | None = None,
    ) -> None:
        """The next `count` calls whose path below `/oura` or `/whoop` begins with `path` meet a fault."""
        body = {"vendor": vendor, "path": path, "action": action, "count": count, "status": status, "method": method}
        self._send("POST", "/faults/script", body | {"retry_after": retry_after})

    def set_faults(self, vendor: Vendor, **shares: float) -> None:
        """Shares of 0 to 1 of `error`, `timeout`, `not_found`, `drop_webhook`."""
        self._send("POST", "/faults", {"vendor": vendor, **shares})

    def clear_faults(self) -> None:
        self._send("DELETE", "/faults")

    def set_clock(self, now: datetime | None) -> None:
        """Stand the clock still at an aware time; None lets it run."""
        self._send("POST", "/clock", {"now": now.isoformat() if now else None})

    def set_vendor(
        self,
        vendor: Vendor,
        *,
        rate_limit: str | None = None,
        latency_ms: float | None = None,
        access_token_seconds: int | None = None,
    ) -> None:
        knobs = {"rate_limit": rate_limit, "latency_ms": latency_ms, "access_token_seconds": access_token_seconds}
        changed = {name: value for name, value in knobs.items() if value is not None}
        self._send("POST", "/settings", {"vendor": vendor, **changed})

    def set_scoring(self, *, pending_share: float, pending_minutes: float = 40) -> None:
        """On which share of nights, and for how long, WHOOP's newest sleep and recovery wait for their score."""
        self._send("POST", "/settings", {"pending_share": pending_share, "pending_minutes": pending_minutes})

    def calls(
        self,
        vendor: Vendor | None = None,
        path: str = "",
        *,
        user: str = "",
        status: int | None = None,
        method: str = "",
    ) -> list[Call]:
        """Requests the vendors got, oldest first, `path` being a prefix below `/oura` or `/whoop`."""
        wanted = {"vendor": vendor or "", "path": path, "user": user, "method": method}
        wanted |= {} if status is None else {"status": str(status)}
        found = self._send("GET", "/calls", params={name: value for name, value in wanted.items() if value})
        return [Call(**each) for each in found["calls"]]

    def forget_calls(self) -> None:
        self._send("DELETE", "/calls")

    def reset(self) -> None:
        """Back to how it was configured: no grants, changed documents, faults, calls or subscriptions."""
        self._send("POST", "/reset")
