"""The Python surface: everything the command line does, for notebooks and scripts.

    import sdf.api
    report = sdf.api.run("quickstart", "corpus", tokens="200k")

Each function reads its inputs, does one thing and returns a frozen record. Errors are `sdf.errors.SdfError`, whose
text is for a user to read.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdf import audit as audits
from sdf import batches, sampling, shards, staged
from sdf import forecast as forecasts
from sdf import genres as genre_files
from sdf.audit import Audit
from sdf.batches import Canceled
from sdf.directory import job_of
from sdf.errors import GenreError, RecipeChanged, RecipeError, StorageError, UsageError
from sdf.eventloop import run_to_end
from sdf.export import Exported, Wanted
from sdf.export import export as export_corpus
from sdf.frontmatter import near
from sdf.genres import Genre
from sdf.job import Job, load_job
from sdf.launch import carry_out, findings, look_ahead, release
from sdf.ledger import read_ledger
from sdf.pipeline import Stop
from sdf.preflight import Finding
from sdf.report.arms import arms
from sdf.report.corpus import Inspection, Status, Trace, inspection_of, status_of, trace_of
from sdf.report.forecasts import ForecastReport, forecast_report, report_of_stages
from sdf.report.plans import PlanReport, plan_report
from sdf.report.stages import inspection_of_stages, status_of_stages
from sdf.report.text import json_of
from sdf.reuse.bill import bill
from sdf.reuse.refold import refold
from sdf.stages import Stage
from sdf.storage import RunDir
from sdf.storage.lease import Lease
from sdf.story import Outcome, Progress
from sdf.verification import Verification, together, verification

Path_ = str | os.PathLike[str]

# Set by Ray for the entrypoint of a submitted job.
IN_A_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def plan(recipe: str, *, reuse: Sequence[Path_] = (), **overrides: Any) -> PlanReport:
    """What `run` would make: free, and nothing is written. With `reuse`, which of its answers are there already."""
    stages = staged.load_stages(recipe, overrides)
    ledgers = [(run_dir, read_ledger(run_dir)) for run_dir in staged.ledgers_of([RunDir(each) for each in reuse])]
    for run_dir, view in ledgers:
        if not view.n_answers:
            raise StorageError(f"{run_dir.root}: holds no answers to reuse; give the directory that `sdf run` wrote")
    if stages:
        return staged.plan_stages(recipe, stages, ledgers)
    job = load_job(recipe, overrides)
    return arms(plan_report(job), job, bill(job, ledgers) if ledgers else None)


def forecast(
    recipe: str,
    n: int,
    out: Path_,
    *,
    tokens_per_second: float | None = None,
    stop: Stop | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    **overrides: Any,
) -> ForecastReport:
    """What the corpus will take, from the first `n` briefs of each genre, written for real into `out`.

    Nothing is committed, and the run in `out` finds them paid. `tokens_per_second` is what own engines write together.
    Of a recipe in stages it samples each, those that read an earlier one from its first documents, and holds them.
    """
    stages = staged.load_stages(recipe, overrides)
    job = None if stages else load_job(recipe, overrides)
    run_dir, halt = RunDir(out), stop or Stop()

    def sample(
        job: Job, run_dir: RunDir, reuse: Sequence[RunDir] = (), expected: Mapping[str, int] = forecasts.NOTHING
    ) -> ForecastReport:
        effort = sampling.ask_first(job, run_dir, n, reuse, halt, on_progress, say)
        asked = forecasts.read_asked(job, run_dir, n, reuse)
        return forecast_report(job, asked, effort, tokens_per_second, expected)

    if job is None:
        _look_at_all(stages, run_dir)
        found = sampling.sample_stages(stages, run_dir, lambda: halt.requested, say, sample)
        return report_of_stages(*found, n, tokens_per_second)
    _check_unstaged(run_dir, job)
    report = sample(job, run_dir)
    forecasts.keep(run_dir, report.forecast)
    return report


def compared(directory: Path_) -> str | None:
    """How a corpus compares with the forecast that was made in its directory; None where none was made."""
    return sampling.compared(RunDir(directory))


def run(
    recipe: str,
    out: Path_,
    *,
    reuse: Sequence[Path_] = (),
    stop: Stop | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    **overrides: Any,
) -> Outcome:
    """Makes the corpus in `out`, or goes on with it. Overrides are fields of the recipe (None: not given).

    Ends when the target is reached, when every genre has left, or after `stop.request()`: then what is in flight is
    waited for (`drain_timeout`), and what is ready is committed. `say` is told what a user should read meanwhile. A
    recipe in stages makes a corpus for each in its own directory within `out`; the outcome then holds theirs.
    """
    stages = staged.load_stages(recipe, overrides)
    job = None if stages else load_job(recipe, overrides)
    if IN_A_RAY_JOB in os.environ and "://" not in os.fspath(out) and not Path(out).is_absolute():
        raise UsageError(f"--out {out}: inside a Ray job a relative path is lost with it; give an absolute, shared one")
    run_dir, halt, others = RunDir(out), stop or Stop(), staged.ledgers_of([RunDir(each) for each in reuse])

    def carry(job: Job, run_dir: RunDir, sampled: Sequence[RunDir] = ()) -> Outcome:
        return carry_out(job, run_dir, [*others, *sampled], halt, on_progress, say)

    if job is None:
        _look_at_all(staged.unfinished(stages, run_dir), run_dir)
        return staged.run_stages(stages, run_dir, lambda: halt.requested, say, carry)
    _check_unstaged(run_dir, job)
    return carry(job, run_dir)


def _look_at_all(stages: Sequence[Stage], run_dir: RunDir) -> None:
    """A later stage's model that is not there must not be found when the earlier ones are paid."""
    look_ahead(findings([staged.compile_stage(stage) for stage in stages], run_dir), lambda _: None)


