"""`manage.py tail_events`: watch what goes to Kafka, in words."""

import os
import re
import signal
import sys
import threading
from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import msgspec
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from webhooks.events import TOPICS
from webhooks.gist import line_of
from webhooks.tail import Message, Tail

FIRST_YEAR = 1971
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Command(BaseCommand):
    help = (
        "Print events as they come, a line each: when, topic, patient, sequence, type, and what it says. It reads "
        "along without a consumer group and changes nobody's offsets. Ctrl-C ends it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--topic", action="append", choices=TOPICS, help="only this one; may be said again")
        parser.add_argument("--patient", help="only this external id")
        begin = parser.add_mutually_exclusive_group()
        begin.add_argument("--from-beginning", action="store_true", help="begin with the oldest that Kafka keeps")
        begin.add_argument("--since", type=instant, help="published since 10m, 2h or 1d ago, or 2026-11-24T06:00Z")
        parser.add_argument(
            "--json", action="store_true", help="a JSON object a line, with place, key, headers and body"
        )
        parser.add_argument("--count", type=positive, help="end after so many")

    def handle(self, *_: Any, **options: Any) -> None:
        if not settings.KAFKA_BOOTSTRAP_SERVERS:
            raise CommandError("KAFKA_BOOTSTRAP_SERVERS is not set: name the brokers, as host:port,host:port.")
        stop = stopping()
        tail = Tail(
            settings.KAFKA_BOOTSTRAP_SERVERS,
            options["topic"] or TOPICS,
            self.say,
            beginning=options["from_beginning"],
            since=options["since"],
        )
        found = (each for each in tail.messages(stop) if options["patient"] in (None, key_of(each)))
        write = as_json if options["json"] else as_line
        try:
            for message in islice(found, options["count"]):
                self.stdout.write(write(message))
                self.stdout.flush()
        except BrokenPipeError:  # whoever read has gone, as `head` does; Python would complain when it flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def say(self, words: str) -> None:
        self.stderr.write(words)
        self.stderr.flush()


def stopping() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def instant(text: str) -> datetime:
    """A time ago or a timestamp with a zone. Kafka counts time from 1970 on."""
    try:
        ago = re.fullmatch(r"(\d+)([smhd])", text)
        at = datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])}) if ago else datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ArgumentTypeError(f"{text!r} is neither a time ago, as 10m, nor a timestamp") from None
    if at.tzinfo is None:
        raise ArgumentTypeError(f"{text!r} has no zone: end it with Z or an offset, as +02:00")
    if at.year < FIRST_YEAR:
        raise ArgumentTypeError(f"{text!r} is before {FIRST_YEAR}: --from-beginning reads all there is")
    return at


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def key_of(message: Message) -> str:
    return (message.key() or b"").decode(errors="replace")


def headers_of(message: Message) -> dict[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in message.headers() or []}


def as_line(message: Message) -> str:
    return line_of(message.topic(), key_of(message), headers_of(message), message.value() or b"")


def as_json(message: Message) -> str:
    """The body as it came; as a text where it is no JSON."""
    value = message.value() or b""
    try:
        body: Any = msgspec.json.decode(value)
    except msgspec.DecodeError:
        body = value.decode(errors="replace")
    place = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
    whole = {**place, "key": key_of(message), "headers": headers_of(message), "body": body}
    return msgspec.json.encode(whole).decode()
