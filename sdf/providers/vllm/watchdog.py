"""Notices an engine that hangs: requests run, and no token comes for any of them.

vLLM's own health check stays green while its engine process is stopped or stuck in a kernel. Time is counted in the
watchdog's own short sleeps, so that an event loop that was held up elsewhere is not taken for a silent engine.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Generator

# The first token may wait for compilation and for the first prefix of thousands of tokens.
FIRST_FACTOR = 5
# Sleeps in which `patience` is counted.
N_SLEEPS = 20


class Watchdog:
    """`patience`: seconds of silence that mean a hang; FIRST_FACTOR times as long until the first token of all."""

    def __init__(self, patience: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._patience, self._sleep = patience, sleep
        self._n_running = 0
        self._silent = 0.0
        self._has_spoken = False

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        """A request is with the engine. An idle engine may be silent: counting begins anew with the first."""
        if not self._n_running:
            self._silent = 0.0
        self._n_running += 1
        try:
            yield
        finally:
            self._n_running -= 1

    def token(self) -> None:
        self._silent, self._has_spoken = 0.0, True

    async def silence(self) -> str:
        """Returns, with words for it, once the engine hangs."""
        step = self._patience / N_SLEEPS
        while True:
            await self._sleep(step)
            if self._n_running:
                self._silent += step
            limit = self._patience * (1 if self._has_spoken else FIRST_FACTOR)
            if self._n_running and self._silent > limit:
                return f"no token for {limit:g} s while {self._n_running} requests ran"
