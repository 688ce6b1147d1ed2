"""What a changed recipe would pay for, given the answers of an older ledger: a dry run that asks no one.

Briefs that the ledger settled are walked through with the new recipe. A step counts as answered when its request key
is found; one that reads a step which is not would be paid for too, since its prompt cannot be known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdf.errors import GenreError, RequestRejected, SdfError
from sdf.eventloop import run_to_end
from sdf.generate import Ask, settle_step
from sdf.genres import Genre
from sdf.job import Job
from sdf.ledger import AnswerReader, LedgerView
from sdf.plan import Plan, steps_of
from sdf.prompts import Composer
from sdf.records import Answer, Brief, Location, Request
from sdf.storage import RunDir

# Briefs looked at; the share of paid requests is then known to within about 7 %.
SAMPLE = 200


@dataclass(frozen=True, slots=True)
class Due:
    """Requests of one step, or of all, and how many of them were never answered."""

    n_requests: int
    n_unpaid: int


@dataclass(frozen=True, slots=True)
class Bill:
    """What as many briefs as the ledgers settled would take under the new recipe: in all, and by (genre, step).

    Estimated from a sample of the briefs; `is_exact` when the sample is all of them.
    """

    n_requests: int
    n_unpaid: int
    is_exact: bool
    steps: Mapping[tuple[str, str], Due] = field(default_factory=dict[tuple[str, str], Due])

    def __str__(self) -> str:
        about = "" if self.is_exact else "about "
        share = self.n_unpaid / max(1, self.n_requests)
        return f"{about}{self.n_unpaid:,} of {self.n_requests:,} requests would be paid again ({share:.0%})"


class _UnpaidError(SdfError):
    """No ledger ever answered this request."""


def bill(job: Job, ledgers: Sequence[tuple[RunDir, LedgerView]]) -> Bill:
    """What `--reuse` of these ledgers leaves to pay for the briefs they settled; angle rounds are not counted."""
    plan = Plan(job)
    settled = {(each.genre, each.index) for _, view in ledgers for each in view.receipts if each.genre in plan.genres}
    known = sorted(place for place in settled if _is_planned(plan, *place))
    every = max(1, len(known) // SAMPLE)
    walk = _Walk(job, plan, ledgers)
    run_to_end(walk.all(known[::every]))
    scale = len(known) / max(1, len(known[::every]))
    steps = {step: Due(round(n * scale), round(walk.unpaid[step] * scale)) for step, n in sorted(walk.requests.items())}
    total = Due(round(walk.requests.total() * scale), round(walk.unpaid.total() * scale))
    return Bill(total.n_requests, total.n_unpaid, every == 1, steps)


def _is_planned(plan: Plan, genre: str, index: int) -> bool:
    n_briefs = plan.n_briefs(genre)
    return n_briefs is None or index < n_briefs


class _Walk:
    """Goes through briefs step by step; what an unanswered step would have said is not known to those that read it."""

    def __init__(self, job: Job, plan: Plan, ledgers: Sequence[tuple[RunDir, LedgerView]]) -> None:
        self.requests, self.unpaid = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        self._plan, self._composer = plan, Composer(job)
        self._ledgers = [(view.keys, AnswerReader(run_dir)) for run_dir, view in ledgers]
        self._angles = {each.key: each.angles for _, view in ledgers for each in view.rounds}

    async def all(self, places: Sequence[tuple[str, int]]) -> None:
        for genre, index in places:
            await self._brief(self._plan.genres[genre], index)

    async def _brief(self, genre: Genre, index: int) -> None:
        brief, place = self._plan.brief(genre.key, index), self._plan.round_of(genre.key, index)
        angle = None
        unknown = set[str]()
        if place is not None:
            angles = self._angles.get(place[0])
            angle = angles[place[1]] if angles is not None else None
            if angles is not None and angle is None:
                return
            unknown |= {"angle"} if angles is None else set()
        await self._steps(genre, brief, angle, unknown)

    async def _steps(self, genre: Genre, brief: Brief, angle: str | None, unknown: set[str]) -> None:
        values: dict[str, Any] = {}
        for step in steps_of(genre, brief):
            if {genre.ablated.get(name, name) for name in step.reads} & unknown:
                self._count(genre.key, step.name, is_paid=False)
                unknown.add(step.name)
                continue
            try:
                reason, _ = await settle_step(
                    self._composer, self._ask(genre.key), genre, step, brief, angle, values, []
                )
            except _UnpaidError:
                unknown.add(step.name)
            except (GenreError, RequestRejected):
                return
            else:
                if reason is not None and step.sample is None:
                    return

    def _ask(self, genre: str) -> Ask:
        async def ask(request: Request, key: str, unit: str, step: str) -> tuple[Answer, Location]:
            for keys, reader in self._ledgers:
                location = keys.find(key)
                if location is not None:
                    self._count(genre, step, is_paid=True)
                    return reader.read(location).answer, location
            self._count(genre, step, is_paid=False)
            raise _UnpaidError(f"{unit}: {step} of {request.model} was never answered")

        return ask

    def _count(self, genre: str, step: str, *, is_paid: bool) -> None:
        self.requests[genre, step] += 1
        self.unpaid[genre, step] += not is_paid
