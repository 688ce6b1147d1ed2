"""A notebook always runs a loop; the API must work there as in a script."""

from __future__ import annotations

import asyncio

import pytest

from sdf.errors import SdfError
from sdf.eventloop import run_to_end


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
