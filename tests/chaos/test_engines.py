"""Engines that hang, engines that die, and workers that die over them: the run goes on, and nothing is left behind."""

from __future__ import annotations

import gc
import os
import signal
from collections import Counter
from pathlib import Path

import engines
import pytest
from runs import Process, answers, is_complete, rows_of

from sdf import api

pytestmark = pytest.mark.vllm

# Seconds in which the processes of a dead worker must be gone.
GONE = 20.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_model import make

    return make(tmp_path_factory.mktemp("model"), often=engines.TAGS)


class Disturbed:
    """A run on Ray, and the engine that writes in it at the moment."""

    def __init__(self, source: str, out: Path) -> None:
        self.process, self.out = Process(source, out), out
        self.gone: set[int] = set()

    def owner(self) -> int:
        """The worker that has an engine and has flushed something of it since the last one went."""
        n_parts = self._n_parts()
        self.process.until(lambda: self._owners() and self._n_parts() > n_parts)
        (owner,) = self._owners()
        return owner

    def lost(self, owner: int, pids: list[int]) -> None:
        """The worker goes, and all that it had with it."""
        engines.until(lambda: not any(engines.is_alive(pid) for pid in [owner, *pids]), GONE)
        self.gone.add(owner)

    def pids(self, owner: int) -> list[int]:
        return engines.engine_processes(self.process.pid)[owner]

    def core(self, owner: int) -> int:
        found = engines.core_of(self.pids(owner))
        assert found is not None
        return found

    def _owners(self) -> set[int]:
        return engines.engine_processes(self.process.pid).keys() - self.gone

    def _n_parts(self) -> int:
        return len(list(self.out.glob("ledger/*/*.sidecar.parquet")))


def test_a_run_outlives_its_engines(model: Path, tmp_path: Path) -> None:
    """One worker is killed, then an engine is killed, then one is stopped for good; the fourth finishes."""
    # Far more than one engine writes until it is found and struck.
    fields = engines.own_engine(model, stall_timeout="5")
    source = engines.recipe(
        tmp_path, {"memo": engines.MEMO}, **fields, ray="local", workers=1, in_flight=2, tokens=4_000
    )
    run = Disturbed(source, tmp_path / "out")
    try:
        owner = run.owner()
        pids = run.pids(owner)
        os.kill(owner, signal.SIGKILL)
        run.lost(owner, pids)
        for number in (signal.SIGKILL, signal.SIGSTOP):
            owner = run.owner()
            pids = run.pids(owner)
            os.kill(run.core(owner), number)
            run.lost(owner, pids)
        assert run.process.wait(engines.PATIENCE) == 0, run.process.said
    finally:
        run.process.kill()
    assert run.process.said.count("is lost") == 3, run.process.said
    assert "no token for 5 s" in run.process.said
    assert is_complete(tmp_path / "out")
    assert api.verify(tmp_path / "out", replay=True).problems == ()
    settled = rows_of(tmp_path / "out", "settlement")
    assert not [row for row in settled if row["reason"] == "failed"]
    assert set(Counter(row["id"] for row in settled).values()) == {1}


# vLLM's imports warn of their own.
@pytest.mark.filterwarnings("ignore")
def test_a_run_of_one_process_stops_when_its_engine_dies(model: Path, tmp_path: Path) -> None:
    """Nobody replaces the worker: it ends with an error, everything is kept, and the same command goes on.

    On the way every form of an answer: rounds of angles, lists, scores, completion and tools.
    """
    fields = engines.own_engine(model)
    source = engines.recipe(tmp_path, {"forms": engines.FORMS}, **fields, in_flight=4, tokens=1_000)
    run = Disturbed(source, tmp_path / "out")
    try:
        owner = run.owner()
        pids = run.pids(owner)
        os.kill(run.core(owner), signal.SIGKILL)
        assert run.process.wait(engines.PATIENCE) == 1, run.process.said
    finally:
        run.process.kill()
    assert "died (its process has ended); every answer so far is kept" in run.process.said
    run.lost(owner, pids)
    answered = answers(tmp_path / "out")
    assert answered
    assert api.run(source, tmp_path / "out").finished
    gc.collect()
    settled = rows_of(tmp_path / "out", "settlement")
    assert not [row for row in settled if row["reason"] == "failed" or (row["reason"] or "").startswith("unparsable l")]
    assert set(Counter(row["id"] for row in settled).values()) == {1}
    # Nothing durable was asked again.
    assert set(answers(tmp_path / "out").values()) == {1}
    assert api.verify(tmp_path / "out", replay=True).problems == ()
