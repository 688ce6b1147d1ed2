"""A silent engine is noticed; an idle one, a slow first token and a loop that was held up are not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from sdf.providers.vllm.watchdog import FIRST_FACTOR, N_SLEEPS, Watchdog


class Naps:
    """Sleeps that pass at once; before the nth, what stands there happens. Ends after the last."""

    def __init__(self, events: dict[int, Callable[[], object]], n_most: int) -> None:
        self._events, self._n_most = events, n_most
        self.n = 0
        self.seconds = 0.0

    async def __call__(self, seconds: float) -> None:
        self.n += 1
        self.seconds += seconds
        if self.n > self._n_most:
            raise asyncio.CancelledError
        self._events.get(self.n, lambda: None)()


def watched(
    events: Callable[[Watchdog], dict[int, Callable[[], object]]], n_most: int = 1_000
) -> tuple[str | None, Naps]:
    """What the watchdog says of an engine to which `events` happen, at 20 naps for its 10 seconds of patience."""
    naps = Naps({}, n_most)
    dog = Watchdog(10.0, naps)
    naps._events = events(dog)

    async def silence() -> str | None:
        try:
            return await dog.silence()
        except asyncio.CancelledError:
            return None

    return asyncio.run(silence()), naps


def test_silence_after_a_token() -> None:
    said, naps = watched(lambda dog: {1: dog.running().__enter__, 3: dog.token})
    assert said == "no token for 10 s while 1 requests ran"
    assert naps.n == 3 + N_SLEEPS


def test_the_first_token_may_take_longer() -> None:
    said, naps = watched(lambda dog: {1: dog.running().__enter__})
    assert said is not None
    assert naps.n == pytest.approx(N_SLEEPS * FIRST_FACTOR, abs=2)


def test_tokens_keep_it_quiet() -> None:
    def events(dog: Watchdog) -> dict[int, Callable[[], object]]:
        return {1: dog.running().__enter__, **dict.fromkeys(range(2, 1_000, N_SLEEPS - 1), dog.token)}

    said, _ = watched(events)
    assert said is None


def test_an_idle_engine_may_be_silent_and_counting_begins_anew() -> None:
    def events(dog: Watchdog) -> dict[int, Callable[[], object]]:
        first, second = dog.running(), dog.running()
        return {
            1: first.__enter__,
            2: dog.token,
            15: lambda: first.__exit__(None, None, None),
            500: second.__enter__,
        }

    said, naps = watched(events)
    assert said is not None
    assert naps.n == pytest.approx(500 + N_SLEEPS, abs=2)
