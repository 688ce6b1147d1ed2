"""A notebook always runs a loop; the API must work there as in a script."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sdf.errors import SdfError
from sdf.eventloop import COLLECT_EVERY, run_to_end


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def fail() -> None:
    raise SdfError("as it was raised")


async def notebook() -> int:
    with pytest.raises(SdfError, match="as it was raised"):
        run_to_end(fail())
    return run_to_end(double(21))


def test_from_a_script() -> None:
    assert run_to_end(double(21)) == 42


def test_beside_a_running_loop() -> None:
    assert asyncio.run(notebook()) == 42


def test_collections_are_rare_while_it_runs_and_as_before_afterwards() -> None:
    async def threshold() -> int:
        return gc.get_threshold()[0]

    before = gc.get_threshold()
    assert run_to_end(threshold()) == COLLECT_EVERY > before[0]
    assert gc.get_threshold() == before
    gc.set_threshold(0)
    try:
        assert run_to_end(threshold()) == 0, "a caller who collects by hand is left to it"
    finally:
        gc.set_threshold(*before)


def test_of_two_runs_in_one_process_the_last_restores_what_was_before() -> None:
    before, first_ends, second_begun = gc.get_threshold(), threading.Event(), threading.Event()

    async def second() -> int:
        second_begun.set()
        await asyncio.to_thread(first_ends.wait)
        return gc.get_threshold()[0]

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run_to_end, asyncio.to_thread(second_begun.wait))
        other = pool.submit(run_to_end, second())
        first.result()
        first_ends.set()
        assert other.result() == COLLECT_EVERY
    assert gc.get_threshold() == before
