"""A consumer of `auren.samples.v1` that loses nothing and counts nothing twice: what stands, in a SQLite file.

python consumer.py <bootstrap servers> <consumer group> <file>
"""

import json
import signal
import sqlite3
import sys
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from typing import Any

from confluent_kafka import Consumer, KafkaException

OPTIONS = {
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",  # where a new group begins
    "session.timeout.ms": 10_000,  # after which the partitions of one that was killed are another's
}
TABLES = """
CREATE TABLE IF NOT EXISTS seen (id PRIMARY KEY);
CREATE TABLE IF NOT EXISTS sample (patient, vendor, record, sequence, received_at, metric, start_at, value);
CREATE INDEX IF NOT EXISTS of_record ON sample (patient, vendor, record);
"""


def apply(database: sqlite3.Connection, messages: Iterable[Any]) -> None:
    """The effect of messages and the ids of those messages: all of it in one transaction, or none."""
    with database:
        for message in messages:
            headers = {name: value.decode() for name, value in message.headers()}
            if database.execute("INSERT OR IGNORE INTO seen VALUES (?)", [headers["ce_id"]]).rowcount:
                take(database, headers, json.loads(message.value()))


def take(database: sqlite3.Connection, headers: dict[str, str], body: dict[str, Any]) -> None:
    received_at = datetime.fromisoformat(body["received_at"]).timestamp()
    if headers["ce_type"] == "auren.patient.erased.v1":
        erased_at = datetime.fromisoformat(body["erased_at"]).timestamp()
        # Not what came for somebody who was given the same external id since.
        database.execute("DELETE FROM sample WHERE patient = ? AND received_at < ?", [body["patient"], erased_at])
    elif headers["ce_type"] == "auren.samples.stored.v1":
        whose, sequence = (body["patient"], body["vendor"]), int(headers["sequence"])
        rows = [
            (*whose, s["record"], sequence, received_at, s["metric"], s["start_at"], s["value"])
            for s in body["samples"]
        ]
        replaced = {s["record"] for s in body["samples"]} | set(body["withdrawn"])
        # Not what another part of the same delivery has just said of that record: large deliveries come in parts.
        older = "DELETE FROM sample WHERE patient = ? AND vendor = ? AND record = ? AND sequence < ?"
        database.executemany(older, [(*whose, record, sequence) for record in replaced])
        database.executemany("INSERT INTO sample VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)


def main(servers: str, group: str, file: str) -> None:
    stopped = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.append(True))
    options = OPTIONS | {"bootstrap.servers": servers, "group.id": group}
    with closing(sqlite3.connect(file)) as database, closing(Consumer(options)) as kafka:
        database.executescript(TABLES)
        kafka.subscribe(["auren.samples.v1"])
        while not stopped:
            came = kafka.consume(500, timeout=1)
            for trouble in filter(None, (message.error() for message in came)):
                print(f"Kafka: {trouble.str()}", file=sys.stderr)  # it is tried again; nothing is skipped
            if messages := [message for message in came if not message.error()]:
                apply(database, messages)
                commit(kafka)


def commit(kafka: Consumer) -> None:
    """After the work, and before more is asked for: a partition that goes to another consumer has nothing undone.

    Where it went while we worked, its next owner does the same work again, and finds the ids there.
    """
    try:
        kafka.commit(asynchronous=False)
    except KafkaException as error:
        print(f"not committed, it will come again: {error}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
