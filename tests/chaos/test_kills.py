"""The driver and its workers are killed, and the same command makes the oracle's bytes of what they left."""

from __future__ import annotations

import random
import signal
import subprocess
from pathlib import Path

import pytest
from runs import Oracle, Process, answers, check_whole, is_complete, make

SIGKILLED = -signal.SIGKILL

# Each label where it is reached in the middle of a run; then at its first arrival, or another.
FAILPOINTS = [
    *("lease taken", "recipe written", "answers written:3", "part written:2", "log written:2", "shard written:4"),
    *("manifest due:2", "manifest written:2", "card written:1"),
]
MORE_FAILPOINTS = [
    *("answers written:1", "answers written:5", "part written:1", "part written:4", "log written:1", "log written:4"),
    *("shard written:1", "shard written:7", "manifest due:1", "manifest due:4", "manifest written:1"),
]


@pytest.mark.parametrize(
    "failpoint", [*FAILPOINTS, *(pytest.param(each, marks=pytest.mark.slow) for each in MORE_FAILPOINTS)]
)
def test_a_kill_at_a_labelled_point(oracle: Oracle, tmp_path: Path, failpoint: str) -> None:
    source, expected, out = oracle.source, oracle.corpus, tmp_path / "out"
    killed = Process(source, out, failpoint)
    assert killed.wait() == SIGKILLED, killed.said
    assert not is_complete(out) or failpoint.startswith(("manifest written", "card written"))
    kept = answers(out)
    resumed = make(source, out)
    assert resumed.finished
    check_whole(out, expected)
    # Nothing that was durable is paid for again.
    assert resumed.n_requests == len(answers(out)) - len(kept)


def test_kills_at_random_moments(oracle: Oracle, tmp_path: Path) -> None:
    check_random_kills(oracle, tmp_path / "out", seed=0, n_kills=3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 7))
def test_many_kills_at_random_moments(oracle: Oracle, tmp_path: Path, seed: int) -> None:
    check_random_kills(oracle, tmp_path / "out", seed, n_kills=12)


def check_random_kills(oracle: Oracle, out: Path, seed: int, n_kills: int) -> None:
    source, expected = oracle.source, oracle.corpus
    moments = random.Random(seed)
    for _ in range(n_kills):
        victim = Process(source, out)
        try:
            # Up to some 4 s: beginnings, flushes and commits all lie within.
            victim.wait(moments.uniform(0.2, 4.0))
        except subprocess.TimeoutExpired:
            victim.kill()
        if is_complete(out):
            break
    make(source, out)
    check_whole(out, expected)
