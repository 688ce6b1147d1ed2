"""An arm of an ablation, before it is paid for: which steps are left out, which are asked anew, which are there."""

from __future__ import annotations

from dataclasses import replace

from sdf.genres import Genre, depending
from sdf.job import Job
from sdf.report.plans import PlanReport, StepPlan
from sdf.reuse.bill import Bill, Due

NOTHING = Due(0, 0)


def arms(report: PlanReport, job: Job, bill: Bill | None) -> PlanReport:
    """The report with its steps, where the recipe leaves something out or answers are reused."""
    if bill is None and not any(genre.ablated for genre in job.genres):
        return report
    steps = tuple(step for genre in job.genres for step in _steps(genre, bill))
    return replace(report, steps=steps, is_reusing=bill is not None, is_exact=bill is None or bill.is_exact)


def _steps(genre: Genre, bill: Bill | None) -> list[StepPlan]:
    anew = depending(genre, genre.ablated)
    found = [StepPlan(genre.key, name, "left out", stands, 0, 0) for name, stands in genre.ablated.items()]
    for step in genre.brief_steps:
        due = bill.steps.get((genre.key, step.name), NOTHING) if bill is not None else NOTHING
        effect = "asked anew" if step.name in anew else "as before"
        found.append(StepPlan(genre.key, step.name, effect, None, due.n_requests - due.n_unpaid, due.n_unpaid))
    return found
