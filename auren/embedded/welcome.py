"""What `manage.py up` prints once everything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from auren.embedded.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from auren.embedded.node import Node

WHAT = {
    "postgresql": "PostgreSQL 18",
    "valkey": "Valkey",
    "kafka": "Kafka's stand-in",
}


def text(node: Node, seconds: float) -> str:
    return "\n".join(["", f"The bridge is up after {seconds:.0f} s.", "", *_addresses(node), "", *_notes(node)])


def _addresses(node: Node) -> Iterator[str]:
    logins = node.secrets
    rows = (
        ("Clinicians", f"{node.http}/", f"clinician  {logins['clinician']}"),
        ("Support", f"{node.http}/admin/", f"support    {logins['support']}"),
        ("", "", f"admin      {logins['admin']}"),
        ("Metrics", f"{node.http}/metrics", ""),
        ("Kafka", node.environment["KAFKA_BOOTSTRAP_SERVERS"], ""),
        ("Redis", node.environment["REDIS_URL"], ""),
        ("Database", node.environment["DATABASE_URL"], ""),
    )
    for what, where, login in rows:
        yield f"  {what:<11} {where:<34} {login}".rstrip()


def _notes(node: Node) -> Iterator[str]:
    if node.embedded:
        yield f"  Embedded: {', '.join(WHAT[server.name] for server in node.embedded)}; data in {node.var.folder}."
    for server in node.embedded:
        if isinstance(server, Postgres) and server.moved_to:
            yield "  PostgreSQL runs as an ordinary user, whom the folders above that one keep out, so its data"
            yield f"  is in {server.moved_to}."
        if server.name == "kafka":
            yield "  Kafka is librdkafka's mock cluster, a stand-in: 4 partitions a topic, of each of which it keeps"
            yield "  about 5 MB, and nothing across a restart."
    oura, whoop = node.environment["OURA_RATE_LIMIT"], node.environment["WHOOP_RATE_LIMIT"]
    yield f"  The vendors are the sandbox at {node.sandbox}, with {node.demo.people} people. Their rate limits are"
    yield f"  raised: Oura {oura}, WHOOP {whoop} (calls/seconds)."
    yield f"  Logs are in {node.var.folder / 'log'}; warnings and errors show here too. Ctrl-C stops everything."
