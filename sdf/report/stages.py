"""What is told of a directory made in stages: the same as of one corpus, with those of the stages inside."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from sdf.directory import job_of
from sdf.grants.spent import total
from sdf.records import Usage
from sdf.report.corpus import Count, Inspection, Status, status_of
from sdf.stages import Kept
from sdf.storage import RunDir


def status_of_stages(out: RunDir, every: Sequence[Status], stages: Sequence[Kept]) -> Status:
    """`every` are those of the stages begun; what a forecast was billed and left beside them counts too."""
    beside = [status_of(each.sampled, job_of(each.sampled)) for each in stages if each.sampled.exists(RunDir.recipe)]
    n_stages, billed = len(stages), [*every, *beside]
    states = {each.state for each in every}
    is_whole = states == {"complete"} and len(every) == n_stages
    return Status(
        directory=out.root,
        recipe=f"{n_stages} stages, {len(every)} of them begun",
        state="complete" if is_whole else "growing" if states - {"empty"} else "empty",
        n_tokens=sum(each.n_tokens for each in every),
        n_documents=sum(each.n_documents for each in every),
        target_tokens=sum(each.target_tokens for each in every),
        genres=tuple(genre for each in every for genre in each.genres),
        rejected=dict(sum((Counter(each.rejected) for each in every), Counter[str]())),
        n_settled=sum(each.n_settled for each in every),
        uncommitted=sum(each.uncommitted for each in every),
        epoch=max((each.epoch for each in every), default=0),
        holder=next((each.holder for each in every if each.holder is not None), None),
        damaged=tuple(f"{each.directory}/{path}" for each in every for path in each.damaged),
        usage=_usage(billed),
        rebilled=sum((each.rebilled for each in billed), Usage()),
        stages=tuple(every),
        cost=total([each.cost for each in billed if each.cost is not None]),
        rebilled_usd=math.fsum(each.rebilled_usd for each in billed),
        uncollected=tuple(batch for each in billed for batch in each.uncollected),
    )


def _usage(every: Sequence[Status]) -> dict[str, Usage]:
    found: dict[str, Usage] = {}
    for status in every:
        for model, usage in status.usage.items():
            found[model] = found.get(model, Usage()) + usage
    return found


def inspection_of_stages(out: RunDir, every: Sequence[Inspection]) -> Inspection:
    total = Count(sum(each.total.n_documents for each in every), sum(each.total.n_tokens for each in every))
    return Inspection(out.root, total, {}, {}, {}, {}, {}, stages=tuple(every))
