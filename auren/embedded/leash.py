"""Start a program that dies with the process that started it, as another user if told so.

    python leash.py <parent pid> <signal> <uid:gid or -> <program> [argument ...]

A program of its own and not a `preexec_fn`, for two reasons: the kernel forgets the wish (PR_SET_PDEATHSIG) when the
user changes, so it must come after, and Python code between fork and exec is not safe beside threads. It imports
nothing of ours, so that it also runs for a user who may not read this checkout. Linux only; elsewhere it just starts
the program.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, signum: int = signal.SIGKILL) -> None:
    """Have the kernel send this process `signum` when the thread that forked it ends; exit if that is over already."""
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit(0)


def become(user: str) -> None:
    """Drop to `uid:gid` without any other group. `-` stays who we are."""
    if user == "-":
        return
    uid, _, gid = user.partition(":")
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))


def main(parent: str, signum: str, user: str, *program: str) -> None:
    become(user)
    die_with_parent(int(parent), int(signum))
    os.execv(program[0], program)  # noqa: S606 - starting a program is what this is for


if __name__ == "__main__":
    main(*sys.argv[1:])
