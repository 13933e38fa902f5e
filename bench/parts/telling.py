"""How a part tells what it has seen to whoever started it."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path


def add_into(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--into", type=Path, metavar="FILE", help="write the figures there, as JSON")


def tell(into: Path | None, figures: Mapping[str, Sequence[float]]) -> None:
    if into:
        into.write_text(json.dumps(dict(figures)))
