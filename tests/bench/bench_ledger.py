"""How fast a resume reads a ledger, against a plain pyarrow read of the same files in the same run.

    python tests/bench/bench_ledger.py [n_settlements] [n_parts]

Three answers a settlement, each settlement with a 480-byte signature. Ratios carry between machines, seconds do not.
"""

from __future__ import annotations

import itertools
import os
import pickle
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sdf.ledger import (
    AnswerReader,
    LedgerWriter,
    SettlementLog,
    check_ledger,
    read_answers,
    read_ledger,
    read_settlements,
)
from sdf.records import Answer, AnswerEntry, Location, Measures, Settlement, StepAnswer, Usage
from sdf.storage import RunDir

STEPS = ("draft", "rewrite", "score")
TEXT = "The committee met again on Tuesday, and nobody could say why. " * 8


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = act()
    return result, time.perf_counter() - start


def settle_one(writer: LedgerWriter, index: int) -> Location:
    brief, used = os.urandom(16).hex(), []
    for step in STEPS:
        answer = Answer(TEXT[index % 100 :], "stop", "offline-grammar", Usage(3000, 120))
        entry = AnswerEntry(os.urandom(16).hex(), brief, step, "0" * 32, answer)
        used.append(StepAnswer(step, entry.key, writer.append(entry)))
    measures = Measures("o200k_base/1", 1000, "too_short" if index % 20 == 0 else None, os.urandom(480))
    return writer.settle(Settlement(brief, f"genre_{index % 20}", index, None, None, None, tuple(used), measures))


def fill(run_dir: RunDir, n_settlements: int, n_parts: int) -> list[Location]:
    writers = [LedgerWriter(run_dir, 1, f"w{i:02d}") for i in range(16)]
    log = SettlementLog(run_dir, 1)
    locations: list[Location] = []
    for part in range(n_parts):
        writer = writers[part % len(writers)]
        first, last = part * n_settlements // n_parts, (part + 1) * n_settlements // n_parts
        settled = [settle_one(writer, index) for index in range(first, last)]
        writer.flush()
        locations += settled
        if part % 20:  # some are left to the rule of the smallest location
            log.append(settled)
            log.flush()
    return locations


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resume(root: str) -> tuple[float, float, float]:
    """Seconds of read_ledger, and the process's peak memory before and after it; for a process of its own."""
    before = peak_mb()
    _, seconds = timed(lambda: read_ledger(RunDir(root)))
    return seconds, before, peak_mb()


def measure(run_dir: RunDir, locations: list[Location]) -> None:
    sidecars = sorted(Path(run_dir.root).glob("ledger/*/*.sidecar.parquet"))
    _, plain = timed(lambda: [pq.ParquetFile(path).read(use_threads=False).num_rows for path in sidecars])

    def report(what: str, seconds: float, more: str = "") -> None:
        print(f"{what:60} {seconds:7.2f} s {seconds / plain:7.2f}{more}")

    report(f"plain pyarrow read of {len(sidecars)} sidecars", plain)
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        seconds, before, after = fresh.submit(resume, run_dir.root).result()
    report("read_ledger in a fresh process", seconds, f"   peak {before:.0f} MB -> {after:.0f} MB")
    view, seconds = timed(lambda: read_ledger(run_dir))
    assert len(view.receipts) == len(locations) and not view.damaged
    report("read_ledger", seconds)
    keys, seconds = timed(lambda: pickle.dumps(view.keys, protocol=5))
    report(f"pickling {len(view.keys)} keys, {len(keys) / 2**20:.0f} MB", seconds)
    _, seconds = timed(lambda: [view.keys.find(key) for key, _ in itertools.islice(view.keys, 10_000)])
    report("finding 10000 keys", seconds)
    some = random.Random(0).sample(locations, len(locations) // 20)
    settlements, seconds = timed(lambda: read_settlements(run_dir, some))
    report(f"read_settlements, {len(some)} of them all over", seconds)
    used = [settled.answers[0].location for settled in settlements]
    _, seconds = timed(lambda: read_answers(run_dir, used))
    report(f"read_answers, {len(used)} of them all over", seconds)
    ordered = sorted(used)
    reader = AnswerReader(run_dir)
    _, seconds = timed(lambda: [reader.read(location) for location in ordered])
    report(f"AnswerReader, {len(ordered)} of them in order", seconds)
    problems, seconds = timed(lambda: check_ledger(run_dir))
    assert problems == []
    report("check_ledger", seconds)


def main() -> None:
    n_settlements = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    n_parts = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000
    with tempfile.TemporaryDirectory() as directory:
        run_dir = RunDir(directory)
        locations, seconds = timed(lambda: fill(run_dir, n_settlements, n_parts))
        size_mb = sum(size for _, size in run_dir.files("ledger")) / 2**20
        print(f"written: {n_settlements} settlements in {n_parts} parts, {size_mb:.0f} MB, {seconds:.1f} s")
        measure(run_dir, locations)


if __name__ == "__main__":
    main()
