"""The main job on two workers and two cores, offline: tokens a second, CPU by process and by stage, peak memory.

    python tests/bench/bench_end_to_end.py [--tokens 20M] [--repeat 1]

The run happens in a process of its own, pinned to two cores; `/proc` is read beside it. Then documents from all over
its ledger go through each stage alone, in this process: CPU-seconds per million accepted tokens, and as a ratio to
bare tiktoken on the same texts, which carries between machines. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from sdf import api, driver, providers, tokens
from sdf.assemble import Cut
from sdf.checks import Subject, reject_reason
from sdf.columns import Draft, emit
from sdf.dedup import signatures
from sdf.directory import job_of
from sdf.documents import checked_text, checks_of
from sdf.generate import settle_brief, settle_round
from sdf.job import Job
from sdf.ledger import LedgerView, LedgerWriter, read_answers, read_ledger, read_settlements
from sdf.plan import Plan
from sdf.prompts import Composer
from sdf.reading import Reader
from sdf.recipe import size
from sdf.records import Answer, AnswerEntry, Location, Receipt, Request, RoundReceipt, Settlement
from sdf.reuse.replay import fold_ledger
from sdf.storage import RunDir
from sdf.story import terms_of
from sdf.worker import FLUSH_BYTES

RECIPE, N_WORKERS = "quickstart", 2
SAMPLE_TOKENS = 1_000_000
PAUSE = 0.2
TICKS = os.sysconf("SC_CLK_TCK")
# What a process is, by the titles it was seen under.
ROLES = (("driver", "bench_end_to_end"), ("worker", "_Actor"), ("shard tasks", "_write"), ("shard tasks", "_compare"))


@dataclass
class Watched:
    """One process as it was last seen: CPU-seconds, the most memory it ever held, and every title it had."""

    cpu: float = 0.0
    peak_mb: float = 0.0
    titles: set[str] = field(default_factory=set)

    @property
    def role(self) -> str:
        return next((role for role, mark in ROLES if any(mark in title for title in self.titles)), "Ray itself")


def work(out: str, target: int) -> None:
    """The run, in the child: one JSON line when it is done."""
    start = time.perf_counter()
    driver.connect("local", N_WORKERS)
    connected = time.perf_counter()
    outcome = api.run(RECIPE, out, tokens=target, workers=N_WORKERS, ray="local", provider="offline")
    end = time.perf_counter()
    assert outcome.finished and outcome.manifest is not None
    print(json.dumps({"n_tokens": outcome.manifest.n_tokens, "whole": end - start, "run": end - connected}), flush=True)


def watch(root: int, seen: dict[int, Watched]) -> None:
    """Updates `seen` with `root` and all that descends from it."""
    parents: dict[int, int] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                stat = (path / "stat").read_text().rpartition(")")[2].split()
                parents[int(path.name)] = int(stat[1])
                if int(path.name) == root or int(stat[1]) in seen or int(path.name) in seen:
                    _note(seen.setdefault(int(path.name), Watched()), path, stat)
            except (OSError, IndexError):
                continue  # It ended while it was read.


def _note(watched: Watched, path: Path, stat: Sequence[str]) -> None:
    watched.cpu = (int(stat[11]) + int(stat[12])) / TICKS
    watched.titles.add((path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    for line in (path / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            watched.peak_mb = int(line.split()[1]) / 1024


def run_once(out: str, target: int) -> tuple[dict[str, Any], dict[int, Watched]]:
    cores = sorted(os.sched_getaffinity(0))[:N_WORKERS]
    command = [sys.executable, __file__, "--child", out, "--tokens", str(target)]
    seen: dict[int, Watched] = {}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    ) as child:
        while child.poll() is None:
            watch(child.pid, seen)
            time.sleep(PAUSE)
        assert child.stdout is not None and child.returncode == 0
        return json.loads(child.stdout.read().splitlines()[-1]), seen


def report_run(runs: Sequence[tuple[dict[str, Any], dict[int, Watched]]]) -> None:
    n_tokens = runs[0][0]["n_tokens"]
    rates = [[found["n_tokens"] / found[name] for found, _ in runs] for name in ("whole", "run")]
    print(f"{n_tokens:,} accepted tokens, {N_WORKERS} workers, {N_WORKERS} cores, median of {len(runs)}")
    print(f"  end to end                {median(rates[0]):10,.0f} tokens/s")
    print(f"  without Ray's start       {median(rates[1]):10,.0f} tokens/s")
    for role in dict.fromkeys([role for role, _ in ROLES] + ["Ray itself"]):
        per_run = [[each for each in seen.values() if each.role == role] for _, seen in runs]
        cpu = median(sum(each.cpu for each in found) for found in per_run) / n_tokens * 1e6
        peak = median(max((each.peak_mb for each in found), default=0.0) for found in per_run)
        print(f"  {role:20} {len(per_run[0]):3} x  {cpu:6.3f} CPU-s/M tokens   peak {peak:5.0f} MB each")


@dataclass(frozen=True)
class Sample:
    """Settled briefs and rounds from all over a ledger, with what every stage needs of them."""

    job: Job
    n_tokens: int
    receipts: list[Receipt]
    rounds: list[RoundReceipt]
    settlements: list[Settlement]
    entries: list[list[AnswerEntry]]


def sampled(job: Job, run_dir: RunDir, view: LedgerView) -> Sample:
    """Every k-th settlement, and every k-th round with it."""
    good = sorted((each for each in view.receipts if each.reason is None), key=lambda each: (each.index, each.genre))
    every = max(1, sum(each.n_tokens for each in good) // SAMPLE_TOKENS)
    receipts = good[::every]
    settled = read_settlements(run_dir, [each.location for each in receipts])
    settlements = [each for each in settled if isinstance(each, Settlement)]
    answers = iter(read_answers(run_dir, [used.location for each in settlements for used in each.answers]))
    entries = [[next(answers) for _ in each.answers] for each in settlements]
    rounds = sorted(view.rounds, key=lambda each: (each.key.number, each.key))[::every]
    return Sample(job, sum(each.n_tokens for each in receipts), receipts, rounds, settlements, entries)


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = act()
    return result, time.process_time() - start


class Shop:
    """Answers from the provider, with the CPU-seconds it took."""

    def __init__(self, job: Job) -> None:
        self._provider = providers.make(job.recipe.provider, {})
        self.seconds = 0.0

    async def ask(self, request: Request, key: str, unit: str, step: str) -> tuple[Answer, Location]:
        start = time.process_time()
        answer = await self._provider.answer(request)
        self.seconds += time.process_time() - start
        return answer, Location("", 0)


async def generate(sample: Sample, view: LedgerView, shop: Shop) -> list[Draft]:
    """The drafts of the briefs. Rounds are asked too, each with the angles taken before it."""
    job = sample.job
    plan, composer = Plan(job), Composer(job)
    principles = {principle.id: principle for principle in job.constitution.principles}
    angles = {each.key: each.angles for each in view.rounds}
    for each in sample.rounds:
        earlier = (angles.get(each.key._replace(number=number), ()) for number in range(each.key.number))
        taken = [angle for found in earlier for angle in found if angle]
        genre = plan.genres[each.key.genre]
        await settle_round(composer, shop.ask, genre, each.key, principles[each.key.principle], taken)
    drafts = []
    for receipt, settled in zip(sample.receipts, sample.settlements, strict=True):
        brief = plan.brief(receipt.genre, receipt.index)
        _, draft = await settle_brief(composer, shop.ask, plan.genres[receipt.genre], brief, settled.angle)
        assert draft is not None
        drafts.append(draft)
    return drafts


def write_ledger(run_dir: RunDir, sample: Sample) -> None:
    writer = LedgerWriter(run_dir, 1, "bench")
    for settled, entries in zip(sample.settlements, sample.entries, strict=True):
        places = [writer.append(entry) for entry in entries]
        used = tuple(each._replace(location=at) for each, at in zip(settled.answers, places, strict=True))
        writer.settle(replace(settled, answers=used))
        if writer.pending_bytes >= FLUSH_BYTES:
            writer.flush()
    writer.flush()


def stages(sample: Sample, view: LedgerView, run_dir: RunDir) -> Iterator[tuple[str, float]]:
    """(stage, CPU-seconds for the sample); the reference comes first."""
    job = sample.job
    known = {genre.key: genre for genre in job.genres}
    genres = [known[each.genre] for each in sample.receipts]
    # Templates and grammar are compiled once per process, which a worker's whole life pays for.
    some = replace(sample, receipts=sample.receipts[:40], settlements=sample.settlements[:40], rounds=sample.rounds[:2])
    asyncio.run(generate(some, view, Shop(job)))
    shop = Shop(job)
    drafts, generation = timed(lambda: asyncio.run(generate(sample, view, shop)))
    columns = [emit(job, genre, each) for genre, each in zip(genres, drafts, strict=True)]
    texts = [each["text"] for each in columns]
    tokenizer = tokens.load(job.recipe.tokenizer)
    yield "bare tiktoken (reference)", timed(lambda: [len(tokenizer._encoding.encode_ordinary(t)) for t in texts])[1]
    yield "generation: prompts", generation - shop.seconds
    yield "generation: provider", shop.seconds
    rules = {genre.key: checks_of(job, genre) for genre in job.genres}
    subjects = [Subject(checked_text(genre, each), language="en") for genre, each in zip(genres, columns, strict=True)]
    yield (
        "checking",
        timed(lambda: [reject_reason(each, rules[g.key]) for g, each in zip(genres, subjects, strict=True)])[1],
    )
    yield "counting", timed(lambda: tokenizer.count(texts))[1]
    yield "signing", timed(lambda: signatures(texts))[1]
    with tempfile.TemporaryDirectory() as scratch:
        ledger = RunDir(scratch)
        ledger.check_usable()
        yield "writing the ledger", timed(lambda: write_ledger(ledger, sample))[1]
        cut = Cut("documents", "train", 0, tuple(read_ledger(ledger).receipts))
        reader = Reader(job, ledger)
        yield "writing shards (task)", timed(lambda: reader.write(ledger, cut))[1]
    story, folding = timed(lambda: fold_ledger(job, terms_of(job, Plan(job)), Reader(job, run_dir), view))
    yield "folding (driver)", folding * sample.n_tokens / story.fold.n_tokens


def report_stages(root: str) -> None:
    run_dir = RunDir(root)
    job, view = job_of(run_dir), read_ledger(run_dir)
    sample = sampled(job, run_dir, view)
    print(f"each stage alone, {len(sample.receipts)} documents and {len(sample.rounds)} angle rounds from all over")
    reference = 0.0
    for stage, seconds in stages(sample, view, run_dir):
        reference = reference or seconds
        print(f"  {stage:26} {seconds / sample.n_tokens * 1e6:6.3f} CPU-s/M tokens   {seconds / reference:5.2f}")


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--tokens", type=size, default=size("20M"), help="accepted tokens to reach")
    flags.add_argument("--repeat", type=int, default=1, help="runs to take the median of")
    flags.add_argument("--child", help=argparse.SUPPRESS)
    flags.add_argument("--of", help="a corpus that is there already: its stages alone")
    given = flags.parse_args()
    if given.child:
        work(given.child, given.tokens)
    elif given.of:
        report_stages(given.of)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            runs = [run_once(f"{scratch}/{n}", given.tokens) for n in range(given.repeat)]
            report_run(runs)
            report_stages(f"{scratch}/0")


if __name__ == "__main__":
    main()
