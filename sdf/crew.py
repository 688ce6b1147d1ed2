"""Who carries a story out: workers that answer orders, and tasks that read texts. Here one of each, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

from sdf.assemble import Cut, Pair
from sdf.job import Job
from sdf.manifest import Shard
from sdf.money.allowance import Account, Allowance
from sdf.orders import Answered, Batch, Order
from sdf.preflight import Finding, preflight
from sdf.reading import Reader
from sdf.storage import RunDir
from sdf.worker import Worker


class WorkerLost(Exception):  # noqa: N818  an event that the story goes on from
    """A worker died or cannot be reached; what it flushed is in the ledger."""


class Hand(Protocol):
    """A worker as the story sees it; `exchange` raises WorkerLost."""

    async def exchange(self, orders: Sequence[Order], acked: int, allowance: Allowance) -> Batch: ...

    async def adopt(self, answered: Sequence[Answered]) -> None: ...

    async def drain(self) -> None: ...

    async def close(self) -> Account: ...


class Crew(Protocol):
    """Who carries the story out: workers, and tasks that read texts."""

    async def preflight(self) -> list[Finding]: ...

    async def hire(self, name: str, answered: Sequence[Answered]) -> Hand: ...

    async def write(self, cut: Cut) -> Shard: ...

    async def compare(self, pairs: Sequence[Pair]) -> dict[Pair, float]: ...


class InProcess:
    """A crew of one: the oracle."""

    def __init__(self, job: Job, run_dir: RunDir, epoch: int) -> None:
        self._job, self._run_dir, self._epoch = job, run_dir, epoch

    @cached_property
    def _reader(self) -> Reader:
        """Made when a text is first read, in a thread: a preflight is of jobs too whose rows are not made yet."""
        return Reader(self._job, self._run_dir)

    async def preflight(self) -> list[Finding]:
        return await preflight(self._job)

    async def hire(self, name: str, answered: Sequence[Answered]) -> Worker:
        return Worker(self._job, self._run_dir, self._epoch, name, answered)

    async def write(self, cut: Cut) -> Shard:
        return await asyncio.to_thread(lambda: self._reader.write(self._run_dir, cut))

    async def compare(self, pairs: Sequence[Pair]) -> dict[Pair, float]:
        return await asyncio.to_thread(lambda: self._reader.compare(pairs))
