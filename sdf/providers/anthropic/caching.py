"""What the API caches of a prompt: from how many tokens on, for how long, and who of many must ask first."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

# What `cache_ttl` may be, in seconds.
TTLS: Mapping[str, float] = {"5m": 300.0, "1h": 3_600.0}

# Tokens below which a prefix is never cached, by how a model's name begins; the longest match counts.
MINIMA: Mapping[str, int] = {
    "claude-haiku": 4_096,
    "claude-sonnet": 1_024,
    "claude-opus-4": 1_024,
    "claude-opus-5": 512,
    "claude-fable": 512,
}
# For a model that is not listed. A marker too many is free, one too few costs ten times the input.
LEAST_MINIMUM = 512
# English has four or more, Chinese three: three never calls a prefix short that is not.
BYTES_PER_TOKEN = 3

# Seconds that siblings wait for the first of a prefix, should it hang.
LEAD_SECONDS = 30.0
# Leaders in a row that may fail before nobody waits any longer.
N_LEADERS = 3


def minimum_of(model: str) -> int:
    """Tokens below which the model caches no prefix."""
    matches = [start for start in MINIMA if model.startswith(start)]
    return MINIMA[max(matches, key=len)] if matches else LEAST_MINIMUM


class Head(NamedTuple):
    """What two requests must share for one to read what the other wrote to the cache."""

    model: str
    prefix: str
    tools: str | None
    schema: str | None


class Turns:
    """Who goes first: of requests with a head that the cache does not hold, one leads and the others wait for it. When
    it fails the next one leads, or all would write to the cache at once."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._used_at: dict[Head, float] = {}
        self._leading: dict[Head, asyncio.Event] = {}
        # In a row; an endpoint that streams to nobody still answers.
        self._n_failed: Counter[Head] = Counter()

    async def take(self, head: Head) -> bool:
        """Whether the caller leads, and so must call `over` at its end. Returns to others once they may go."""
        clock = asyncio.get_running_loop().time
        until = clock() + LEAD_SECONDS
        while clock() - self._used_at.get(head, float("-inf")) >= self._ttl and self._n_failed[head] < N_LEADERS:
            leading = self._leading.get(head)
            if leading is None:
                self._leading[head] = asyncio.Event()
                return True
            try:
                await asyncio.wait_for(leading.wait(), until - clock())
            except asyncio.TimeoutError:
                return False
        return False

    def begun(self, head: Head) -> None:
        """An answer has begun: the cache holds the head, and every use keeps it there."""
        self._used_at[head] = asyncio.get_running_loop().time()
        self._n_failed.pop(head, None)
        self._release(head)

    def over(self, head: Head) -> None:
        """The leader has ended. Unless its answer had begun, another leads."""
        if head in self._leading:
            self._n_failed[head] += 1
        self._release(head)

    def _release(self, head: Head) -> None:
        leading = self._leading.pop(head, None)
        if leading is not None:
            leading.set()
