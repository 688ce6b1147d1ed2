"""Real training on the CPU: loss falls on an offline corpus, and a killed job goes on as if nothing had been."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support import make

pytestmark = pytest.mark.train

JOB = Path(__file__).with_name("training_job.py")
ROOT = JOB.parents[2]
STEPS, KILL_AT = 40, 21
PATIENCE = 300.0
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "corpus"
    make("quickstart", out, tokens=100_000, ray="none")
    return out


def start(how: str, corpus: Path, out: Path, n_ranks: int, kill_at: int | None = None) -> list[subprocess.Popen[bytes]]:
    """The job's processes, one for each rank; what they say is in `out`."""
    out.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, str(JOB), how, str(corpus), str(out), *(["--kill-at", str(kill_at)] if kill_at else [])]
    started: list[subprocess.Popen[bytes]] = []
    for rank in range(n_ranks):
        world = {"RANK": str(rank), "WORLD_SIZE": str(n_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        env = os.environ | OFFLINE | (world if n_ranks > 1 else {}) | {"PYTHONPATH": str(ROOT)}
        with (out / f"said-{rank}.txt").open("ab") as said:
            started.append(subprocess.Popen(command, env=env, stdout=said, stderr=said))
    return started


def finish(processes: list[subprocess.Popen[bytes]], out: Path, code: int = 0) -> None:
    try:
        codes = [process.wait(PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [code] * len(processes), (out / "said-0.txt").read_text()[-3000:]


def losses(out: Path, rank: int = 0) -> dict[int, set[str]]:
    """What each step lost, as exact text; more than one where a repeated step did not repeat itself."""
    found: dict[int, set[str]] = {}
    for line in (out / f"losses-{rank}.txt").read_text().splitlines():
        step, loss = line.split()
        found.setdefault(int(step), set()).add(loss)
    return found


def mean(curve: dict[int, set[str]], steps: range) -> float:
    return sum(float.fromhex(next(iter(curve[step]))) for step in steps) / len(steps)


@pytest.mark.parametrize(("how", "n_ranks"), [("trl", 1), ("ddp", 2)])
def test_a_killed_job_goes_on_bit_for_bit(how: str, n_ranks: int, corpus: Path, tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    both = start(how, corpus, undisturbed, n_ranks), start(how, corpus, killed, n_ranks, KILL_AT)
    finish(both[1], killed, -signal.SIGKILL)
    assert max(losses(killed)) == KILL_AT
    finish(start(how, corpus, killed, n_ranks), killed)
    finish(both[0], undisturbed)
    for rank in range(n_ranks):
        curve = losses(undisturbed, rank)
        assert sorted(curve) == list(range(1, STEPS + 1))
        assert losses(killed, rank) == curve
        # A byte at random costs 5.55; the letters' frequencies alone bring it to about 3.
        assert mean(curve, range(1, 4)) > 5
        assert mean(curve, range(STEPS - 5, STEPS + 1)) < 3.2