def _check_unstaged(run_dir: RunDir, job: Job) -> None:
    if staged.kept(run_dir):
        raise RecipeChanged(f"{run_dir.root}: was made in stages, and {job.recipe.name} has none; give another --out")


def preflight(recipe: str, *, out: Path_ | None = None, **overrides: Any) -> list[Finding]:
    """What `run` looks at before it pays: models, context lengths and, with `out`, the directory. Free."""
    stages = staged.load_stages(recipe, overrides)
    jobs = [staged.compile_stage(stage) for stage in stages] or [load_job(recipe, overrides)]
    directory = [_usable(RunDir(out))] if out is not None else []
    return directory + findings(jobs, RunDir(out or "."))


def _usable(run_dir: RunDir) -> Finding:
    try:
        run_dir.check_usable()
    except StorageError as error:
        return Finding(str(error), error)
    return Finding(f"{run_dir.root}: can be written, and keeps what exists from being overwritten")


def assemble(
    directory: Path_, out: Path_, *, exclude: Sequence[str] = (), match: Path_ | None = None, **overrides: Any
) -> Outcome:
    """Folds the ledger of `directory` anew into `out`, free: other checks, mix, target, shard size, tokenizer, and
    without the rewrites that `ablate` names, where no later step reads them.

    `exclude` takes "genre=…", "principle=…", "model=…", "axis.NAME=…"; `match` keeps exactly the briefs that another
    corpus accepted. Ends where the ledger does; `finished` says whether the target was reached.
    """
    source, target, other = RunDir(directory), RunDir(out), RunDir(match) if match is not None else None
    if stages := staged.kept(source):
        return staged.refold_stages(source, target, stages, overrides, exclude, other)
    return refold(source, target, overrides, exclude, other)


def preview(recipe: str, genre: str, n: int = 3, *, out: Path_ | None = None, **overrides: Any) -> list[Trace]:
    """The first `n` briefs of a genre (fewer when its source ends), asked for real: prompts, answers, outcome.

    With `out` the answers are in its ledger, and a run there does not pay for them again.
    """
    given = overrides | {"ray": "none", "workers": 1}
    stages = staged.load_stages(recipe, given)
    stage = staged.stage_with(stages, genre) if stages else None
    job = load_job(recipe, given) if stage is None else staged.compile_stage(stage)
    known = [each.key for each in job.genres]
    if genre not in known:
        raise RecipeError(f"--genre {genre!r} is not in the mix of {job.recipe.name}{near(genre, known)}")
    if out is None and batches.is_batched(job):
        raise RecipeError(
            "a preview through batches takes hours, and what it paid for would be gone with it; name the directory of "
            "the run with --out, or give --provider anthropic"
        )
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = RunDir(out if out is not None else scratch)
        if stage is None:
            _check_unstaged(run_dir, job)
        else:
            job, run_dir = staged.previewed(stage, stages, run_dir)
        return sampling.preview(job, run_dir, genre, n)


def status(directory: Path_) -> Status:
    """Where a corpus stands: committed, settled, rejected, who writes it now."""
    run_dir = RunDir(directory)
    if stages := staged.kept(run_dir):
        begun = [status_of(each.run_dir, job_of(each.run_dir)) for each in staged.made(stages)]
        return status_of_stages(run_dir, begun, stages)
    return status_of(run_dir, job_of(run_dir))


def inspect(directory: Path_) -> Inspection:
    """What is in a corpus: lengths, genres, principles, axes, rejections, duplicates."""
    run_dir = RunDir(directory)
    if stages := staged.kept(run_dir):
        begun = [inspection_of(each.run_dir, job_of(each.run_dir)) for each in staged.made(stages)]
        return inspection_of_stages(run_dir, begun)
    return inspection_of(run_dir, job_of(run_dir))


