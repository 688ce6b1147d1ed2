"""A corpus directory as a job meets it: is it new, the same, or made by another recipe?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sdf.errors import Missing, RecipeChanged, StorageError
from sdf.job import Job, job_of_snapshot
from sdf.recipe import Decides
from sdf.storage import RunDir

# Lists the corpora of a directory that was made in stages.
STAGES = "stages.json"


@dataclass(frozen=True, slots=True)
class Difference:
    """A field in which two jobs differ; values as text, shortened."""

    field: str
    decides: Decides
    before: str
    now: str


def job_of(run_dir: RunDir) -> Job:
    """The job a directory was made by. StorageError when there is no corpus."""
    try:
        data = run_dir.read(RunDir.recipe)
    except Missing:
        check_one(run_dir)
        raise StorageError(
            f"{run_dir.root}: no corpus here (no {RunDir.recipe}); `sdf run RECIPE --out` makes one"
        ) from None
    return job_of_snapshot(data, f"{run_dir.root}/{RunDir.recipe}")


def check_one(run_dir: RunDir) -> None:
    """StorageError where there are several corpora, and one is wanted."""
    if run_dir.exists(STAGES):
        raise StorageError(
            f"{run_dir.root}: was made in stages, each a corpus of its own; give the directory of one, as {STAGES} "
            "lists them"
        )


def differences(before: Job, now: Job) -> list[Difference]:
    """In the order of the fields; what only one of them has is shown as absent."""
    old, new = before.identity(), now.identity()
    found: list[Difference] = []
    for name in [*old, *(name for name in new if name not in old)]:
        was, current = old.get(name), new.get(name)
        if was != current:
            decides = (current or was or ("text", ""))[0]
            found.append(Difference(name, decides, was[1] if was else "absent", current[1] if current else "absent"))
    return found


def occupy(run_dir: RunDir, job: Job, price: Callable[[], str]) -> None:
    """The directory is this job's from here on. RecipeChanged when it is another's; nothing is written then.

    `price` tells what the job would pay if it reused what is there; it is asked only when texts would differ.
    """
    if run_dir.exists(RunDir.recipe):
        changed = differences(job_of(run_dir), job)
        if changed and _holds_work(run_dir):
            raise RecipeChanged(_explain(run_dir, changed, price))
    elif run_dir.children("data") or run_dir.children("manifests"):
        raise StorageError(
            f"{run_dir.root}: holds data but no {RunDir.recipe}, so it is not known what made it; give another --out"
        )
    if not run_dir.exists(RunDir.recipe) or run_dir.read(RunDir.recipe) != job.snapshot():
        run_dir.write(RunDir.recipe, job.snapshot())


def _holds_work(run_dir: RunDir) -> bool:
    """Whether anything was answered, settled or sent there: a run that a wrong --model stopped leaves nothing."""
    ledger = [path for path, _ in run_dir.files("ledger") if not path.endswith(("/EPOCH", "/grants.json"))]
    return bool(ledger or run_dir.children(RunDir.batches) or run_dir.children("manifests") or run_dir.children("data"))


def _explain(run_dir: RunDir, changed: list[Difference], price: Callable[[], str]) -> str:
    lines = [f"{run_dir.root} was made by a recipe that differs:"]
    for each in changed:
        effect = "decides text" if each.decides == "text" else "does not decide text"
        lines.append(f"  {each.field}: {each.before} -> {each.now}   ({effect})")
    if any(each.decides == "text" for each in changed):
        lines.append(f"Give another --out and --reuse {run_dir.root}: {price()}.")
    else:
        lines.append(f"No text depends on it: `sdf assemble {run_dir.root} --out DIR2` with the new values is free.")
    return "\n".join(lines)
