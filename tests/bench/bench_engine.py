"""Share of the raw engine's tokens a second that a full run reaches: plan, prompts, ledger, checks, fold and shards
beside it, on the same prompts, with the same number in flight.

    python tests/bench/bench_engine.py [--tokens 60000] [--in-flight 32] [--repeat 3]

One process, one real vLLM engine on the CPU, a tiny model of random weights. Each round makes a corpus of genres of
several steps, then sends the very requests of that run (token ids and sampling) to the engine bare, as many at once as
the run had; the prefix cache is emptied before each. The first and last tenth of the answers are left out of both.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import engines
import tiny_model

from sdf import api, providers
from sdf.providers.pace import SILENT
from sdf.providers.served import Served
from sdf.providers.vllm.engine import Engine
from sdf.providers.vllm.provider import Vllm
from sdf.records import Answer, Request

# Of angles by round, two texts and a score: four steps a document.
ESSAY = """\
---
key: essay
kind: document
about: An essay in four steps.
n_words: [10, 300]
dedup: body
redraws: 2
axes:
  mood: [calm, hurried, cross]
steps:
  angle: {per: round, role: angle, context: principle, returns: list, tag: angles, n_items: 16, max_tokens: 1500}
  draft: {role: write, context: full, returns: text, max_tokens: 1200}
  polish: {role: rewrite, context: full, returns: text, max_tokens: 1200}
  verdict: {role: judge, context: principle, returns: score, tag: score, lowest: 1, highest: 5, max_tokens: 300}
emit: {text: polish}
---
## step: angle
{{ n_items }} ideas about {{ principle.title }}, numbered, between <angles> and </angles>.

## step: draft
A {{ brief.axes.mood }} essay on {{ angle }}.

## step: polish
{{ draft }}
Write it anew.

## step: verdict
{{ polish }} From 1 to 5, between <score> and </score>.
"""
# One step, as raw as a document can be.
LETTER = """\
---
key: letter
kind: document
about: A letter in one step.
n_words: [10, 300]
dedup: body
redraws: 2
axes:
  mood: [calm, hurried, cross]
steps:
  body: {role: write, context: full, returns: text, max_tokens: 1200}
