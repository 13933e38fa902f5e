"""Vendors and phones, for Locust: as many as there are users, each waiting 0.5 to 2 s between what it posts.

    locust -f bench/locustfile.py --host http://127.0.0.1:8000 --oura-secret ... --whoop-secret ...

40 in 100 turns are Oura's, 40 WHOOP's, 20 a phone's. With `--answers FILE` every answer is written down as a line of
JSON, so that each acknowledged delivery can be looked up afterwards.
"""

import json
import random
import sys
import time
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Locust runs this file, not a package

import gevent
from gevent.pool import Group
from locust import FastHttpUser, between, events, task

from bench.traffic import Post, Secrets, Traffic

ACCEPTED = 202
PATIENCE = 30.0  # seconds
ARRIVAL = 1.0  # seconds, over which those begin whom Locust starts together


class Run:
    """What all users of this process share."""

    traffic = Traffic()
    secrets = Secrets()
    answers: TextIO | None = None
    under_way = Group()


@events.init_command_line_parser.add_listener
def add_arguments(parser: Any) -> None:
    add = parser.add_argument
    add("--people", type=int, default=50_000, help="ids are user_1 to user_<people> (50000)")
    add("--repeats", type=float, default=0.03, help="share of posts that are sent again (0.03)")
    add("--bursts", type=float, default=0.1, help="share of announcements that come as two at once (0.1)")
    add("--oura-secret", default="", env_var="OURA_CLIENT_SECRET", help="signs Oura's; unsigned without it")
    add("--whoop-secret", default="", env_var="WHOOP_CLIENT_SECRET", help="signs WHOOP's; unsigned without it")
    add("--api-key", default="test_api_key", env_var="AUREN_API_KEY", help="the phones' (test_api_key)")
    add("--answers", default="", help="a file that gets a line of JSON for each answer")


@events.test_start.add_listener
def start(environment: Any, **_: Any) -> None:
    chosen = environment.parsed_options
    Run.traffic = Traffic(chosen.people, chosen.repeats, chosen.bursts)
    Run.secrets = Secrets(chosen.oura_secret, chosen.whoop_secret, chosen.api_key)
    if chosen.answers:
        Run.answers = Path(chosen.answers).open("a", encoding="utf-8")  # noqa: SIM115 - closed by `stop`


@events.test_stop.add_listener
def stop(**_: Any) -> None:
    """Locust may end a user in the middle of a post; what the bridge answers is a promise all the same."""
    Run.under_way.join(timeout=PATIENCE)
    if Run.answers:
        Run.answers.close()


class Sender(FastHttpUser):
    wait_time = between(0.5, 2)
    network_timeout = connection_timeout = PATIENCE

    def on_start(self) -> None:
        """Locust starts all users of a second in one instant, and would measure its own queue of first posts."""
        gevent.sleep(random.uniform(0, ARRIVAL))  # noqa: S311 - no secret

    @task(40)
    def oura(self) -> None:
        self.send("oura")

    @task(40)
    def whoop(self) -> None:
        self.send("whoop")

    @task(20)
    def healthkit(self) -> None:
        self.send("healthkit")

    def send(self, vendor: str) -> None:
        burst = [Run.under_way.spawn(self.post, post) for post in Run.traffic.next(vendor)]
        for each in burst:
            each.join()

    def post(self, post: Post) -> None:
        headers = Run.secrets.headers(post)
        path = f"/webhooks/{post.vendor}"
        sent_at, started = time.time(), time.perf_counter()
        with self.client.post(path, data=post.body, headers=headers, name=path, catch_response=True) as reply:
            taken = (time.perf_counter() - started) * 1000
            told = answer_of(reply)
            if "problem" in told:
                reply.failure(told["problem"])
        write_down(post, sent_at, taken, reply.status_code, told)


def answer_of(reply: Any) -> dict[str, Any]:
    """`delivery` and `duplicate` of a promise that was given; `problem` for anything else."""
    if reply.status_code != ACCEPTED:
        return {"problem": f"{reply.status_code or reply.error}: {problem_of(reply.text or '')}"}
    told: dict[str, Any] = reply.json()
    return told


def problem_of(text: str) -> str:
    """The sentence of a problem (RFC 9457), else what was said instead."""
    try:
        return str(json.loads(text)["detail"])
    except (ValueError, TypeError, KeyError):
        return text[:200]


def write_down(post: Post, sent_at: float, taken: float, status: int, told: dict[str, Any]) -> None:
    if Run.answers is None:
        return
    line = {
        "at": round(sent_at, 3),
        "vendor": post.vendor,
        "status": status or 0,
        "ms": round(taken, 3),
        "key": post.key,
        "samples": post.samples,
        "bytes": len(post.body),
    }
    Run.answers.write(json.dumps(line | told) + "\n")
