"""How many users at what time, for Locust: `-f bench/locustfile.py,bench/steps.py --steps 50:30,300:30,50:30`."""

from typing import Any

from locust import LoadTestShape, events

SPAWNED_A_SECOND = 300


@events.init_command_line_parser.add_listener
def add_arguments(parser: Any) -> None:
    parser.add_argument("--steps", default="50:30,300:30,50:30", help="users:seconds, one after the other")


class Steps(LoadTestShape):
    def tick(self) -> tuple[int, float] | None:
        since = self.get_run_time()
        for users, seconds in steps_of(self.runner.environment.parsed_options.steps):
            if since < seconds:
                return users, SPAWNED_A_SECOND
            since -= seconds
        return None


def steps_of(text: str) -> list[tuple[int, float]]:
    pairs = (step.partition(":") for step in text.split(","))
    return [(int(users), float(seconds)) for users, _, seconds in pairs]
