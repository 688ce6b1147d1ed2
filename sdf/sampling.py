"""The first briefs of a corpus, asked before its run, which finds them paid: to look at, or for a forecast.

Of a recipe in stages each is sampled in turn, one that reads another before that one is made.

    OUT/1-documents/                  a stage whose sources are there: sampled where its run will be
    OUT/forecast/read/1-documents/    the first documents of it, for the stages that read it
    OUT/forecast/sampled/2-chat/      a stage that reads those: its run reuses the answers

What is read is the fold of all that was answered so far. A smaller corpus is a prefix of a larger one, so these rows
are the first of the stage to come, and its run will ask the same about them: it finds the answers by their questions.
Where rows come out otherwise after all, so do the questions, and no answer is taken for another's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from sdf import forecast as forecasts
from sdf import shards
from sdf.assemble import GenreTerms, Terms
from sdf.forecast import Forecast
from sdf.job import Job
from sdf.launch import carry_out
from sdf.ledger import read_ledger
from sdf.manifest import ALL, Manifest
from sdf.pipeline import Stop
from sdf.plan import Plan
from sdf.report.corpus import Trace, trace_of
from sdf.report.forecasts import Effort, ForecastReport, Unsampled, comparison
from sdf.report.plans import PlanReport, plan_report
from sdf.reuse.refold import refold
from sdf.sources.corpora import SPLIT
from sdf.staged import beside, compile_stage, has, n_planned, sampled
from sdf.stages import Stage, keep, kept
from sdf.storage import RunDir
from sdf.story import Progress, terms_of


def first_briefs(job: Job, n_of: Callable[[str], int]) -> Terms:
    """By which the first `n_of` briefs of each genre are wanted and no more, with all their twins: the fold takes
    siblings together or not at all."""
    terms = terms_of(job, Plan(job))
    sequences = tuple(_first(each, n_of(each.genre)) for each in terms.sequences)
    return replace(terms, sequences=sequences, target_tokens=ALL)


def _first(sequence: GenreTerms, n: int) -> GenreTerms:
    whole = -(-n // sequence.n_twins) * sequence.n_twins
    return replace(sequence, n_briefs=whole if sequence.n_briefs is None else min(whole, sequence.n_briefs))


def preview(job: Job, run_dir: RunDir, genre: str, n: int) -> list[Trace]:
    """The first `n` briefs of a genre (fewer when its source ends), asked; nothing is committed."""
    first = first_briefs(job, lambda each: n if each == genre else 0)
    carry_out(job, run_dir, (), Stop(), lambda _: None, lambda _: None, first, commits=False)
    plan = Plan(job)
    n_briefs = plan.n_briefs(genre)
    ids = [plan.brief(genre, index).id for index in range(n if n_briefs is None else min(n, n_briefs))]
    return [trace_of(run_dir, job, each) for each in ids]


def ask_first(
    job: Job,
    run_dir: RunDir,
    n: int,
    reuse: Sequence[RunDir],
    stop: Stop,
    on_progress: Callable[[Progress], None],
    say: Callable[[str], None],
) -> Effort:
    """Has the first `n` briefs of each genre asked, and commits nothing."""
    began: float | None = None

    def tell(progress: Progress) -> None:
        nonlocal began
        # Neither Ray's start nor the preflight is work.
        began = began or time.monotonic()
        on_progress(progress)

    outcome = carry_out(job, run_dir, reuse, stop, tell, say, first_briefs(job, lambda _: n), commits=False)
    return Effort(n, outcome.n_requests, time.monotonic() - (began or 0.0))


def compared(run_dir: RunDir) -> str | None:
    """How what lies in a directory compares with the forecast that was made there; None where none was made."""
    stages = kept(run_dir)
    if not stages:
        return _compared(run_dir, [run_dir])
    found = {each.name: _compared(each.run_dir, [each.run_dir, each.sampled]) for each in stages}
    return "\n".join(f"{name}: {held}" for name, held in found.items() if held is not None) or None


def _compared(run_dir: RunDir, paid: Sequence[RunDir]) -> str | None:
    """`paid` are the directories whose answers its corpus is made of."""
    foretold, manifest = forecasts.kept(run_dir), shards.read_manifest(run_dir)
    if foretold is None or manifest is None:
        return None
    views = [read_ledger(each) for each in paid]
    is_known = not any(view.unpriced_by_model for view in views)
    return comparison(foretold, manifest, math.fsum(view.cost_usd for view in views) if is_known else None)


# --- stages ------------------------------------------------------------------------------------------------------


class Sample(Protocol):
    """Asks the first briefs of a job in a directory, with the answers of others, and tells what all will take."""

    def __call__(
        self, job: Job, run_dir: RunDir, reuse: Sequence[RunDir], expected: Mapping[str, int]
    ) -> ForecastReport: ...


def sample_stages(
    stages: Sequence[Stage], out: RunDir, is_stopped: Callable[[], bool], say: Callable[[str], None], sample: Sample
) -> tuple[dict[str, ForecastReport], dict[str, Unsampled]]:
    """A forecast of every stage that could be sampled, kept in its directory; the others with the reason."""
    keep(out, stages)
    reports: dict[str, ForecastReport] = {}
    unsampled: dict[str, Unsampled] = {}
    plans: dict[str, PlanReport] = {}
    places: dict[str, RunDir] = {}
    for stage in stages:
        declared = compile_stage(stage)
        expected = {genre: n_planned(plans[read], declared, genre) for genre, read in stage.reads.items()}
        plans[stage.name] = plan_report(declared, expected)
        found = "stopped before it" if is_stopped() else _place(stage, out, stages, places)
        if isinstance(found, str):
            unsampled[stage.name] = Unsampled(found, plans[stage.name])
            continue
        say(f"stage {stage.number} of {len(stages)}: {stage.name}, its first documents")
        job, run_dir = found
        reuse = sampled(stage.sampled_in(out)) if run_dir == stage.inside(out) else ()
        report = sample(replace(job, cap_with=beside(run_dir, out, stages)), run_dir, reuse, expected)
        forecasts.keep(stage.inside(out), report.forecast)
        reports[stage.name], places[stage.name] = report, run_dir
        plans[stage.name] = _as_sampled(plans[stage.name], report.forecast)
    return reports, unsampled


def _place(
    stage: Stage, out: RunDir, stages: Sequence[Stage], places: Mapping[str, RunDir]
) -> tuple[Job, RunDir] | str:
    """The job of a stage as it can be sampled now, and where; or why it cannot. `places` are where the earlier ones
    were sampled."""
    needed = {each.name: each for each in stages if each.name in stage.needs}
    made = {name: each.inside(out) for name, each in needed.items() if _is_complete(each.inside(out))}
    if len(made) == len(needed):
        return compile_stage(stage, made), stage.inside(out)
    read: dict[str, RunDir] = {}
    for genre, name in stage.reads.items():
        if name in made:
            continue
        if name not in places:
            return f"it reads the stage {name}, which was not sampled either"
        read[name] = needed[name].read_in(out)
        folded = refold(places[name], read[name], {}, (), None).manifest
        if folded is None or not _has_rows(folded, compile_stage(stage), genre):
            return f"among the first documents of the stage {name} none was accepted that {genre} can read; sample more"
    # Of a bank of principles that is not made all are taken.
    return compile_stage(stage, {**made, **read}), stage.sampled_in(out)


def _has_rows(manifest: Manifest, job: Job, genre: str) -> bool:
    columns = next(each.source.columns for each in job.genres if each.key == genre and each.source is not None)
    return any(shard.split == SPLIT and has(shard.config, columns) for shard in manifest.shards)


def _is_complete(run_dir: RunDir) -> bool:
    manifest = shards.read_manifest(run_dir)
    return manifest is not None and manifest.state == "complete"


def _as_sampled(plan: PlanReport, found: Forecast) -> PlanReport:
    """The plan with as many documents as the samples foretell."""
    foretold = {
        each.key: round(each.n_briefs.mean * each.accepted.mean) for each in found.genres if each.n_briefs is not None
    }
    genres = tuple(replace(each, n_documents=foretold.get(each.key, each.n_documents)) for each in plan.genres)
    return replace(plan, genres=genres)
