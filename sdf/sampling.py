"""What a recipe in stages will take: each stage is sampled in turn, one that reads another before that one is made.

    OUT/1-documents/                  a stage whose sources are there: sampled where its run will be
    OUT/forecast/read/1-documents/    the first documents of it, for the stages that read it
    OUT/forecast/sampled/2-chat/      a stage that reads those: its run reuses the answers

What is read is the fold of all that was answered so far. A smaller corpus is a prefix of a larger one, so these rows
are the first of the stage to come, and its run will ask the same about them: it finds the answers by their questions.
Where rows come out otherwise after all, so do the questions, and no answer is taken for another's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from sdf import forecast as forecasts
from sdf import shards
from sdf.forecast import Forecast
from sdf.job import Job
from sdf.manifest import Manifest
from sdf.report.forecasts import ForecastReport, Unsampled
from sdf.report.plans import PlanReport, plan_report
from sdf.reuse.refold import refold
from sdf.sources.corpora import SPLIT
from sdf.staged import beside, compile_stage, has, n_planned, sampled
from sdf.stages import Stage, keep
from sdf.storage import RunDir


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
