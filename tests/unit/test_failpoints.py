"""Labelled points kill the process when, and only when, they are asked to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from sdf.failpoints import reach

SCRIPT = """
from sdf.failpoints import reach
for number in range(1, 4):
    reach("other")
    reach("here")
    print(number, flush=True)
"""


def killed(wanted: str) -> tuple[int, str]:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**os.environ, "SDF_FAILPOINT": wanted}, capture_output=True, text=True
    )
    return run.returncode, run.stdout


@pytest.mark.parametrize(("wanted", "printed"), [("here", ""), ("here:1", ""), ("here:3", "1\n2\n")])
def test_the_process_dies_at_the_arrival_that_was_named(wanted: str, printed: str) -> None:
    assert killed(wanted) == (-signal.SIGKILL, printed)


@pytest.mark.parametrize("wanted", ["here:4", "elsewhere", "her", ""])
def test_other_labels_and_later_arrivals_pass(wanted: str) -> None:
    assert killed(wanted) == (0, "1\n2\n3\n")


def test_nothing_happens_unless_the_environment_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDF_FAILPOINT", raising=False)
    reach("here")
