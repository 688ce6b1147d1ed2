"""What a run lets its workers spend, and what it has cost: dollars from the treasury, requests from the permits."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from sdf.errors import BudgetExhausted
from sdf.grants.dollars import Grants
from sdf.grants.permits import Permits
from sdf.grants.spent import Cost, cost_line, dollars, spent_before
from sdf.grants.treasury import Treasury
from sdf.job import Job
from sdf.ledger import LedgerView, read_ledger
from sdf.money.allowance import Account, Allowance, LaneReport
from sdf.storage import RunDir

log = logging.getLogger(__name__)


class Spending:
    """The money and the rates of one epoch. Tell it of every worker: hired, heard, and closed or lost."""

    def __init__(self, job: Job, run_dir: RunDir, epoch: int, view: LedgerView) -> None:
        self._cap = job.recipe.max_cost
        self._before = spent_before(job, run_dir, view, epoch)
        for other in job.cap_with if self._cap is not None else ():
            self._before += spent_before(job, other, read_ledger(other))
        if self._cap is not None and self._before.unpriced:
            models = ", ".join(self._before.unpriced)
            log.warning("what %s has cost here so far is not known, and does not count against --max-cost", models)
        cap = math.inf if self._cap is None else self._cap
        self._treasury = Treasury(run_dir, epoch, Grants(cap, self._before.total))
        self._permits = Permits(job.recipe.n_in_flight)
        self._accounts: dict[str, Account] = {}
        self._hired: set[str] = set()

    def hire(self, worker: str) -> None:
        self._hired.add(worker)
        self._permits.hire(worker)
        self._treasury.hire(worker)

    async def allowance(self, worker: str) -> Allowance:
        """What the worker may do from now on; its dollars are on record."""
        shares = self._permits.shares(worker)
        if self._cap is None:
            await self._treasury.note()
            return Allowance(None, recall=False, lanes=shares)
        return Allowance(await self._treasury.granted(worker), self._treasury.grants.recall, shares)

    def hear(self, worker: str, account: Account, lanes: Mapping[str, LaneReport]) -> BudgetExhausted | None:
        """Takes a worker's word; returns what ends the run, once nothing more can be paid."""
        self._accounts[worker] = account
        self._permits.hear(worker, lanes)
        self._treasury.hear(worker, account)
        return self._exhausted(self._treasury.grants.needed) if self._cap is not None else None

    def _exhausted(self, needed: float | None) -> BudgetExhausted | None:
        if needed is None:
            return None
        return BudgetExhausted(
            f"--max-cost: {cost_line(self.cost)}, and the next request may cost up to {dollars(needed)}; "
            "everything so far is kept: the same command with a higher --max-cost goes on"
        )

    def close(self, worker: str, account: Account) -> None:
        self._accounts[worker] = account
        self._permits.lose(worker)
        self._treasury.grants.close(worker, account)

    def lose(self, worker: str) -> None:
        """A worker that died while it started was never hired, and is none that is lost."""
        if worker not in self._hired:
            return
        self._permits.lose(worker)
        self._treasury.grants.lose(worker)

    async def keep(self) -> None:
        """The last word of an epoch on its money: what came back is on record too."""
        await self._treasury.keep()

    @property
    def cost(self) -> Cost:
        here = math.fsum(each.spent - each.assumed for each in self._accounts.values())
        spent = self._before.proved + here
        presumed = max(0.0, self._treasury.grants.spent - spent)
        n_unpriced = sum(each.n_unpriced for each in self._accounts.values())
        return Cost(spent, presumed, here, n_unpriced, self._cap, self._before.unpriced)
