"""The garbage collector, told what a process of the bridge is like."""

import gc


def collect_seldom() -> None:
    """Have the collector leave alone what has been imported, and look at new objects by the 50,000.

    A batch of 20,000 samples makes lists and tuples by the hundred thousand, none of them in a circle: looked at by the
    700, Python's default, they take up to a fifth of a worker's time. And while it goes through all that Django has
    imported, the web process answers nobody: at 64 connections the slowest in a hundred took 60 ms, and 17 without.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
