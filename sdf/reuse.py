"""What a changed recipe would pay for, given the answers of an older ledger: a dry run that asks no one.

Briefs that the ledger settled are walked through with the new recipe. A step counts as answered while its request
key is found; after the first that is not, every later step would be paid for, since its prompt cannot be known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdf.errors import SdfError
from sdf.eventloop import run_to_end
from sdf.generate import settle_brief
from sdf.job import Job
from sdf.ledger import AnswerReader, LedgerView
from sdf.plan import Plan
from sdf.prompts import Composer
from sdf.records import Answer, Location, Receipt, Request, RoundKey
from sdf.storage import RunDir

# Briefs looked at; the share of paid requests is then known to within about 7 %.
SAMPLE = 200


@dataclass(frozen=True, slots=True)
class Bill:
    """Requests that as many briefs as the ledger settled would take under the new recipe, and how many are unpaid.

    Estimated from a sample of the briefs; `is_exact` when the sample is all of them.
    """

    n_requests: int
    n_unpaid: int
    is_exact: bool

    def __str__(self) -> str:
        about = "" if self.is_exact else "about "
        share = self.n_unpaid / max(1, self.n_requests)
        return f"{about}{self.n_unpaid:,} of {self.n_requests:,} requests would be paid again ({share:.0%})"


class _UnpaidError(SdfError):
    """The ledger never answered this request."""


def bill(job: Job, ledger: RunDir, view: LedgerView) -> Bill:
    """What `--reuse` of this ledger leaves to pay for the briefs it settled; angle rounds are not counted."""
    plan = Plan(job)
    known = [receipt for receipt in view.receipts if receipt.genre in plan.genres]
    step = max(1, len(known) // SAMPLE)
    sample = known[::step]
    angles = {each.key: each.angles for each in view.rounds}
    n_requests, n_unpaid = run_to_end(_walk(job, plan, AnswerReader(ledger), view, sample, angles))
    scale = len(known) / max(1, len(sample))
    return Bill(round(n_requests * scale), round(n_unpaid * scale), step == 1)


async def _walk(
    job: Job,
    plan: Plan,
    reader: AnswerReader,
    view: LedgerView,
    sample: Sequence[Receipt],
    angles: dict[RoundKey, tuple[str | None, ...]],
) -> tuple[int, int]:
    composer = Composer(job)
    n_requests = n_unpaid = 0
    for receipt in sample:
        genre = plan.genres[receipt.genre]
        n_paid = 0

        async def ask(request: Request, key: str, unit: str, step: str) -> tuple[Answer, Location]:
            nonlocal n_paid
            location = view.keys.find(key)
            if location is None:
                raise _UnpaidError(f"{unit}: {step} of {request.model} was never answered")
            n_paid += 1
            return reader.read(location).answer, location

        n_steps = len(genre.brief_steps)
        place = plan.round_of(genre.key, receipt.index)
        if place is not None and place[0] not in angles:
            n_requests, n_unpaid = n_requests + n_steps, n_unpaid + n_steps
            continue
        angle = angles[place[0]][place[1]] if place is not None else None
        try:
            await settle_brief(composer, ask, genre, plan.brief(genre.key, receipt.index), angle)
        except _UnpaidError:
            n_requests += max(n_steps, n_paid + 1)
            n_unpaid += max(n_steps, n_paid + 1) - n_paid
        else:
            n_requests += n_paid
    return n_requests, n_unpaid
