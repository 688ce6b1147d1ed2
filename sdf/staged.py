"""What is done with a recipe in stages, or with the directory of one: the same as with a single corpus, stage by stage.

Results are one record with those of the stages inside: who asks for a total need not know that there are any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sdf import shards
from sdf.directory import STAGES, job_of
from sdf.errors import RecipeError, StorageError, UsageError
from sdf.frontmatter import near
from sdf.grants.spent import Cost, cost_of, together
from sdf.job import Job, compile_job
from sdf.ledger import LedgerView, read_ledger
from sdf.manifest import ALL, Manifest
from sdf.providers.seats import check_settings
from sdf.recipe import load, place_of, wanted
from sdf.records import Usage
from sdf.report.arms import arms
from sdf.report.plans import PlanReport, plan_report
from sdf.reuse.bill import bill
from sdf.reuse.refold import refold
from sdf.shards.file import COLUMNS
from sdf.stages import Kept, Stage, keep, kept, resolved, split
from sdf.storage import RunDir
from sdf.story import Outcome

# Fields that a stage says itself: what is wrong with them stands there.
OWN = ("mix", "sources", "allow", "checks_off")

# With the directories whose answers the stage reuses.
Carry = Callable[[Job, RunDir, Sequence[RunDir]], Outcome]

NOTHING: Mapping[str, RunDir] = {}


def load_stages(name: str, overrides: Mapping[str, Any]) -> tuple[Stage, ...]:
    """The stages of a recipe file, each compiled once to find its faults; () when it has none.

    Errors name the file and the line.
    """
    try:
        recipe = load(name, overrides)
        check_settings(recipe)
        stages = split(recipe)
        for stage in stages:
            compile_stage(stage)
    except RecipeError as error:
        if not error.at:
            raise
        raise RecipeError(f"{place_of(name, overrides, error.at)}: {error}") from None
    return stages


def compile_stage(stage: Stage, made: Mapping[str, RunDir] = NOTHING) -> Job:
    """The job of a stage, given the stages that are made; without them as it is before those that it reads are."""
    try:
        return compile_job(resolved(stage, made))
    except RecipeError as error:
        at = ("stages", stage.name, *error.at) if error.at[:1] and error.at[0] in OWN else error.at
        raise RecipeError(f"stage {stage.name}: {error}", at) from None


def plan_stages(name: str, stages: Sequence[Stage], ledgers: Sequence[tuple[RunDir, LedgerView]]) -> PlanReport:
    """The plan of every stage; rows of a stage that is not made yet are counted as planned, and nothing is foretold of
    what reuse would find of them."""
    reports: dict[str, PlanReport] = {}
    for stage in stages:
        job = compile_stage(stage)
        expected = {genre: n_planned(reports[read], job, genre) for genre, read in stage.reads.items()}
        report = plan_report(job, expected)
        reports[stage.name] = arms(report, job, bill(job, ledgers) if ledgers and not expected else None)
    first, every = next(iter(reports.values())), list(reports.values())
    return PlanReport(
        recipe=name,
        constitution=first.constitution,
        constitution_hash=first.constitution_hash,
        n_principles=first.n_principles,
        providers={seat: provider for report in every for seat, provider in report.providers.items()},
        models={role: model for report in every for role, model in report.models.items()},
        tokenizer=first.tokenizer,
        n_tokens=sum(each.n_tokens for each in every),
        n_documents=sum(each.n_documents for each in every),
        n_requests=sum(each.n_requests for each in every),
        genres=tuple(genre for each in every for genre in each.genres),
        stages=tuple(every),
    )


def n_planned(report: PlanReport, job: Job, genre: str) -> int:
    """Documents that are not held out, of the first config that has the columns the genre reads, as `corpora.rows_with`
    picks it."""
    source = next(each.source for each in job.genres if each.key == genre)
    assert source is not None
    counts = Counter[str]()
    for each in report.genres:
        counts[each.config] += each.n_documents
    found = next((counts[config] for config in COLUMNS if counts[config] and has(config, source.columns)), 0)
    return round(found * (1 - job.recipe.holdout))


def has(config: str, columns: Sequence[str]) -> bool:
    """Whether the rows of a config have the columns."""
    return set(columns) <= set(COLUMNS[config].names)


def run_stages(
    stages: Sequence[Stage], out: RunDir, is_stopped: Callable[[], bool], say: Callable[[str], None], carry: Carry
) -> Outcome:
    """Makes the stages in order, and goes on with the one that is not complete. Ends with the first that is stopped."""
    keep(out, stages)
    places, outcomes = {each.name: each.inside(out) for each in stages}, dict[str, Outcome]()
    samples: list[Cost] = []
    for stage in stages:
        run_dir = stage.inside(out)
        job = replace(compile_stage(stage, places), cap_with=beside(run_dir, out, stages))
        outcome = _there(job, run_dir)
        if outcome is None:
            if is_stopped():
                break
            say(f"stage {stage.number} of {len(stages)}: {stage.name}, {stage.recipe.tokens:,} tokens")
            reuse = sampled(stage.sampled_in(out))
            samples += [cost_of(job, each, read_ledger(each)) for each in reuse]
            outcome = carry(job, run_dir, reuse)
        outcomes[stage.name] = outcome
        if not outcome.finished:
            break
    return _combined(outcomes, len(stages), samples)


def beside(run_dir: RunDir, out: RunDir, stages: Sequence[Stage]) -> tuple[RunDir, ...]:
    """All other directories that one cap on cost holds for."""
    every = [place for each in stages for place in (each.inside(out), each.sampled_in(out))]
    return tuple(each for each in every if each != run_dir)


def sampled(run_dir: RunDir) -> tuple[RunDir, ...]:
    """The directory, where a forecast left answers in it."""
    return (run_dir,) if read_ledger(run_dir).n_answers else ()


def unfinished(stages: Sequence[Stage], out: RunDir) -> list[Stage]:
    """Those that a run still has something to ask for."""
    return [stage for stage in stages if _whole(stage.inside(out), stage.recipe.tokens) is None]


def _there(job: Job, run_dir: RunDir) -> Outcome | None:
    """The outcome of a stage that holds all it was asked for, by this very recipe."""
    manifest = _whole(run_dir, job.recipe.tokens)
    if manifest is None or manifest.recipe_hash != job.hash:
        return None
    return Outcome(manifest, True, {}, 0, Usage(), 0, Usage())


def _whole(run_dir: RunDir, n_tokens: int) -> Manifest | None:
    """The manifest of a stage that was made for so many tokens and holds them."""
    manifest = shards.read_manifest(run_dir)
    if manifest is None or (manifest.state, manifest.target_tokens) != ("complete", n_tokens):
        return None
    return manifest if manifest.n_tokens >= n_tokens else None


def _combined(outcomes: Mapping[str, Outcome], n_stages: int, samples: Sequence[Cost] = ()) -> Outcome:
    """`samples` is what a forecast paid beside the directories of the stages."""
    every = outcomes.values()
    return Outcome(
        manifest=None,
        finished=len(outcomes) == n_stages and all(each.finished for each in every),
        unmet={f"{stage}: {genre}": why for stage, each in outcomes.items() for genre, why in each.unmet.items()},
        n_requests=sum(each.n_requests for each in every),
        usage=sum((each.usage for each in every), Usage()),
        n_overshoot=sum(each.n_overshoot for each in every),
        rebilled=sum((each.rebilled for each in every), Usage()),
        stages=dict(outcomes),
        cost=together([*samples, *(each.cost for each in every if each.cost is not None)]),
    )


def ledgers_of(directories: Sequence[RunDir]) -> list[RunDir]:
    """Directories to reuse, those made in stages by what was asked for each: by a run, or by a forecast beside it."""
    return [each for out in directories for each in _asked(kept(out)) or [out]]


def _asked(stages: Sequence[Kept]) -> list[RunDir]:
    every = [place for stage in stages for place in (stage.run_dir, stage.sampled)]
    return [each for each in every if each.exists(RunDir.recipe)]


def made(stages: Sequence[Kept]) -> list[Kept]:
    """The stages that a run has begun."""
    return [stage for stage in stages if stage.run_dir.exists(RunDir.recipe)]


def refold_stages(
    source: RunDir,
    target: RunDir,
    stages: Sequence[Kept],
    overrides: Mapping[str, Any],
    exclude: Sequence[str],
    match: RunDir | None,
) -> Outcome:
    """Every stage folded anew, each into its own place in another directory; a flag is for the stages it speaks of."""
    given = {name: value for name, value in overrides.items() if value is not None}
    if "mix" in given:
        raise UsageError("--mix: each stage has a mix of its own; assemble the directory of one stage")
    if len(made(stages)) < len(stages):
        raise StorageError(f"{source.root}: not every stage is made yet; finish it with `sdf run` first")
    jobs = {stage.name: job_of(stage.run_dir) for stage in stages}
    _check_ablated(jobs, given.get("ablate", ()))
    others = {each.name: each.run_dir for each in kept(match)} if match is not None else {}
    total = sum(job.recipe.tokens for job in jobs.values())
    n_tokens = wanted(given["tokens"]) if "tokens" in given else total
    if n_tokens == ALL:
        raise UsageError("--tokens all cannot be split among stages; give a number, or the directory of one stage")
    outcomes: dict[str, Outcome] = {}
    for stage in stages:
        job, own = jobs[stage.name], dict(given)
        if "tokens" in own:
            own["tokens"] = max(1, round(n_tokens * job.recipe.tokens / total))
        own["ablate"] = tuple(name for name in own.get("ablate", ()) if name in _rewrites(job))
        inside = RunDir(f"{target.root}/{stage.run_dir.root.rpartition('/')[2]}")
        arm = others.get(stage.name) if match is not None else None
        if match is not None and arm is None:
            raise StorageError(f"{match.root}: has no stage {stage.name!r} to match")
        outcomes[stage.name] = refold(stage.run_dir, inside, own, _excluded(exclude, job), arm)
    target.write(STAGES, source.read(STAGES))
    return _combined(outcomes, len(stages))


def _check_ablated(jobs: Mapping[str, Job], names: Sequence[str]) -> None:
    every = {name for job in jobs.values() for name in _rewrites(job)}
    for name in names:
        if name not in every:
            known = ", ".join(sorted(every)) or "none"
            raise RecipeError(
                f"--ablate {name!r}: no stage has a step of that name that rewrites another; known: {known}"
            )


def _rewrites(job: Job) -> set[str]:
    return {step.name for genre in job.genres for step in genre.declared if step.rewrites is not None}


def _excluded(exclude: Sequence[str], job: Job) -> list[str]:
    """Genres of other stages are no fault of this one."""
    parts = [part.strip() for value in exclude for part in value.split(",")]
    genres = {genre.key for genre in job.genres}
    return [part for part in parts if not part.startswith("genre=") or part.removeprefix("genre=") in genres]


def stage_with(stages: Sequence[Stage], genre: str) -> Stage:
    """The stage whose mix has the genre. RecipeError when none has, or when it reads what is not made."""
    mixes = [key for stage in stages for key in stage.recipe.mix]
    stage = next((each for each in stages if genre in each.recipe.mix), None)
    if stage is None:
        raise RecipeError(f"--genre {genre!r} is in the mix of no stage{near(genre, mixes)}")
    if stage.reads:
        raise RecipeError(
            f"--genre {genre}: its stage {stage.name} reads {', '.join(stage.reads.values())}, which is not made "
            "yet; make a recipe of this stage alone, with the rows it reads as its source"
        )
    return stage


def previewed(stage: Stage, stages: Sequence[Stage], out: RunDir) -> tuple[Job, RunDir]:
    """The job of a stage that is not made, and where its first briefs are asked, for its run to find them."""
    keep(out, stages)
    run_dir = stage.sampled_in(out) if stage.needs else stage.inside(out)
    return replace(compile_stage(stage), cap_with=beside(run_dir, out, stages)), run_dir


def stage_of(out: RunDir, stages: Sequence[Kept], id: str) -> RunDir:
    """The stage that settled the brief whose id begins so; StorageError when none did, or several."""
    wanted = id.strip().lower()
    holding = [
        each.run_dir
        for each in made(stages)
        if any(receipt.brief.startswith(wanted) for receipt in read_ledger(each.run_dir).receipts)
    ]
    if len(holding) != 1:
        found = "no stage" if not holding else f"{len(holding)} stages"
        raise StorageError(f"{out.root}: {found} settled a brief whose id begins with {wanted}; give all its digits")
    return holding[0]
