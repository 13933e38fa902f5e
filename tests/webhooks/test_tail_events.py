"""`manage.py tail_events`, run as people run it: a process of its own, beside a broker."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from auren.embedded.kafka import MockKafka
from auren.embedded.server import BASE_DIR, free_port
from auren.sandbox.server import RunningSandbox
from devices.models import Patient
from tests.webhooks.living import NOON, announce, connect, heart_rate, patient, push, send_out, until, work
from webhooks.erasure import erase
from webhooks.events import CONFLICTS, DEAD, ERASED, SAMPLES, TOPICS, TYPES
from webhooks.gist import GISTS, line_of

PATIENCE_SECONDS = 60


class Tailing:
    """The command while it runs. Threads read what it says, so that it never waits for us."""

    def __init__(self, *arguments: str, kafka: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(BASE_DIR / "manage.py"), "tail_events", *arguments],
            env=os.environ | {"KAFKA_BOOTSTRAP_SERVERS": kafka, "PYTHONWARNINGS": "error"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.said: list[str] = []
        self.readers = [
            threading.Thread(target=lambda: self.lines.extend(self.process.stdout or ()), daemon=True),
            threading.Thread(target=self._hear, daemon=True),
        ]
        for reader in self.readers:
            reader.start()

    def _hear(self) -> None:
        for line in self.process.stderr or ():
            self.said.append(line)

    def has_said(self, words: str) -> bool:
        return any(words in line for line in self.said)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(PATIENCE_SECONDS)
        for reader in self.readers:
            reader.join(PATIENCE_SECONDS)
        return code


@contextmanager
def tailing(kafka: str, *arguments: str) -> Iterator[Tailing]:
    running = Tailing(*arguments, kafka=kafka)
    try:
        yield running
    finally:
        running.process.kill()
        running.wait()
        for pipe in (running.process.stdout, running.process.stderr):
            assert pipe is not None
            pipe.close()


def tailed(kafka: str, *arguments: str) -> list[str]:
    """All lines of a tail that ends by itself."""
    with tailing(kafka, *arguments) as running:
        assert running.wait() == 0, running.said
        return running.lines


@pytest.fixture
def who(database: str) -> Patient:
    return patient(f"tail-{uuid4().hex[:12]}")


def publish(who: Patient, *values: float) -> None:
    for value in values:
        push(heart_rate(value, NOON + timedelta(minutes=value)), user=who.external_id)
    work()
    send_out()


def publish_until(happened: Callable[[], object], who: Patient) -> None:
    """Where "from now on" begins is between Kafka and the reader, so one event may come too early for it."""

    def published_once_more() -> bool:
        publish(who, 61)
        return bool(happened())

    until(published_once_more, PATIENCE_SECONDS)


def test_it_prints_events_as_they_come_and_ends_on_ctrl_c(who: Patient, kafka: str) -> None:
    publish(who, 60)
    with tailing(kafka, "--patient", who.external_id) as running:
        until(lambda: running.has_said("Reading"), PATIENCE_SECONDS)
        publish_until(lambda: running.lines, who)
        assert running.end() == 0
    assert not [line for line in running.lines if "#1 " in line], "what came before is not printed"
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+Z  auren.samples.v1  {who.external_id}  #\d+  auren.samples.stored.v1  "
        r"healthkit webhook, delivery \d+: 1 sample: heart_rate 1\n",
        running.lines[0],
    )


def test_every_type_of_event_is_told_in_words(vendors: RunningSandbox, who: Patient, kafka: str) -> None:
    user = who.external_id
    push(heart_rate(61, source="A watch", uuid="first"), user=user)
    push(heart_rate(99, source="Another watch", uuid="mistaken"), user=user)
    work()
    push(user=user, deleted=["mistaken"])
    work()
    connect(vendors, "oura", user)
    vendors.script_fault("oura", "/v2/usercollection/sleep", status=403)
    announce("oura", "sleep.update", "night", user=user)
    work()
    send_out()
    erase(who, by="ada", reason="asked for it")
    send_out()
    lines = "".join(tailed(kafka, "--from-beginning", "--patient", user, "--count", "7"))
    assert lines.count("1 sample: heart_rate 1") == 2
    assert "1 record withdrawn: mistaken" in lines
    assert re.search(r"heart_rate from 2026\S* \S+Z to \S+ \S+Z in /min: (61|99) of source \d+ against", lines)
    assert "nothing is left to settle (agreed)" in lines
    assert "sleep.update given up after 1 try: " in lines
    assert "erased, with all that was received before 20" in lines


def test_every_type_that_is_published_has_words() -> None:
    assert set(GISTS) == {*TYPES.values(), ERASED}


def test_only_the_topics_named_are_read(who: Patient, kafka: str) -> None:
    user = who.external_id
    push(heart_rate(61, source="A watch"), user=user)
    push(heart_rate(99, source="Another watch"), user=user)
    work()
    send_out()
    [line] = tailed(kafka, "--from-beginning", "--topic", CONFLICTS, "--patient", user, "--count", "1")
    assert f"  {CONFLICTS}  {user}  " in line


def test_json_is_the_whole_message_a_line(who: Patient, kafka: str) -> None:
    publish(who, 61)
    [line] = tailed(kafka, "--from-beginning", "--patient", who.external_id, "--count", "1", "--json")
    told = json.loads(line)
    assert set(told) == {"topic", "partition", "offset", "key", "headers", "body"}
    assert (told["topic"], told["key"]) == (SAMPLES, who.external_id)
    assert told["headers"]["ce_type"] == TYPES[SAMPLES]
    assert told["body"]["samples"][0]["value"] == 61


def test_since_reads_what_was_published_since(who: Patient, kafka: str) -> None:
    publish(who, 61)
    [line] = tailed(kafka, "--since", "1h", "--patient", who.external_id, "--count", "1")
    assert "  #1  " in line
    with tailing(kafka, "--since", "2099-01-01T00:00Z", "--patient", who.external_id) as running:
        until(lambda: running.has_said("Reading"), PATIENCE_SECONDS)
        publish(who, 62)
        assert running.end() == 0
    assert running.lines == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--since", "yesterday"], "neither a time ago"),
        (["--since", "2026-11-24T06:00"], "has no zone"),
        (["--since", "0001-01-01T00:00Z"], "is before 1971"),
        (["--since", "99999999999999d"], "neither a time ago"),
        (["--count", "0"], "not a number from 1 on"),
        (["--topic", "passwords"], "invalid choice"),
        (["--since", "1h", "--from-beginning"], "not allowed with"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_with_the_reason(arguments: list[str], why: str) -> None:
    with tailing("127.0.0.1:9", *arguments) as running:
        assert running.wait() != 0
    assert running.has_said(why), running.said


def test_without_an_address_it_says_which_setting_is_missing() -> None:
    with tailing("") as running:
        assert running.wait() == 1
    assert running.has_said("KAFKA_BOOTSTRAP_SERVERS is not set")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_kafka_is_away_it_says_so_once_and_still_ends_when_told(number: signal.Signals) -> None:
    with tailing(f"127.0.0.1:{free_port()}") as running:
        until(lambda: running.has_said("is away"), PATIENCE_SECONDS)
        assert running.end(number) == 0
    assert [line for line in running.said if "is away" in line] == running.said


def test_a_kafka_that_goes_away_is_noticed(tmp_path: Path) -> None:
    with MockKafka(tmp_path) as server, tailing(server.url) as running:
        until(lambda: running.has_said("Reading"), PATIENCE_SECONDS)
        server.stop()
        until(lambda: running.has_said("is away"), PATIENCE_SECONDS)
        assert running.end() == 0


def test_no_group_is_left_behind(who: Patient, kafka: str) -> None:
    publish(who, 61)
    tailed(kafka, "--from-beginning", "--patient", who.external_id, "--count", "1")
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    groups = admin.list_consumer_groups(request_timeout=10).result().valid
    assert [group.group_id for group in groups if group.group_id.startswith("auren-tail")] == []


def test_a_reader_that_goes_away_ends_it_without_a_traceback(who: Patient, kafka: str) -> None:
    publish(who, 61, 62, 63)
    command = [sys.executable, str(BASE_DIR / "manage.py"), "tail_events", "--from-beginning", "--json"]
    environment = os.environ | {"KAFKA_BOOTSTRAP_SERVERS": kafka, "PYTHONWARNINGS": "error"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tail:
        assert tail.stdout
        assert tail.stderr
        assert tail.stdout.readline()
        tail.stdout.close()
        publish_until(lambda: tail.poll() is not None, who)
        assert "Traceback" not in tail.stderr.read()
        assert tail.returncode == 0


def foreign(kafka: str, key: str, value: bytes, **headers: str) -> None:
    producer = Producer({"bootstrap.servers": kafka, "log_level": 0})
    producer.produce(DEAD, value, key, headers=list(headers.items()))
    assert producer.flush(PATIENCE_SECONDS) == 0


def test_what_is_no_event_of_ours_is_said_to_be_none_and_obeyed_by_no_terminal(kafka: str) -> None:
    key = f"tail-{uuid4().hex[:12]}"
    foreign(kafka, key, b"\xff\x00", ce_type=TYPES[SAMPLES])
    foreign(kafka, key, b'{"samples": 5}', ce_type=TYPES[SAMPLES])
    foreign(kafka, key, b"hello", ce_type="\x1b[2Jcleared")
    foreign(kafka, key, b"null")
    read = ["--from-beginning", "--topic", DEAD, "--patient", key, "--count", "4"]
    lines = tailed(kafka, *read)
    assert ["not what the type's schema says" in line for line in lines] == [True, True, False, False]
    assert ["none of ours" in line for line in lines] == [False, False, True, True]
    assert "\\x1b[2Jcleared" in lines[2]
    assert "\x1b" not in "".join(lines)
    bodies = [json.loads(line)["body"] for line in tailed(kafka, *read, "--json")]
    assert bodies == ["\ufffd\0", {"samples": 5}, "hello", None]


@pytest.mark.parametrize("value", [b"", b"[]", b"5", b'{"samples": [5]}', b'{"samples": [{"metric": []}]}', b"\xff"])
@pytest.mark.parametrize("kind", [*GISTS, ""])
def test_any_bytes_make_one_line(kind: str, value: bytes) -> None:
    line = line_of(TOPICS[0], "user\n7", {"ce_type": kind}, value)
    assert "user\\n7" in line
    assert line.isprintable()