emit: {text: body}
---
## step: body
A {{ brief.axes.mood }} letter on {{ principle.title }}.
"""
GENRES = {"essay": ESSAY, "letter": LETTER}
# Some 200 tokens a document: enough documents for a run to be in its stride most of the time.
TOKENS = 60_000


@dataclass
class Watched:
    """What went through the engine of a run: requests as they were sent, tokens that came back, and when."""

    sent: list[tuple[Any, Any]] = field(default_factory=list)
    answers: list[tuple[float, int]] = field(default_factory=list)

    def answered(self, n_tokens: int) -> None:
        self.answers.append((time.perf_counter(), n_tokens))

    @property
    def n_tokens(self) -> int:
        return sum(n_tokens for _, n_tokens in self.answers)

    @property
    def rate(self) -> float:
        """Between the first tenth and the last of the answers, where as many are in flight as may be."""
        cut = len(self.answers) // 10
        middle = self.answers[cut:-cut]
        return sum(n_tokens for _, n_tokens in middle[1:]) / (middle[-1][0] - middle[0][0])


class Shared:
    """The provider of every run of this bench: one engine for all, since loading it takes half a minute."""

    vllm: Vllm
    watched = Watched()
    told = SILENT

    def __init__(self, settings: Mapping[str, str]) -> None:
        """Settings are those of the shared engine."""

    async def served(self, model: str) -> Served:
        return Served(model, "the bench")

    async def answer(self, request: Request) -> Answer:
        watched = Shared.watched
        answer = await Shared.vllm.answer(request)
        watched.answered(answer.usage.output_tokens)
        return answer

    async def close(self) -> None:
        """The engine stays."""


def record(engine: Engine) -> None:
    """Keeps what the engine is sent, as it is sent."""
    outcome = engine._outcome

    async def recorded(prompt: Any, params: Any) -> Any:
        Shared.watched.sent.append((prompt, params))
        return await outcome(prompt, params)

    engine._outcome = recorded  # type: ignore[method-assign]


async def raw(engine: Engine, sent: list[tuple[Any, Any]], in_flight: int) -> float:
    """Tokens a second of the engine alone."""
    slots, watched, started = asyncio.Semaphore(in_flight), Watched(), time.perf_counter()

    async def ask(number: int, prompt: Any, params: Any) -> None:
        async with slots:
            async for output in engine._llm.generate(prompt, params, f"raw-{started}-{number}"):
                watched.answered(len(output.outputs[0].token_ids))

    await asyncio.gather(*(ask(number, *each) for number, each in enumerate(sent)))
    return watched.rate


class Compared(NamedTuple):
    """Tokens a second, and CPU-seconds of this process per million tokens, of the run and of the engine alone."""

    run: float
    raw: float
    run_cpu: float
    raw_cpu: float


async def compare(folder: Path, model: Path, tokens: int, in_flight: int, name: str) -> Compared:
    engine = await Shared.vllm._ready(str(model))
    source = engines.recipe(
        folder / name, GENRES, provider="vllm", model=str(model), tokens=tokens, in_flight=in_flight
    )
    await engine._llm.reset_prefix_cache()
    Shared.watched = watched = Watched()
    before = _cpu()
    # The story's own loop would be another than the engine's.
    await _told(source, folder / name / "out")
    between = _cpu()
    await engine._llm.reset_prefix_cache()
    alone = await raw(engine, watched.sent, in_flight)
    millions = watched.n_tokens / 1e6
    return Compared(watched.rate, alone, (between - before) / millions, (_cpu() - between) / millions)


async def _told(source: str, out: Path) -> None:
    """`api.run` in this event loop."""
    from sdf.crew import InProcess
    from sdf.directory import occupy
    from sdf.job import compile_job
    from sdf.pipeline import Run
    from sdf.plan import Plan
    from sdf.recipe import load
    from sdf.storage import RunDir
    from sdf.storage.lease import Lease
    from sdf.story import terms_of

    job, run_dir = compile_job(load(source, {})), RunDir(out)
    run_dir.check_usable()
    lease = Lease.take(run_dir, owner={"bench": "engine"}, say=lambda _: None)
    occupy(run_dir, job, lambda: "")
    await Run(job, run_dir, lease, terms_of(job, Plan(job)), InProcess(job, run_dir, lease.epoch)).tell()
    lease.release()
    assert api.status(out) is not None


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def main(tokens: int, in_flights: list[int], repeat: int) -> None:
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = tiny_model.make(folder / "model", n_tokens=100, often=("<angles>", "<score>"))
        Shared.vllm = Vllm(engines.ARGUMENTS | {"engine.kv_cache_memory_bytes": str(1 << 30)})
        record(await Shared.vllm._ready(str(model)))
        providers.PROVIDERS = {**providers.PROVIDERS, "vllm": f"{__name__}:Shared"}
        print(f"{'in flight':>10}{'run, tokens/s':>16}{'raw, tokens/s':>16}{'share':>8}{'CPU-s/M':>10}{'raw':>8}")
        for in_flight in in_flights:
            shares = []
            # The first round warms the engine up.
            for number in range(repeat + 1):
                found = await compare(folder, model, tokens, in_flight, f"{in_flight}-{number}")
                if number:
                    shares.append(found.run / found.raw)
                    rates = f"{found.run:>16,.0f}{found.raw:>16,.0f}{shares[-1]:>8.2f}"
                    print(f"{in_flight:>10}{rates}{found.run_cpu:>10.1f}{found.raw_cpu:>8.1f}", flush=True)
            print(f"{in_flight:>10}{'median':>32}{statistics.median(shares):>8.2f}")
        await Shared.vllm.close()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tokens", type=int, default=TOKENS)
    arguments.add_argument("--in-flight", default="32")
    arguments.add_argument("--repeat", type=int, default=3)
    given = arguments.parse_args()
    asyncio.run(main(given.tokens, [int(each) for each in given.in_flight.split(",")], given.repeat))
