"""Running a coroutine to its end from anywhere: a script, where no loop runs, or a notebook, where one always does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_to_end(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The coroutine's result, or its error. Blocks; beside a running loop it gets a loop and a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1, "sdf") as pool:
        return pool.submit(asyncio.run, coroutine).result()