def show(directory: Path_, id: str) -> Trace:
    """One brief by its id or the beginning of it: plan, prompts, answers, outcome."""
    run_dir = RunDir(directory)
    if stages := staged.kept(run_dir):
        run_dir = staged.stage_of(run_dir, stages, id)
    return trace_of(run_dir, job_of(run_dir), id)


def audit(directory: Path_, *, before: Path_ | None = None, out: Path_ | None = None) -> Audit:
    """The habits of a whole corpus, with what to ban in the next run; `before` is an earlier audit to compare with.

    With `out` it is written there as JSON, which `bans` of a recipe and a later `before` read.
    """
    run_dir = RunDir(directory)
    job = job_of(run_dir)
    earlier = audits.read_audit(os.fspath(before)) if before is not None else None
    found = audits.audit(run_dir, job, shards.committed(run_dir))
    if earlier is not None:
        found = replace(found, changes=audits.changes(found.findings, earlier))
    if out is not None:
        _write_aside(Path(out), (json.dumps(json_of(found), indent=1, ensure_ascii=False) + "\n").encode())
    return found


def _write_aside(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror}); give another --out") from None


def verify(directory: Path_, *, replay: bool = False) -> Verification:
    """Every byte and count of a corpus; with `replay`, that its ledger folds to exactly these shards."""
    run_dir = RunDir(directory)
    if stages := staged.kept(run_dir):
        return together([verify(each.run_dir.root, replay=replay) for each in stages])
    return verification(run_dir, replay)


def cancel(directory: Path_, *, say: Callable[[str], None] = lambda _: None) -> Canceled:
    """Cancels the batches that a run in `directory` left at the API. The key is read here.

    What they answered already is billed, and collected by the next run; what they did not is asked again. UsageError
    when none was ever submitted; LeaseHeld while a run is alive, which would send it all again.
    """
    run_dir = RunDir(directory)
    if stages := staged.kept(run_dir):
        dirs = [each.run_dir for each in staged.made(stages)]
        dirs += [each.sampled for each in stages if each.sampled.exists(RunDir.recipe)]
        return batches.together([cancel(each.root, say=say) for each in batches.submitting(run_dir, dirs)])
    job = job_of(run_dir)
    lease = Lease.take(run_dir, owner={"command": "cancel"}, say=say)
    try:
        return run_to_end(batches.cancel(job, run_dir))
    finally:
        release(lease)


def gc(directory: Path_) -> list[str]:
    """Deletes files that no reader of the newest manifest needs; returns their paths."""
    run_dir = RunDir(directory)
    if stages := staged.kept(run_dir):
        return [path for each in staged.made(stages) for path in gc(each.run_dir.root)]
    manifest = shards.read_manifest(run_dir)
    if manifest is None:
        return []
    lease = Lease.take(run_dir, owner={"command": "gc"}, say=lambda _: None)
    try:
        return shards.gc(run_dir, manifest)
    finally:
        release(lease)


def export(
    directory: Path_,
    out: Path_,
    *,
    to: str,
    configs: Sequence[str] = (),
    columns: str = "all",
    tokenizer: str = "",
    file_mb: int = 64,
) -> Exported:
    """Writes the committed corpus to `out` for another loader: `to` is "mds", "jsonl" or "tokens".

    `columns="training"` leaves out where rows come from; tokens need a `tokenizer`. The same export again finds what is
    there.
    """
    if "://" in os.fspath(out):
        raise UsageError(f"--out {out}: an export is written to a local directory; copy it to its place afterwards")
    wanted = Wanted(to=to, configs=tuple(configs), columns=columns, tokenizer=tokenizer, file_mb=file_mb)
    return export_corpus(RunDir(directory), wanted, Path(out).expanduser().absolute())


def genres(dirs: Sequence[Path_] = ()) -> dict[str, Genre]:
    """The known genres by key: built-in ones, then those of the directories."""
    return genre_files.discover([Path(each) for each in dirs])


def check_genre(path: Path_) -> Genre:
    """Loads one genre file; GenreError names file and line of the first fault."""
    return genre_files.load(Path(path))


def new_genre(key: str, *, kind: str = "document", directory: Path_ = "genres") -> Genre:
    """Writes a genre file to begin from, `directory`/`key`.md; GenreError when there is one of that key already."""
    known = genres()
    if key in known:
        raise GenreError(f"{key!r} is the key of {known[key].path}; choose another, or copy that file to replace it")
    return genre_files.scaffold(key, kind, Path(directory))
