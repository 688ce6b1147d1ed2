"""Labelled points at which a test kills the process: `SDF_FAILPOINT=label:n` is SIGKILL at the n-th arrival.

Crash safety is a promise, so it is tested where it could break. Unset, a point costs one dictionary look-up.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

_arrivals: Counter[str] = Counter()


def reach(label: str) -> None:
    """Dies here when the environment asks for it."""
    wanted = os.environ.get("SDF_FAILPOINT")
    if wanted is None:
        return
    name, _, number = wanted.partition(":")
    if name == label:
        _arrivals[label] += 1
        if _arrivals[label] == int(number or 1):
            os.kill(os.getpid(), signal.SIGKILL)
