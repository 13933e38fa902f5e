"""`manage.py run_sandbox`: stand-in vendors over HTTP, and people whose days go on."""

import argparse
import signal
import socket
import sys
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from auren.collecting import collect_seldom
from auren.sandbox.limits import parse
from auren.sandbox.server import SandboxConfig, VendorConfig, addresses, make_app, uvicorn_server

VENDOR_LIKE = (120.0, 180.0)  # ms, Oura and WHOOP


def latencies(text: str) -> tuple[float, float]:
    """`vendor-like`, or milliseconds: one figure for both vendors, or `oura/whoop`."""
    if text == "vendor-like":
        return VENDOR_LIKE
    oura, slash, whoop = text.partition("/")
    try:
        return float(oura), float(whoop if slash else oura)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no latency: use vendor-like, 0, or 120/180.") from None


def rate_limit(text: str) -> str:
    try:
        parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


class Command(BaseCommand):
    help = "Runs Oura's and WHOOP's stand-ins, and the phones of the demo people, until it is stopped."

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("--host", default="127.0.0.1", help="Address to listen on.")
        add("--port", type=int, default=8100, help="Port to listen on.")
        add("--state", default=":memory:", help="Folder that keeps grants and changed documents over a restart.")
        add("--bridge", default="", help="The bridge's address; without it nothing is announced or posted.")
        add("--people", type=int, default=20, help="How many people live here: user_1 to user_N.")
        add("--days", type=int, default=30, help="Days of history at the first start.")
        add("--trickle", type=float, default=0, help="Seconds between announcements; 0 announces nothing by itself.")
        add("--seed", type=int, default=0, help="Another seed makes other people.")
        add("--latency", type=latencies, default=(0.0, 0.0), help="ms for both, oura/whoop, or vendor-like (120/180).")
        add("--oura-rate-limit", type=rate_limit, default=settings.OURA_RATE_LIMIT, help="As 5000/300; 0 for none.")
        add("--whoop-rate-limit", type=rate_limit, default=settings.WHOOP_RATE_LIMIT, help="As 100/60,10000/86400.")

    def handle(self, *args: Any, **options: Any) -> None:
        del args
        config = self._config(options)
        try:
            listening = socket.create_server((options["host"], options["port"]), backlog=2_048)
        except OSError as error:
            raise CommandError(f"Port {options['port']} cannot be listened on: {error.strerror}.") from None
        server = uvicorn_server(make_app(config))
        # uvicorn stops on a signal, then raises it once more with the handler that was there before it.
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        self.stdout.write("The sandbox serves these addresses:")
        for name, url in addresses(f"http://{options['host']}:{options['port']}").items():
            self.stdout.write(f"  {name}={url}")
        collect_seldom()  # to go through all people and their days took 0.1 to 0.2 s, and nobody was answered meanwhile
        server.run(sockets=[listening])

    def _config(self, options: dict[str, Any]) -> SandboxConfig:
        for name in ("OURA_CLIENT_ID", "OURA_CLIENT_SECRETS", "WHOOP_CLIENT_ID", "WHOOP_CLIENT_SECRETS"):
            if not getattr(settings, name):
                raise CommandError(
                    f"{name.removesuffix('S')} is not set: the sandbox checks clients and signs with it."
                )
        oura_ms, whoop_ms = options["latency"]
        return SandboxConfig(
            oura=VendorConfig(
                client_id=settings.OURA_CLIENT_ID,
                client_secrets=settings.OURA_CLIENT_SECRETS,
                rate_limit=options["oura_rate_limit"],
                latency_ms=oura_ms,
                access_token_seconds=86_400,
            ),
            whoop=VendorConfig(
                client_id=settings.WHOOP_CLIENT_ID,
                client_secrets=settings.WHOOP_CLIENT_SECRETS,
                rate_limit=options["whoop_rate_limit"],
                latency_ms=whoop_ms,
            ),
            state=options["state"],
            seed=options["seed"],
            days=options["days"],
            bridge_url=options["bridge"],
            people=options["people"],
            trickle_seconds=options["trickle"],
        )


def stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    sys.exit(0)
