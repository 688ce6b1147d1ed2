"""The processes of an engine: found by a mark in their environment, and killed when their owner is gone.

vLLM runs its engine in child processes that outlive a parent killed by SIGKILL, with all of the memory they hold.
Each inherits a mark; a guard, which is this file run as a script, waits for its pipe from the owner to break, and then
kills whatever bears it, grandchildren and engines still loading included. The trade-off: Linux alone, since the
environment of a process is read from /proc.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

MARK = "SDF_ENGINE_OF"

# Seconds for killed processes to be gone: a driver gives tens of gigabytes of GPU memory back in that time.
GONE_WITHIN = 30.0
PAUSE = 0.02

# A process title is written over the environment unless this is set.
KEEP_ENVIRONMENT = "SPT_NOENV"


class Guarded:
    """Processes that are started within `marking` and end with this one, however it ends."""

    def __init__(self) -> None:
        self._mark = f"{MARK}={os.getpid()}-{secrets.token_hex(8)}"
        self._guard = subprocess.Popen(  # noqa: S603  this very file
            [sys.executable, "-I", "-S", __file__, self._mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            # Neither a Ctrl-C at the terminal nor a kill of the owner's group is meant for it.
            start_new_session=True,
        )

    @contextlib.contextmanager
    def marking(self) -> Generator[None]:
        """What this process starts meanwhile bears the mark, if it is executed anew (spawned, not forked)."""
        name, _, value = self._mark.partition("=")
        os.environ.update({name: value, KEEP_ENVIRONMENT: "1"})
        try:
            yield
        finally:
            del os.environ[name]

    def pids(self) -> list[int]:
        return marked(self._mark)

    def kill(self) -> None:
        """SIGKILL, which stopped processes obey too; returns once all are gone."""
        kill(self._mark)

    def close(self) -> None:
        """Kills, and lets the guard go."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()


def marked(mark: str) -> list[int]:
    """The living processes whose environment holds `mark` (NAME=VALUE); zombies have none."""
    wanted = mark.encode()
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        # Gone meanwhile, or another user's.
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def kill(mark: str) -> None:
    deadline = time.monotonic() + GONE_WITHIN
    while (pids := marked(mark)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE)


if __name__ == "__main__":
    # To the end of the pipe: nothing is ever written to it.
    sys.stdin.read()
    kill(sys.argv[1])
