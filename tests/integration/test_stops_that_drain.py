"""What fails the driver stops the run, and its workers are drained all the same: all that was paid for is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_api import serving
from support import make_job

from sdf import pipeline, worker
from sdf.crew import InProcess, WorkerLost
from sdf.errors import StorageError
from sdf.grants.spending import Spending
from sdf.ledger import read_ledger
from sdf.pipeline import Run
from sdf.plan import Plan
from sdf.shards import read_manifest
from sdf.storage import RunDir
from sdf.storage.lease import Lease
from sdf.story import terms_of
from sdf.worker import Worker


class Fated:
    """A worker that is killed at its third exchange."""

    def __init__(self, hand: Worker) -> None:
        self._hand, self._n_exchanges = hand, 0

    async def exchange(self, *arguments: Any) -> Any:
        self._n_exchanges += 1
        if self._n_exchanges == 3:
            await self._hand.close()
            raise WorkerLost("its node is gone")
        return await self._hand.exchange(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hand, name)


class Crew(InProcess):
    """Workers in one process, of which the first `n_fated` are lost."""

    n_fated = 0

    async def hire(self, *arguments: Any) -> Any:
        hand = await super().hire(*arguments)
        if self.n_fated == 0:
            return hand
        self.n_fated -= 1
        return Fated(hand)


def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a lost worker flushed cannot be read back."""

    def read(run_dir: RunDir, *, parts: Callable[[str], bool] | None = None) -> Any:
        if parts is not None:
            raise StorageError("a store that is gone for a moment")
        return read_ledger(run_dir)

    monkeypatch.setattr(pipeline, "read_ledger", read)
    monkeypatch.setattr(Crew, "n_fated", 1)


def unwritable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grants cannot be put on record from the twelfth on, for whatever worker asks."""
    asked, allowance = [0], Spending.allowance

    async def failing(spending: Spending, name: str) -> Any:
        asked[0] += 1
        if asked[0] >= 12:
            raise StorageError("a store that is gone for a moment")
        return await allowance(spending, name)

    monkeypatch.setattr(Spending, "allowance", failing)


@pytest.mark.parametrize("fail", [unreadable, unwritable])
def test_a_store_that_fails_the_driver_loses_nothing_that_was_paid_for(
    fail: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "FLUSH_SECONDS", 0.2)
    fail(monkeypatch)
    with serving(lambda asked: "slow:0.3") as server:
        settings = {"base_url": server.url}
        job = make_job(tmp_path, tokens=20_000, provider="openai", model="m", provider_settings=settings, in_flight=8)
        job = replace(job, recipe=job.recipe.changed({"workers": 3, "ray": "local"}))
        run_dir = RunDir(tmp_path / "out")
        lease = Lease.take(run_dir, owner={}, say=print)
        crew = Crew(job, run_dir, lease.epoch)

        async def tell() -> None:
            await Run(job, run_dir, lease, terms_of(job, Plan(job)), crew).tell()

        with pytest.raises(StorageError, match="gone for a moment"):
            asyncio.run(tell())
        n_sent = len(server.asked)
    # Of the one that was killed what was in flight: documents, and rounds beside them.
    n_lost = 16 if fail is unreadable else 0
    assert n_sent - n_lost <= read_ledger(run_dir).n_answers <= n_sent
    assert read_manifest(run_dir) is not None, "what was ready is committed"
