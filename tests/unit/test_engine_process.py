"""Processes that bear a mark: they end with their owner, however it ends, and nothing else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sdf.providers.vllm.process import Guarded, marked

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="Linux alone tells environments")

ROOT = Path(__file__).resolve().parent.parent.parent

# A child with a child of its own, both asleep; one of them stopped, as a hung engine is.
FAMILY = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
OWNER = f"""
import subprocess, sys, time
from sdf.providers.vllm.process import Guarded
guarded = Guarded()
with guarded.marking():
    subprocess.Popen([sys.executable, "-c", {FAMILY!r}])
while len(guarded.pids()) < 2:
    time.sleep(0.02)
print(guarded._mark, flush=True)
time.sleep(600)
"""


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_they_end_with_their_owner(number: int) -> None:
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as owner:
        assert owner.stdout is not None
        mark = owner.stdout.readline().strip()
        pids = marked(mark)
        assert len(pids) == 2
        os.kill(pids[1], signal.SIGSTOP)
        owner.send_signal(number)
    until(lambda: not marked(mark))


def test_killing_spares_what_bears_no_mark() -> None:
    guarded = Guarded()
    try:
        with guarded.marking():
            ours = subprocess.Popen([sys.executable, "-c", FAMILY])
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        until(lambda: len(guarded.pids()) == 2)
        assert other.pid not in guarded.pids()
        guarded.kill()
        assert ours.wait(30) == -signal.SIGKILL
        assert guarded.pids() == []
        assert other.poll() is None
        other.kill()
        other.wait()
    finally:
        guarded.close()


def test_closing_kills_and_lets_the_guard_go() -> None:
    guarded = Guarded()
    with guarded.marking():
        ours = subprocess.Popen([sys.executable, "-c", FAMILY])
    until(lambda: len(guarded.pids()) == 2)
    guarded.close()
    assert ours.wait(30) == -signal.SIGKILL
    assert guarded._guard.poll() == 0
